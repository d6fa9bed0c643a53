"""The metrics of all runs, read, checked and grouped for comparison. Imports nothing slow."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rewardline.core.errors import UserError
from rewardline.core.files import read_json

HELD_OUT = "eval"
"""The benchmark that every run has: the eval split of its own mixture."""


@dataclass(frozen=True)
class Rates:
    """Shares between 0 and 1 over `n` pairs; NaN where unknown. `low` and `high` bound the accuracy (95%).

    `length` is how often the longer answer is the chosen one, ties half.
    """

    n: int
    accuracy: float
    low: float
    high: float
    length: float

    @property
    def baseline(self) -> float:
        """The accuracy of the better of two rules that see only length: pick the longer, or pick the shorter."""
        return max(self.length, 1 - self.length)

    def overlaps(self, other: "Rates") -> bool:
        """Whether the two intervals share a value; also true where one of them is unknown."""
        return not (self.high < other.low or self.low > other.high)


@dataclass(frozen=True)
class Evaluation:
    """One run judged on one benchmark: the content of a `metrics.json`."""

    run: str
    mixture: str
    model: str
    seed: int | None
    benchmark: str
    total: Rates
    chosen_mean: float
    rejected_mean: float
    loss: float
    by_subset: dict[str, Rates]
    name: str | None = None
    ensemble: bool = False

    @property
    def family(self) -> str:
        """The run's name in the configuration, which its seeds have in common; else the run id without its seed."""
        if self.name is not None:
            return self.name
        return self.run if self.seed is None else self.run.removesuffix(f"-seed{self.seed}")


@dataclass(frozen=True)
class Entry:
    """One run on one benchmark, or all its seeds together. Members are in the order of their seeds."""

    members: tuple[Evaluation, ...]

    @property
    def name(self) -> str:
        """The run id; for several seeds what they have in common."""
        return self.members[0].run if len(self.members) == 1 else self.members[0].family

    @property
    def total(self) -> Rates:
        """The mean over the seeds. The mean of the bounds is a cautious interval: never too narrow for the mean."""
        return average([member.total for member in self.members])

    @property
    def by_subset(self) -> dict[str, Rates]:
        """For each subset the mean over the seeds, in order of name."""
        names = sorted({name for member in self.members for name in member.by_subset})
        return {
            name: average([member.by_subset[name] for member in self.members if name in member.by_subset])
            for name in names
        }

    @property
    def spread(self) -> float:
        """The standard deviation of the accuracy between seeds (NaN for one seed)."""
        return stdev(member.total.accuracy for member in self.members) if len(self.members) > 1 else math.nan

    def mean(self, field: str) -> float:
        """The mean over the seeds of `chosen_mean`, `rejected_mean` or `loss`."""
        return fmean(getattr(member, field) for member in self.members)


@dataclass(frozen=True)
class Board:
    """The entries that were judged on the same pairs, best first: one benchmark, or the eval split of one mixture."""

    benchmark: str
    mixture: str
    entries: tuple[Entry, ...]

    @property
    def title(self) -> str:
        """What was judged on, in words."""
        return f"held-out split of {self.mixture}" if self.benchmark == HELD_OUT else f"benchmark {self.benchmark}"

    @property
    def subsets(self) -> list[str]:
        """The names of the subsets, weakest first (by the mean accuracy over the entries)."""
        found: dict[str, list[float]] = {}
        for entry in self.entries:
            for name, rates in entry.by_subset.items():
                found.setdefault(name, []).append(rates.accuracy)
        return sorted(found, key=lambda name: (nan_last(fmean(found[name])), name))


def average(rates: Sequence[Rates]) -> Rates:
    """The mean of each field."""
    return Rates(
        n=round(fmean(rate.n for rate in rates)),
        accuracy=fmean(rate.accuracy for rate in rates),
        low=fmean(rate.low for rate in rates),
        high=fmean(rate.high for rate in rates),
        length=fmean(rate.length for rate in rates),
    )


def nan_last(value: float) -> float:
    """A sort key that puts NaN behind every number."""
    return math.inf if math.isnan(value) else value


