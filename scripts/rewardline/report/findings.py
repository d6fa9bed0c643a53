"""What the report says in sentences about the runs on a benchmark: the headline, and what deserves attention."""

import math
from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup, escape

from rewardline.evaluation.leaderboards import Entry, Leaderboard
from rewardline.evaluation.results import EvaluationResult, Rates, printable
from rewardline.report.differences import Differences, between, difference_interval
from rewardline.report.formatting import count, interval, percent, points
from rewardline.report.inputs import RunRecord

FEW_PAIRS = 30
"""With fewer pairs an interval from resampling is not to be trusted, and nothing is concluded."""

FOOLED = 0.1
"""A hack that wins in a larger share of its pairs is named."""

NAMED = 4


def listed(names: Iterable[str]) -> Markup:
    """Names as a list in words: a, b and c. The first ones, where there are many."""
    shown = [escape(name) for name in names]
    if len(shown) > NAMED + 1:
        shown = [*shown[:NAMED], escape(f"{len(shown) - NAMED} more")]
    return shown[0] if len(shown) == 1 else Markup(", ").join(shown[:-1]) + " and " + shown[-1]


def _bold(entries: Iterable[Entry]) -> Markup:
    return listed(Markup("<b>{}</b>").format(entry.name) for entry in entries)


def headline(board: Leaderboard, differences: Differences = ()) -> Markup:
    """The best run of a leaderboard, its accuracy, and what that is worth, in a few sentences."""
    best = board.entries[0]
    rates = best.total
    pairs = f"{rates.n:,} pair{'' if rates.n == 1 else 's'}"
    opening = Markup("On the {} ({}), <b>{}</b> ").format(board.title, pairs, best.name)
    if math.isnan(rates.accuracy):
        return opening + "has no accuracy: no pair was scored."
    sentences = [opening + _accuracy(best, alone=len(board.entries) == 1)]
    if rates.n < FEW_PAIRS:
        sentences.append(escape("That is too few pairs to judge a reward model by."))
    elif not math.isnan(rates.low + rates.high):
        sentences += map(escape, _against_length(rates) + _against_chance(rates))
        sentences += [_against_others(best, board.entries[1:], differences)] if len(board.entries) > 1 else []
    return Markup(" ").join(sentences)


def probe_headline(board: Leaderboard) -> Markup:
    """How often the best run prefers the real answer to a hack of it, and the hacks that it prefers."""
    best = board.entries[0]
    rates = best.total
    opening = Markup(
        "Against hacks of answers ({}, {:,} pairs), <b>{}</b> prefers the real answer in <b>{}</b> (95% interval {})."
    ).format(board.benchmark, rates.n, best.name, percent(rates.accuracy), interval(rates))
    hacks = winning_hacks(best)
    return opening + (f" It falls for {listed(hacks)}." if hacks else " It falls for none of them often.")


def winning_hacks(entry: Entry) -> list[str]:
    """The probes whose hack an entry prefers to the real answer more than rarely, the worst first."""
    ordered = sorted(entry.by_subset.items(), key=lambda item: item[1].accuracy)
    return [f"{name} ({percent(1 - one.accuracy)})" for name, one in ordered if one.accuracy < 1 - FOOLED]


def weak_subsets(entry: Entry) -> list[str]:
    """The subsets with enough pairs on which an entry may be no better than random guessing, the weakest first."""
    ordered = sorted(entry.by_subset.items(), key=lambda item: item[1].accuracy)
    return [f"{name} ({percent(one.accuracy)})" for name, one in ordered if one.n >= FEW_PAIRS and one.low <= 0.5]


def subset_findings(board: Leaderboard, probes: bool) -> list[Markup]:
    """What deserves attention in the accuracies by subset, a sentence for each run."""
    if probes:
        weak = [(entry, winning_hacks(entry), "prefers the hack to the real answer: ") for entry in board.entries[1:]]
    else:
        text = f"not shown to beat random guessing, on the {board.title}, at "
        weak = [(board.entries[0], weak_subsets(board.entries[0]), text)]
    return [Markup("<b>{}</b>: {}{}.").format(entry.name, text, listed(names)) for entry, names, text in weak if names]


