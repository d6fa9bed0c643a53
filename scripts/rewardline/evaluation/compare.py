"""The comparison of all runs on each benchmark, and the pairs whose labels are probably wrong."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from rewardline.core.errors import UserError
from rewardline.data.pairs.left_out import PairsAccount
from rewardline.data.pairs.probes import made_by_rule
from rewardline.evaluation.comparisons import BenchmarkComparison, ComparisonsFile, Difference, Family, LearningCurve
from rewardline.evaluation.labels.find_suspects import find_suspects
from rewardline.evaluation.labels.suspects import Suspect, write_suspects
from rewardline.evaluation.leaderboards import Entry, Leaderboard, leaderboards, over_seeds
from rewardline.evaluation.learning_curves import learning_curves
from rewardline.evaluation.metrics.intervals import difference_interval, mean_interval
from rewardline.evaluation.metrics.labels import wrong_labels
from rewardline.evaluation.preferences import Preferences, read_preferences
from rewardline.evaluation.results import read_results
from rewardline.training.records.run_facts import RunFacts

log = logging.getLogger(__name__)
MAX_RUNS = 20
"""The best runs of a leaderboard, with all their seeds, each two of which are compared; the others, and those that
do not compete, are left out."""


def compare_runs(
    metrics: Sequence[Path],
    score_files: Sequence[Path],
    pair_folders: Sequence[Path],
    statistics: Sequence[Path],
    models: Sequence[Path],
    output: Path,
    suspects: Path,
) -> None:
    """Write the paired differences of all runs to `output` and the pairs most likely mislabeled to `suspects`.

    `metrics` and `score_files`: `metrics.json` and `scores.parquet` of each evaluation, in `<run>/<benchmark>/`;
    `pair_folders` and `statistics`: `eval/` and `stats.json` of the pairs that were scored, in a folder of their name;
    `models`: `run.json` of trained models.

    Raises:
        UserError: a file is missing or damaged, or a folder of pairs is not among `pair_folders`.
    """
    scores = {(path.parent.parent.name, path.parent.name): path for path in score_files}
    pairs = {folder.parent.name: folder for folder in pair_folders}
    stats = {path.parent.name: path for path in statistics}
    facts = {run.run: run for run in map(RunFacts.read, models)}
    comparisons: list[BenchmarkComparison] = []
    curves: list[LearningCurve] = []
    suspected: list[Suspect] = []
    for leaderboard in leaderboards(read_results(metrics)):
        name = leaderboard.mixture or leaderboard.benchmark
        if name not in pairs:
            raise UserError(f"--pairs lacks the folder of {name!r}")
        entries = leaderboard.competing[:MAX_RUNS]
        results = [result for entry in entries for result in entry.members]
        paths = {result.run: scores[result.run, leaderboard.benchmark] for result in results}
        preferences = read_preferences(paths, [result.run for result in results if result.ensemble or result.average])
        board = compare_entries(leaderboard, entries, preferences)
        own = {run: path for (run, benchmark), path in scores.items() if benchmark == leaderboard.benchmark}
        curves += learning_curves(leaderboard, own, facts)
        added: list[Suspect] = []
        if not (name in stats and made_by_rule(PairsAccount.read(stats[name]))):  # else no label is in doubt
            scored = np.flatnonzero(preferences.runs)
            probability = np.zeros(len(preferences.pairs))
            probability[scored], share = wrong_labels(preferences.margin_mean[scored])
            added = find_suspects(preferences, probability, pairs[name], board.benchmark, board.mixture)
            board = board.model_copy(update={"wrong_labels": share * len(scored)})
        comparisons.append(board)
        suspected += added
        log.info("%s: %d differences, %d suspects", leaderboard.title, len(board.differences), len(added))
    write_suspects(suspects, suspected)
    beside = [suspects.name] if suspects.parent == output.parent else []
    ComparisonsFile(boards=comparisons, curves=curves).write(output, beside)


def compare_entries(
    leaderboard: Leaderboard, entries: Sequence[Entry], preferences: Preferences
) -> BenchmarkComparison:
    """The differences between every two of `entries`, and the mean of each over its seeds."""
    scatter = Scatter.of([[one.accuracy for one in entry.members] for entry in entries if len(entry.members) > 1])
    two = [pair for pair in combinations(entries, 2) if len(preferences.common([*pair[0].runs, *pair[1].runs]))]
    return BenchmarkComparison(
        benchmark=leaderboard.benchmark,
        mixture=leaderboard.mixture or None,
        differences=[difference_of(*pair, preferences, scatter, 1 - 0.05 / len(two)) for pair in two],
        families=[
            _family(entry, preferences if k < len(entries) else None) for k, entry in enumerate(leaderboard.entries)
        ],
        left_out=[run for entry in leaderboard.entries[len(entries) :] for run in entry.runs],
    )


def _family(entry: Entry, preferences: Preferences | None) -> Family:
    """The seeds of a run together; without `preferences` the interval is a little wide."""
    low, high = entry.total.low, entry.total.high
    if preferences and len(entry.runs) > 1 and len(common := preferences.common(entry.runs)):
        bounds = mean_interval(preferences.rates(entry.runs, common), preferences.prompts[common])
        low, high = over_seeds([one.accuracy for one in entry.members], *bounds)
    mean, std = entry.total.accuracy, entry.spread
    return Family(name=entry.name, runs=entry.runs, mean=mean, std=std, low=low, high=high)


@dataclass(frozen=True)
class Scatter:
    """The variance of the accuracy between seeds, pooled over all runs with several, and its degrees of freedom."""

    variance: float
    freedom: int

    @classmethod
    def of(cls, accuracies: Sequence[Sequence[float]]) -> "Scatter":
        """That of the seeds of each run."""
        freedom = sum(len(seeds) - 1 for seeds in accuracies)
        squares = sum(len(seeds) * float(np.var(seeds)) for seeds in accuracies)
        return cls(squares / freedom if freedom else math.nan, freedom)


def difference_of(first: Entry, second: Entry, preferences: Preferences, scatter: Scatter, level: float) -> Difference:
    """The accuracy of `first` minus that of `second` on the pairs that both scored, a mean over the seeds of each.

    Its interval of this `level` combines, as `over_seeds` does, those of other prompts and of other seeds. The variance
    between seeds is that of these two runs, or of all runs if that is greater: that of two alone is often far too small
    by chance, which would need a quantile so great that few seeds could never show a difference. As runs may scatter
    unlike each other, the error is at least that of Welch's 95% interval for these two alone.
    """
    sides = [first, second]
    common = preferences.common([*first.runs, *second.runs])
    values = preferences.rates(first.runs, common) - preferences.rates(second.runs, common)
    mean = float(values.mean())
    low, high = difference_interval(values, preferences.prompts[common], level)
    seeds = {}
    own = Scatter.of([[one.accuracy for one in entry.members] for entry in sides])
    if own.freedom:
        variance = max(own.variance, scatter.variance) * sum(1 / len(entry.members) for entry in sides)
        error = float(stdtrit(scatter.freedom, (1 + level) / 2)) * math.sqrt(variance)
        error = max(error, _welch_error([[one.accuracy for one in entry.members] for entry in sides]))
        low = max(-1.0, mean - math.hypot(mean - low, error))
        high = min(1.0, mean + math.hypot(high - mean, error))
        seeds["seeds"] = [len(entry.members) for entry in sides]
    return Difference(first=first.name, second=second.name, n=len(common), difference=mean, low=low, high=high, **seeds)


def _welch_error(sides: Sequence[Sequence[float]]) -> float:
    """Half of Welch's 95% interval for the difference of two means (Satterthwaite 1946); 0 if one is of one value."""
    variances = [float(np.var(values, ddof=1)) / len(values) if len(values) > 1 else 0.0 for values in sides]
    if not all(variances):
        return 0.0
    parts = [variance**2 / (len(values) - 1) for variance, values in zip(variances, sides, strict=True)]
    return float(stdtrit(sum(variances) ** 2 / sum(parts), 0.975)) * math.sqrt(sum(variances))
