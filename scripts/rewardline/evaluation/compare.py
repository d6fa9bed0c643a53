"""The comparison of all runs on each benchmark, and the pairs whose labels most of them contradict."""

import logging
import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from scipy.special import stdtrit

from rewardline.core.errors import UserError
from rewardline.core.files import read_json
from rewardline.data.pairs.probes import made_by_rule
from rewardline.evaluation.comparisons import BenchmarkComparison, ComparisonsFile, Difference, Family
from rewardline.evaluation.leaderboards import Entry, Leaderboard, leaderboards
from rewardline.evaluation.metrics.intervals import difference_interval
from rewardline.evaluation.preferences import Preferences, read_preferences
from rewardline.evaluation.results import read_results
from rewardline.evaluation.suspects import Suspect, find_suspects, write_suspects

log = logging.getLogger(__name__)
RUNS_COMPARED = 16
"""The best runs of a leaderboard, each two of which are compared; the others are named as left out."""


def compare_runs(metrics: Sequence[Path], pair_folders: Sequence[Path], output: Path, suspects: Path) -> None:
    """Write the paired differences of all runs to `output` and the pairs most likely mislabelled to `suspects`.

    `metrics`: a `metrics.json` for each evaluation, beside its `scores.parquet`; `pair_folders`: the pairs that were
    scored.

    Raises:
        UserError: a file is missing or damaged, or a folder of pairs is not among `pair_folders`.
    """
    folders = {(path.parent.parent.name, path.parent.name): path.parent for path in metrics}
    pairs = {folder.parent.name: folder for folder in pair_folders}
    comparisons: list[BenchmarkComparison] = []
    suspected: list[Suspect] = []
    for leaderboard in leaderboards(read_results(metrics)):
        members = [one for entry in leaderboard.entries for one in entry.members]
        scores = {run: folders[run, leaderboard.benchmark] / "scores.parquet" for run in compared(leaderboard)}
        preferences = read_preferences(scores, [one.run for one in members if one.ensemble])
        comparisons.append(compare(leaderboard, preferences))
        name, before = leaderboard.mixture or leaderboard.benchmark, len(suspected)
        if name not in pairs:
            raise UserError(f"--pairs lacks the folder of {name!r}")
        stats = pairs[name].parent / "stats.json"
        if not (stats.exists() and made_by_rule(read_json(stats))):  # else no label is in doubt
            suspected += find_suspects(preferences, pairs[name], leaderboard.benchmark, leaderboard.mixture or None)
        differences, added = len(comparisons[-1].differences), len(suspected) - before
        log.info("%s: %d differences, %d suspects", leaderboard.title, differences, added)
    write_suspects(suspects, suspected)
    ComparisonsFile(boards=comparisons).write(output)


def compare(leaderboard: Leaderboard, preferences: Preferences) -> BenchmarkComparison:
    """The differences between the runs of a leaderboard.

    `differences` are of accuracy, first minus second, on the pairs that both scored, with a 95% interval by a bootstrap
    over prompts. Every two runs are compared, and every two families of seeds, whose difference is that of their means
    and whose interval is wider by the spread between seeds.
    """
    shown = [entry for entry in leaderboard.entries if any(one.run in preferences.correct for one in entry.members)]
    runs = [one.run for entry in shown for one in entry.members]
    differences = [_of_runs(first, second, preferences) for first, second in combinations(runs, 2)]
    differences += [
        _of_families(first, second, preferences)
        for first, second in combinations(shown, 2)
        if len(first.members) + len(second.members) > 2
    ]
    return BenchmarkComparison(
        benchmark=leaderboard.benchmark,
        mixture=leaderboard.mixture or None,
        differences=[one for one in differences if one is not None],
        families=[
            Family(
                name=entry.name,
                runs=[one.run for one in entry.members],
                mean=entry.total.accuracy,
                std=entry.spread,
            )
            for entry in leaderboard.entries
        ],
        left_out=[one.run for entry in leaderboard.entries if entry not in shown for one in entry.members],
    )


def compared(leaderboard: Leaderboard) -> list[str]:
    """The run ids of the best entries, at least one entry, at most RUNS_COMPARED runs."""
    runs: list[str] = []
    for entry in leaderboard.entries:
        members = [one.run for one in entry.members]
        if runs and len(runs) + len(members) > RUNS_COMPARED:
            break
        runs += members
    return runs


def _of_runs(first: str, second: str, preferences: Preferences) -> Difference | None:
    common = preferences.common([first, second])
    if not len(common):
        return None
    one, other = preferences.correct[first], preferences.correct[second]
    values = (one[common].astype(np.float64) - other[common]) / 2
    low, high = difference_interval(values, preferences.prompts[common])
    return Difference(first=first, second=second, n=len(common), difference=float(values.mean()), low=low, high=high)


def _of_families(first: Entry, second: Entry, preferences: Preferences) -> Difference | None:
    """The difference of the means over seeds, with both sources of chance: prompts, and seeds (pooled, Student's t)."""
    sides = [[one.run for one in entry.members] for entry in (first, second)]
    common = preferences.common([run for side in sides for run in side])
    if not len(common):
        return None
    rates = [[float(preferences.correct[run][common].mean()) / 2 for run in side] for side in sides]
    values = np.zeros(len(common))
    for side, sign in zip(sides, (1, -1), strict=True):
        for run in side:
            values += preferences.correct[run][common] * (sign / (2 * len(side)))
    low, high = difference_interval(values, preferences.prompts[common])
    mean = fmean(rates[0]) - fmean(rates[1])
    wider = _seed_error(rates)
    return Difference(
        first=first.name,
        second=second.name,
        n=len(common),
        difference=mean,
        low=max(-1.0, mean - math.hypot(mean - low, wider)),
        high=min(1.0, mean + math.hypot(high - mean, wider)),
        seeds=[len(side) for side in sides],
    )


def _seed_error(rates: list[list[float]]) -> float:
    """Half the width of the 95% interval that seeds alone give to a difference of means, their variance pooled."""
    freedom = sum(len(side) - 1 for side in rates)
    variance = sum(stdev(side) ** 2 * (len(side) - 1) for side in rates if len(side) > 1) / freedom
    return float(stdtrit(freedom, 0.975)) * math.sqrt(variance * sum(1 / len(side) for side in rates))
