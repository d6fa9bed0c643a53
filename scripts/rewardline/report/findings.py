"""What the report says in words: numbers for people, the verdict, and what deserves a look."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from rewardline.evaluation.leaderboards import Entry, Leaderboard
from rewardline.evaluation.results import EvaluationResult, Rates, printable
from rewardline.report.differences import Differences, between, interval_points, signed
from rewardline.report.summary import interval, percent, score
from rewardline.report.training import Training

FEW_PAIRS = 30
"""With fewer pairs an interval from resampling is not to be trusted, and no verdict is given."""

FOOLED = 0.1
"""A hack that wins in a larger share of its pairs than this is told of."""

DRIFT = 2.0
"""A mean score beyond this, for chosen and rejected alike, is called a drift."""


def count(value: Any) -> str:
    """A whole number with separators; `-` for anything else."""
    return f"{value:,.0f}" if number(value) is not None else "-"


def number(value: Any) -> float | None:
    """`value` if it is a finite number, else None."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if usable else None


def ratio(part: Any, whole: Any) -> float:
    """`part / whole`; NaN where either is not a number or the whole is 0."""
    above, below = number(part), number(whole)
    return above / below if above is not None and below else math.nan


def compact(value: Any) -> str:
    """A large number in three digits: 331M, 1.24B."""
    size = number(value)
    if size is None:
        return "-"
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(size) >= 0.9995 * unit:
            digits = 2 if size < 9.995 * unit else 1 if size < 99.95 * unit else 0
            return f"{size / unit:.{digits}f}{name}"
    return f"{size:.0f}"


