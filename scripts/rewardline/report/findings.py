"""What the report says in sentences about the runs on a benchmark: the headline, and what deserves attention."""

import math
from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup, escape

from rewardline.evaluation.comparisons import Difference
from rewardline.evaluation.leaderboards import Entry, Leaderboard
from rewardline.evaluation.results import EvaluationResult, Rates, printable
from rewardline.report.formatting import count, interval, percent, points
from rewardline.training.records.run_facts import RunFacts

FEW_PAIRS = 30
"""With fewer pairs an interval from resampling is unreliable, and nothing is concluded."""
FOOLED = 0.1
"""A hack that wins in a larger share of its pairs is named."""
NAMED = 4
DESCRIBED = 6

Differences = Mapping[tuple[str, str], Difference]
"""By the names of two entries, in both directions."""


def listed(names: Iterable[str]) -> Markup:
    """Names as a list in words: a, b and c. The first ones, where there are many."""
    shown = [escape(name) for name in names]
    if len(shown) > NAMED + 1:
        shown = [*shown[:NAMED], escape(f"{len(shown) - NAMED} more")]
    return shown[0] if len(shown) == 1 else Markup(", ").join(shown[:-1]) + " and " + shown[-1]


def _bold(entries: Iterable[Entry]) -> Markup:
    return listed(Markup("<b>{}</b>").format(entry.name) for entry in entries)


def headline(board: Leaderboard, differences: Differences) -> Markup:
    """The best run of a leaderboard, its accuracy, and what that is worth, in a few sentences."""
    best, *others = board.competing
    rates, seeds = best.total, len(best.members)
    pairs = f"{rates.n:,} pair{'' if rates.n == 1 else 's'}"
    opening = Markup("On the {} ({}), <b>{}</b> ").format(board.title, pairs, best.title)
    if math.isnan(rates.accuracy):
        return opening + "has no accuracy: no pair was scored."
    known = not math.isnan(rates.low + rates.high)
    certainty = f"95% interval {interval(rates)}" if known else "no interval"
    if seeds > 1:
        least, most = (percent(choose(one.accuracy for one in best.members)) for choose in (min, max))
        certainty += f" for other prompts and seeds; mean of {seeds} seeds, from {least} to {most}"
    text = Markup("{}scores the chosen answer above the rejected one in <b>{}</b> of them ({}).")
    sentences = [opening + text.format("does best: it " if others else "", percent(rates.accuracy), certainty)]
    if rates.n < FEW_PAIRS:
        sentences.append(escape("That is too few pairs to judge a reward model by."))
    elif known:
        sentences += map(escape, _against_baselines(best.of_these_seeds))
        sentences += [_against_others(best, others, differences)] if others else []
    return Markup(" ").join(sentences)


def probe_headline(board: Leaderboard) -> Markup:
    """How often the best run prefers the real answer to a hack of it, and the hacks that it prefers."""
    best = board.entries[0]
    rates = best.total
    opening = Markup(
        "Against hacks of answers ({}, {:,} pairs), <b>{}</b> prefers the real answer in <b>{}</b> (95% interval {})."
    ).format(board.benchmark, rates.n, best.name, percent(rates.accuracy), interval(rates))
    hacks = _winning_hacks(best)
    return opening + (f" It falls for {listed(hacks)}." if hacks else " It falls for none of them often.")


def _winning_hacks(entry: Entry) -> list[str]:
    """The probes whose hack an entry prefers to the real answer more than rarely, the worst first."""
    return [f"{name} ({percent(1 - one.accuracy)})" for name, one in _weakest(entry) if one.accuracy < 1 - FOOLED]


def _weakest(entry: Entry) -> list[tuple[str, Rates]]:
    """The rates by subset, the weakest first."""
    return sorted(entry.by_subset.items(), key=lambda item: item[1].accuracy)


