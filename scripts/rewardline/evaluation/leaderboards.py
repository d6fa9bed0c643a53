"""Evaluations grouped for display: the seeds of a run as one entry, and the entries that can be compared, best first.

Imports nothing slow.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean, stdev
from typing import Literal

from rewardline.evaluation.comparisons import BenchmarkComparison
from rewardline.evaluation.results import Bin, EvaluationResult, Rates
from rewardline.evaluation.settings import HELD_OUT

STUDENT = 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228
"""The 97.5% quantile of Student's t for 1, 2, ... degrees of freedom: scipy is slow to import."""


@dataclass(frozen=True)
class Entry:
    """A run on a benchmark, or all its seeds together, in their order.

    `interval`: that of `total` in `comparisons.json`, which is a little narrower than what follows from the members.
    """

    members: tuple[EvaluationResult, ...]
    interval: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """The run id; for several seeds the name of the run in the configuration."""
        return self.members[0].run if len(self.members) == 1 else self.members[0].family

    @property
    def mark(self) -> str:
        """Why it does not compete with others, in a word; empty if it does."""
        return max(member.mark for member in self.members)

    @property
    def title(self) -> str:
        """Its name, with its mark."""
        return f"{self.name} ({self.mark})" if self.mark else self.name

    @property
    def runs(self) -> list[str]:
        """The run id of each seed."""
        return [member.run for member in self.members]

    @property
    def total(self) -> Rates:
        """The mean over the seeds, with its interval for other prompts and other seeds."""
        rates, accuracies = self.of_these_seeds, [member.accuracy for member in self.members]
        low, high = self.interval or over_seeds(accuracies, rates.low, rates.high)
        return rates.model_copy(update={"low": low, "high": high})

    @property
    def of_these_seeds(self) -> Rates:
        """The same with an interval for other prompts only."""
        return average([member.total for member in self.members])

    @property
    def by_subset(self) -> dict[str, Rates]:
        """For each subset the mean over the seeds, in order of name."""
        by_subset: dict[str, list[Rates]] = {}
        for member in self.members:
            for name, rates in member.by_subset.items():
                by_subset.setdefault(name, []).append(rates)
        return {name: average(by_subset[name]) for name in sorted(by_subset)}

    @property
    def spread(self) -> float:
        """The standard deviation of the accuracy between seeds (NaN for one seed)."""
        return stdev(member.accuracy for member in self.members) if len(self.members) > 1 else math.nan

    def mean(self, field: Literal["chosen_mean", "rejected_mean", "loss"]) -> float:
        """The mean over the seeds."""
        return fmean(getattr(member, field) for member in self.members)


@dataclass(frozen=True)
class Leaderboard:
    """The entries evaluated on the same pairs, best first: a benchmark, or the eval split of a mixture.

    Those with a mark, such as the ones that successive halving has eliminated, come after all others.
    """

    benchmark: str
    mixture: str
    entries: tuple[Entry, ...]

    @property
    def title(self) -> str:
        """What the entries were evaluated on, in words."""
        return f"held-out split of {self.mixture}" if self.benchmark == HELD_OUT else f"benchmark {self.benchmark}"

    @property
    def competing(self) -> tuple[Entry, ...]:
        """The entries without a mark; all of them if each has one."""
        return tuple(entry for entry in self.entries if not entry.mark) or self.entries

    @property
    def subsets(self) -> list[str]:
        """The names of the subsets, weakest first (by the mean accuracy over the entries)."""
        accuracies: dict[str, list[float]] = {}
        for entry in self.entries:
            for name, rates in entry.by_subset.items():
                accuracies.setdefault(name, []).append(rates.accuracy)
        return sorted(accuracies, key=lambda name: (nan_last(fmean(accuracies[name])), name))


def entries(results: Iterable[EvaluationResult], comparisons: Iterable[BenchmarkComparison] = ()) -> list[Entry]:
    """Group the seeds of a run: equal mixture, model, benchmark and run id without `-seed<k>`. Keeps the order."""
    intervals = {
        (board.benchmark, *family.runs): (family.low, family.high)
        for board in comparisons
        for family in board.families
        if len(family.runs) > 1 and math.isfinite(family.low + family.high)
    }
    groups: dict[tuple[str, ...], list[EvaluationResult]] = {}
    for result in results:
        groups.setdefault((result.mixture, result.model, result.benchmark, result.family), []).append(result)
    seeds = [tuple(sorted(group, key=lambda r: (r.seed or 0, r.run))) for group in groups.values()]
    return [Entry(group, intervals.get((group[0].benchmark, *(r.run for r in group)))) for group in seeds]


def leaderboards(
    results: Iterable[EvaluationResult], comparisons: Iterable[BenchmarkComparison] = ()
) -> list[Leaderboard]:
    """Group the entries that can be compared; the eval splits come first, and within a leaderboard the best entry.

    Where there are single answers alone, without pairs, nothing is compared.
    """
    groups: dict[tuple[bool, str, str], list[Entry]] = {}
    for entry in entries((one for one in results if one.n or not one.ratings), comparisons):
        first = entry.members[0]
        held_out = first.benchmark == HELD_OUT
        groups.setdefault((not held_out, first.benchmark, first.mixture if held_out else ""), []).append(entry)
    return [
        Leaderboard(benchmark, mixture, tuple(sorted(group, key=_place)))
        for (_, benchmark, mixture), group in sorted(groups.items())
    ]


def _place(entry: Entry) -> tuple[bool, float, str]:
    return bool(entry.mark), nan_last(-entry.total.accuracy), entry.name


def average(rates: Sequence[Rates]) -> Rates:
    """The mean over seeds of each field. The mean of the bounds is cautious: for other prompts with these seeds."""
    means = {name: fmean(getattr(rate, name) for rate in rates) for name in ("accuracy", "low", "high", "length")}
    return Rates(n=round(fmean(rate.n for rate in rates)), **means)


def over_seeds(accuracies: Sequence[float], low: float, high: float) -> tuple[float, float]:
    """The 95% interval of the mean accuracy for other prompts and other seeds.

    `low` and `high` are the bounds of the mean for other prompts with these seeds. The distances of both bounds, of
    prompts and of seeds (Student's t), from the mean are combined as independent ones (Zou and Donner 2008).
    """
    seeds, mean = len(accuracies), fmean(accuracies)
    if seeds == 1 or not math.isfinite(mean + low + high):
        return low, high
    error = STUDENT[min(seeds - 1, len(STUDENT)) - 1] * stdev(accuracies) / math.sqrt(seeds)
    return max(0.0, mean - math.hypot(mean - low, error)), min(1.0, mean + math.hypot(high - mean, error))


def pooled(seeds: Sequence[Sequence[Bin]]) -> list[Bin]:
    """The bins of several seeds as one: those with equal bounds have their fields averaged, a seed weighing its pairs.

    The mean of the intervals is kept, as seeds judge the same pairs and add no evidence.
    """
    groups: dict[tuple[float, float], list[Bin]] = {}
    for b in chain.from_iterable(seeds):
        groups.setdefault((b.low, b.high), []).append(b)
    result = []
    for (low, high), group in sorted(groups.items()):
        pairs, filled = sum(b.n for b in group), [b for b in group if b.n]
        names = ("confidence", "accuracy", "accuracy_low", "accuracy_high")
        means = {name: sum(b.n * getattr(b, name) for b in filled) / pairs if pairs else math.nan for name in names}
        result.append(Bin(low=low, high=high, n=round(pairs / len(group)), **means))
    return result


def nan_last(value: float) -> float:
    """A sort key that puts NaN behind every number."""
    return math.inf if math.isnan(value) else value