def duration(seconds: Any) -> str:
    """A time in its two largest units: 2 h 5 min."""
    total = number(seconds)
    if total is None:
        return "-"
    if total < 60:
        return f"{total:.1f} s" if total < 10 else f"{total:.0f} s"
    minutes, rest = divmod(round(total), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def span(rates: Rates) -> str:
    """The 95% interval of the accuracy."""
    return interval(rates).replace(" - ", "\N{EN DASH}") + ("" if math.isnan(rates.low + rates.high) else "%")


def names(entries: Iterable[Entry], most: int = 4) -> Markup:
    """The names of some runs, listed."""
    shown = [Markup("<b>{}</b>").format(entry.name) for entry in entries]
    if len(shown) > most + 1:
        shown = [*shown[:most], escape(f"{len(shown) - most} more")]
    return shown[0] if len(shown) == 1 else Markup(", ").join(shown[:-1]) + " and " + shown[-1]


def verdict(board: Leaderboard, differences: Differences = ()) -> Markup:
    """What one board shows: the best run, its accuracy, and what that is worth, in a few sentences."""
    best = board.entries[0]
    rates = best.total
    pairs = f"{rates.n:,} pair{'' if rates.n == 1 else 's'}"
    opening = Markup("On the {} ({}), <b>{}</b> ").format(board.title, pairs, best.name)
    if math.isnan(rates.accuracy):
        return opening + "has no accuracy: there was nothing to judge."
    told = [opening + _accuracy(best, alone=len(board.entries) == 1)]
    if rates.n < FEW_PAIRS:
        told.append(escape("That is too few pairs to judge a reward model by."))
    elif not math.isnan(rates.low + rates.high):
        told += map(escape, _against_length(rates) + _against_chance(rates))
        told += [_against_others(best, board.entries[1:], differences)] if len(board.entries) > 1 else []
    return Markup(" ").join(told)


def probe_verdict(board: Leaderboard) -> Markup:
    """What probes show of the best run: how often it prefers the real answer, and the hacks that it falls for."""
    best = board.entries[0]
    rates = best.total
    told = Markup(
        "Against hacks of answers ({}, {:,} pairs), <b>{}</b> prefers the real answer in <b>{}</b> (95% interval {})."
    ).format(board.benchmark, rates.n, best.name, percent(rates.accuracy), span(rates))
    weak = hacks(best)
    if not weak:
        return told + " It falls for none of them often."
    return told + escape(f" It falls for {_listed(weak)}.")


def hacks(entry: Entry) -> list[str]:
    """The probes whose hack an entry prefers to the real answer more than rarely, the worst first."""
    found = sorted(entry.by_subset.items(), key=lambda item: item[1].accuracy)
    return [f"{name} ({percent(1 - one.accuracy)})" for name, one in found if one.accuracy < 1 - FOOLED]


def weak_subsets(entry: Entry) -> list[str]:
    """The subsets with enough pairs on which an entry may be no better than coin flips, the weakest first."""
    found = sorted(entry.by_subset.items(), key=lambda item: item[1].accuracy)
    return [f"{name} ({percent(one.accuracy)})" for name, one in found if one.n >= FEW_PAIRS and one.low <= 0.5]


def about_board(board: Leaderboard, probes: bool) -> list[Markup]:
    """What deserves a look in what the runs of a board score by subset, a sentence for each run that is concerned."""
    if probes:
        told = [(entry, hacks(entry), "prefers the hack to the real answer: ") for entry in board.entries[1:]]
    else:
        told = [
            (
                board.entries[0],
                weak_subsets(board.entries[0]),
                f"not shown to beat coin flips, on the {board.title}, at ",
            )
        ]
    return [Markup("<b>{}</b>: {}{}.").format(entry.name, text, _listed(weak)) for entry, weak, text in told if weak]


def trained_on(
    trained: Sequence[Training],
    ensembles: Mapping[str, EvaluationResult],
    families: Mapping[str, Sequence[str]],
    most: int = 6,
) -> list[Markup]:
    """What was trained on what, or made of which runs, a phrase for each family of runs; `ensembles` are by run."""
    records = {one.run: one.record for one in trained}
    told = []
    for name, runs in families.items():
        known = [records[run] for run in runs if run in records]
        if known and known[0].get("model") and known[0].get("mixture"):
            pairs = f"{count(size)} pairs of " if number(size := known[0].get("train_pairs")) else ""
            model, data = (printable(str(known[0][key])) for key in ("model", "mixture"))
            seeds = f" with {len(known)} seeds" if len(known) > 1 else ""
            told.append(Markup("<b>{}</b> is model {} trained on {}{}{}").format(name, model, pairs, data, seeds))
        elif (one := ensembles.get(runs[0])) is not None and one.ensemble:
            text = Markup("<b>{}</b> is an ensemble of {}, combined by {}")
            told.append(text.format(name, _listed(one.ensemble), one.combine.replace("_", " ") or "an unknown rule"))
    return told if len(told) <= most else [*told[:most], escape(f"and {len(told) - most} more")]


def _listed(texts: Sequence[str], most: int = 4) -> str:
    shown = [*texts[:most], *([f"{len(texts) - most} more"] if len(texts) > most else [])]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _accuracy(best: Entry, alone: bool) -> Markup:
    rates, seeds = best.total, len(best.members)
    sure = "no interval" if math.isnan(rates.low + rates.high) else f"95% interval {span(rates)}"
    if seeds > 1:
        sure += f"; mean of {seeds} seeds, \N{PLUS-MINUS SIGN}{100 * best.spread:.1f} points between seeds"
    what = Markup("scores the chosen answer above the rejected one in <b>{}</b> of them ({}).")
    return Markup("" if alone else "does best: it ") + what.format(percent(rates.accuracy), sure)


def _against_length(rates: Rates) -> list[str]:
    if math.isnan(rates.length):
        return []
    rule = "longer" if rates.length >= 0.5 else "shorter"
    plain = f"always picking the {rule} answer is right in {percent(rates.baseline)}"
    if rates.low > rates.baseline:
        return [f"That is better than length alone explains: {plain}."]
    if rates.high < rates.baseline:
        return [f"That is worse than a rule that sees only length: {plain}."]
    return [f"But {plain}, inside the interval: these pairs do not show that the run has learned more than length."]


def _against_chance(rates: Rates) -> list[str]:
    if rates.low <= 0.5 <= rates.high:
        return ["The interval includes 50%, so this could be coin flips."]
    if rates.high < 0.5:
        return ["It is worse than coin flips: look whether chosen and rejected are swapped in some of the data."]
    return []


def _against_others(best: Entry, others: Sequence[Entry], differences: Differences) -> Markup:
    paired = [(entry, between(best, entry, differences)) for entry in others]
    if all(one is not None for _, one in paired):
        noise = [(entry, one.seeds) for entry, one in paired if one is not None and one.within_noise]
        if not noise:
            return Markup("Pair by pair it beats {} by more than noise.").format(names(others))
        told = "Its lead over {} is within noise: these pairs do not tell them apart."
        if any(seeds for _, seeds in noise):
            told = "Its lead over {} is within noise, that between seeds included: another seed may reverse it."
        return Markup(told).format(names(entry for entry, _ in noise))
    close = [entry for entry in others if entry.total.overlaps(best.total)]
    if not close:
        below = "The interval of {} lies below." if len(others) == 1 else "The intervals of {} lie below."
        return Markup(below).format(names(others))
    told = "The interval of {} overlaps" if len(close) == 1 else "The intervals of {} overlap"
    return Markup(f"{told} with it, so this test alone does not tell them apart.").format(names(close))


def standing(entry: Entry, board: Leaderboard, differences: Differences = ()) -> str:
    """How an entry of a board stands to the best one, in percentage points; pair by pair where that is known."""
    best = board.entries[0]
    if entry is best:
        return "best" if len(board.entries) > 1 else ""
    if (paired := between(entry, best, differences)) is not None:
        noise = ", within noise" if paired.within_noise else ""
        return f"{signed(paired.difference)} ({interval_points(paired)}){noise}"
    points = f"{100 * (best.total.accuracy - entry.total.accuracy):.1f} lower"
    if math.isnan(entry.total.accuracy) or math.isnan(best.total.low + entry.total.high):
        return ""
    return f"{points}, within noise" if entry.total.overlaps(best.total) else f"{points}, intervals apart"


def about_training(trained: Training) -> list[Markup]:
    """What deserves a look in a run's training, one sentence each."""
    told: list[str | Markup] = []
    chosen, rejected = trained.curve("chosen_mean").final, trained.curve("rejected_mean").final
    for sign, word in ((-1, "negative"), (1, "positive")):
        if sign * chosen > DRIFT and sign * rejected > DRIFT:
            told.append(
                Markup(
                    "scores drift {}; see <code>centering</code>. The mean score ends at {} for chosen and {} for "
                    "rejected answers: accuracy does not suffer, but whoever uses the score itself does."
                ).format(word, score(chosen), score(rejected))
            )
    loss, held_out = trained.curve("loss"), trained.curve("eval_loss")
    if broken := int(np.isnan(loss.values).sum()):
        told.append(f"the loss was not a finite number at {broken:,} of {len(loss.values):,} steps.")
    if loss.final > 0.98 * math.log(2):
        told.append(
            f"the training loss ends at {loss.final:.3f}; 0.693 is a coin flip: the run has learned next to nothing."
        )
    known = held_out.values[np.isfinite(held_out.values)]
    if known.size > 2 and known[-1] > 1.05 * known.min():
        step = held_out.steps[np.nanargmin(held_out.values)]
        told.append(
            f"the held-out loss was lowest at step {step:,.0f} ({known.min():.3f}) and ends at {known[-1]:.3f}: "
            "the run overfits; fewer epochs or a lower learning rate may do better."
        )
    git = trained.record.get("git")
    if isinstance(git, Mapping) and git.get("dirty"):
        told.append("trained from code with changes that were not committed.")
    return [Markup("<b>{}</b>: {}").format(trained.run, text) for text in told]