def subset_findings(board: Leaderboard, probes: bool) -> list[Markup]:
    """What deserves attention in the accuracies by subset, a sentence for each run.

    For probes the hacks that win; else the subsets with enough pairs on which the best run may be guessing.
    """
    if probes:
        weak = [
            (entry, _winning_hacks(entry), "prefers the hack to the real answer: ") for entry in board.competing[1:]
        ]
    else:
        best = board.entries[0]
        subsets = [(name, one) for name, one in _weakest(best) if one.n >= FEW_PAIRS and one.low <= 0.5]
        text = f"not shown to beat random guessing, on the {board.title}, at "
        weak = [(best, [f"{name} ({percent(one.accuracy)})" for name, one in subsets], text)]
    return [Markup("<b>{}</b>: {}{}.").format(entry.name, text, listed(names)) for entry, names, text in weak if names]


def run_descriptions(families: Mapping[str, Sequence[EvaluationResult]], runs: Mapping[str, RunFacts]) -> list[Markup]:
    """What was trained on what, or is made of which runs; the members of `families` are seeds of one run."""
    descriptions = []
    for name, members in families.items():
        trained = [runs[one.run] for one in members if one.run in runs]
        if trained:
            first, seeds = trained[0], f" with {len(trained)} seeds" if len(trained) > 1 else ""
            text = Markup("<b>{}</b> is model {} trained on {} pairs of {}{}")
            pairs = count(first.train_pairs)
            descriptions.append(text.format(name, printable(first.model), pairs, printable(first.mixture), seeds))
        elif members[0].ensemble:
            rule = members[0].combine.replace("_", " ") or "an unknown rule"
            text = Markup("<b>{}</b> is an ensemble of {}, combined by {}")
            descriptions.append(text.format(name, listed(members[0].ensemble), rule))
        elif members[0].average:
            text = Markup("<b>{}</b> has the mean of the weights of {}")
            descriptions.append(text.format(name, listed(members[0].average)))
    if len(descriptions) > DESCRIBED:
        descriptions[DESCRIBED:] = [escape(f"and {len(descriptions) - DESCRIBED} more")]
    return descriptions


def _against_baselines(rates: Rates) -> list[str]:
    """The accuracy against that of rules that see only length, and against random guessing."""
    sentences = []
    if not math.isnan(rates.length):
        rule = "longer" if rates.length >= 0.5 else "shorter"
        baseline = f"always picking the {rule} answer is right in {percent(rates.baseline)}"
        if rates.low > rates.baseline:
            sentences.append(f"That is better than length alone explains: {baseline}.")
        elif rates.high < rates.baseline:
            sentences.append(f"That is worse than a rule that sees only length: {baseline}.")
        else:
            text = "these pairs do not show that the run has learned more than length."
            sentences.append(f"But {baseline}, inside the interval: {text}")
    if rates.high < 0.5:
        text = "check whether chosen and rejected are swapped in some of the data."
        sentences.append(f"It is worse than random guessing: {text}")
    elif rates.low <= 0.5:
        sentences.append("The interval includes 50%, so this could be random guessing.")
    return sentences


def _against_others(best: Entry, others: Sequence[Entry], differences: Differences) -> Markup:
    paired = [(entry, differences.get((best.name, entry.name))) for entry in others]
    if all(one is not None for _, one in paired):
        noise = [(entry, one.seeds) for entry, one in paired if one is not None and one.within_noise]
        if not noise:
            text = "In the paired comparison it beats {} by more than noise."
            if any(one is not None and not one.seeds for _, one in paired):
                text += (
                    " With one seed each, that tells these weights apart, not the recipes: another seed may reverse it."
                )
            return Markup(text).format(_bold(others))
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


def compared_with_best(entry: Entry, board: Leaderboard, differences: Differences) -> str:
    """The difference of an entry to the best one in percentage points, paired where that is known."""
    best = board.entries[0]
    if entry.mark:
        return entry.mark
    if entry is best:
        return "best"
    if paired := differences.get((entry.name, best.name)):
        noise = ", within noise" if paired.within_noise else ""
        return f"{points(paired.difference)} ({points(paired.low)} to {points(paired.high)}){noise}"
    if math.isnan(entry.total.accuracy) or math.isnan(best.total.low + entry.total.high):
        return ""
    lower = f"{100 * (best.total.accuracy - entry.total.accuracy):.1f} lower"
    return f"{lower}, within noise" if entry.total.overlaps(best.total) else f"{lower}, intervals apart"