def printable(text: str) -> str:
    """`text` on one line without control characters: names come from data and must not steer a terminal or a page."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def read_metrics(paths: Iterable[Path]) -> list[Evaluation]:
    """Read `metrics.json` files, sorted by mixture, model, run and benchmark with `eval` first.

    A `UserError` names the file that is missing, damaged, lacks a key or repeats a run and benchmark.
    """
    seen: dict[tuple[str, str], Path] = {}
    result = []
    for path in paths:
        evaluation = _evaluation(read_json(path), path)
        key = (evaluation.run, evaluation.benchmark)
        if key in seen:
            raise UserError(f"{path} repeats run {key[0]!r} on benchmark {key[1]!r}, which {seen[key]} has already")
        seen[key] = path
        result.append(evaluation)
    return sorted(result, key=lambda e: (e.mixture, e.model, e.run, e.benchmark != HELD_OUT, e.benchmark))


def entries(evaluations: Iterable[Evaluation]) -> list[Entry]:
    """Group the seeds of one run: equal mixture, model, benchmark and run id without `-seed<k>`. Keeps the order."""
    groups: dict[tuple[str, ...], list[Evaluation]] = {}
    for one in evaluations:
        groups.setdefault((one.mixture, one.model, one.benchmark, one.family), []).append(one)
    return [Entry(tuple(sorted(group, key=lambda e: (e.seed or 0, e.run)))) for group in groups.values()]


def boards(evaluations: Iterable[Evaluation]) -> list[Board]:
    """Group what can be compared; the eval splits come first. Within a board the best entry comes first."""
    groups: dict[tuple[bool, str, str], list[Entry]] = {}
    for entry in entries(evaluations):
        first = entry.members[0]
        held_out = first.benchmark == HELD_OUT
        groups.setdefault((not held_out, first.benchmark, first.mixture if held_out else ""), []).append(entry)
    return [
        Board(benchmark, mixture, tuple(sorted(group, key=lambda e: (nan_last(-e.total.accuracy), e.name))))
        for (_, benchmark, mixture), group in sorted(groups.items())
    ]


def _evaluation(value: Any, path: Path) -> Evaluation:
    reader = _Reader(value, path)
    subsets = reader.value.get("by_subset") or {}
    if not isinstance(subsets, dict):
        raise UserError(f"{path}: 'by_subset' must be an object; {_AGAIN}")
    return Evaluation(
        run=reader.text("run"),
        mixture=reader.text("mixture"),
        model=reader.text("model"),
        seed=reader.seed(),
        benchmark=reader.text("benchmark"),
        total=reader.rates(),
        chosen_mean=reader.number("chosen_mean"),
        rejected_mean=reader.number("rejected_mean"),
        loss=reader.number("loss"),
        by_subset=_by_printable_name({name: _Reader(rates, path).rates() for name, rates in subsets.items()}),
        name=reader.text("name") if "name" in reader.value else None,
        ensemble=bool(reader.value.get("ensemble")),
    )


def _by_printable_name(rates: dict[str, Rates]) -> dict[str, Rates]:
    """Rename subsets so that they can be shown; two that look the same then get a number."""
    result: dict[str, Rates] = {}
    for name, value in rates.items():
        shown, k = printable(name) or "(none)", 2
        while shown in result:
            shown, k = f"{printable(name)} ({k})", k + 1
        result[shown] = value
    return result


_AGAIN = "delete it and run the evaluate stage again"


class _Reader:
    """Fields of a JSON object, checked; `path` is what errors name."""

    def __init__(self, value: Any, path: Path) -> None:
        if not isinstance(value, dict):
            raise UserError(f"{path} does not hold metrics; {_AGAIN}")
        self.value: dict[str, Any] = value
        self._path = path

    def text(self, key: str) -> str:
        value = self.value.get(key)
        if not isinstance(value, str) or not value:
            raise UserError(f"{self._path} has no {key!r}; {_AGAIN}")
        return printable(value)

    def seed(self) -> int | None:
        value = self.value.get("seed")
        if value is not None and type(value) is not int:
            raise UserError(f"{self._path}: 'seed' is {value!r}, not a whole number; {_AGAIN}")
        return value

    def share(self, key: str, required: bool = False) -> float:
        """A number from 0 to 1, or NaN."""
        value = self.number(key, required)
        if value < 0 or value > 1:
            raise UserError(f"{self._path}: {key!r} is {value}, not a share from 0 to 1; {_AGAIN}")
        return value

    def number(self, key: str, required: bool = False) -> float:
        """A number; NaN for null, and for a missing key unless it is required."""
        if required and key not in self.value:
            raise UserError(f"{self._path} has no {key!r}; {_AGAIN}")
        value = self.value.get(key)
        if value is None:
            return math.nan
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise UserError(f"{self._path}: {key!r} is {value!r}, not a number; {_AGAIN}")
        return float(value)

    def rates(self) -> Rates:
        n = self.number("n", required=True)
        if not math.isfinite(n) or n < 0:
            raise UserError(f"{self._path}: 'n' must count pairs, not {n}; {_AGAIN}")
        return Rates(
            n=int(n),
            accuracy=self.share("accuracy", required=True),
            low=self.share("accuracy_low"),
            high=self.share("accuracy_high"),
            length=self.share("length_accuracy"),
        )