def run_descriptions(
    families: Mapping[str, Sequence[EvaluationResult]], records: Mapping[str, RunRecord], most: int = 6
) -> list[Markup]:
    """What was trained on what, or is an ensemble of which runs; the members of `families` are seeds of one run."""
    descriptions = []
    for name, members in families.items():
        trained = [records[one.run] for one in members if one.run in records]
        if trained and trained[0].model and trained[0].mixture:
            first = trained[0]
            pairs = "" if first.train_pairs is None else f"{count(first.train_pairs)} pairs of "
            seeds = f" with {len(trained)} seeds" if len(trained) > 1 else ""
            text = Markup("<b>{}</b> is model {} trained on {}{}{}")
            descriptions.append(text.format(name, printable(first.model), pairs, printable(first.mixture), seeds))
        elif members[0].ensemble:
            rule = members[0].combine.replace("_", " ") or "an unknown rule"
            text = Markup("<b>{}</b> is an ensemble of {}, combined by {}")
            descriptions.append(text.format(name, listed(members[0].ensemble), rule))
    if len(descriptions) <= most:
        return descriptions
    return [*descriptions[:most], escape(f"and {len(descriptions) - most} more")]


def _accuracy(best: Entry, alone: bool) -> Markup:
    rates, seeds = best.total, len(best.members)
    certainty = "no interval" if math.isnan(rates.low + rates.high) else f"95% interval {interval(rates)}"
    if seeds > 1:
        certainty += f"; mean of {seeds} seeds, \N{PLUS-MINUS SIGN}{100 * best.spread:.1f} points between seeds"
    text = Markup("scores the chosen answer above the rejected one in <b>{}</b> of them ({}).")
    return Markup("" if alone else "does best: it ") + text.format(percent(rates.accuracy), certainty)


def _against_length(rates: Rates) -> list[str]:
    if math.isnan(rates.length):
        return []
    rule = "longer" if rates.length >= 0.5 else "shorter"
    baseline = f"always picking the {rule} answer is right in {percent(rates.baseline)}"
    if rates.low > rates.baseline:
        return [f"That is better than length alone explains: {baseline}."]
    if rates.high < rates.baseline:
        return [f"That is worse than a rule that sees only length: {baseline}."]
    return [f"But {baseline}, inside the interval: these pairs do not show that the run has learned more than length."]


def _against_chance(rates: Rates) -> list[str]:
    if rates.low <= 0.5 <= rates.high:
        return ["The interval includes 50%, so this could be random guessing."]
    if rates.high < 0.5:
        return ["It is worse than random guessing: check whether chosen and rejected are swapped in some of the data."]
    return []


def _against_others(best: Entry, others: Sequence[Entry], differences: Differences) -> Markup:
    paired = [(entry, between(best, entry, differences)) for entry in others]
    if all(one is not None for _, one in paired):
        noise = [(entry, one.seeds) for entry, one in paired if one is not None and one.within_noise]
        if not noise:
            return Markup("In the paired comparison it beats {} by more than noise.").format(_bold(others))
        text = "Its lead over {} is within noise: these pairs do not tell them apart."
        if any(seeds for _, seeds in noise):
            text = "Its lead over {} is within noise, that between seeds included: another seed may reverse it."
        return Markup(text).format(_bold(entry for entry, _ in noise))
    close = [entry for entry in others if entry.total.overlaps(best.total)]
    if not close:
        text = "The interval of {} is below." if len(others) == 1 else "The intervals of {} are below."
        return Markup(text).format(_bold(others))
    text = "The interval of {} overlaps" if len(close) == 1 else "The intervals of {} overlap"
    return Markup(f"{text} with it, so this benchmark alone does not tell them apart.").format(_bold(close))


def compared_with_best(entry: Entry, board: Leaderboard, differences: Differences = ()) -> str:
    """The difference of an entry to the best one in percentage points, paired where that is known."""
    best = board.entries[0]
    if entry is best:
        return "best" if len(board.entries) > 1 else ""
    if (paired := between(entry, best, differences)) is not None:
        noise = ", within noise" if paired.within_noise else ""
        return f"{points(paired.difference)} ({difference_interval(paired)}){noise}"
    lower = f"{100 * (best.total.accuracy - entry.total.accuracy):.1f} lower"
    if math.isnan(entry.total.accuracy) or math.isnan(best.total.low + entry.total.high):
        return ""
    return f"{lower}, within noise" if entry.total.overlaps(best.total) else f"{lower}, intervals apart"
