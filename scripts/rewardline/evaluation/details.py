"""What a `metrics.json` says beyond accuracy: calibration, length, labels' margins, best of N, win rates, sections.

Each part may be missing: an older file, or data that has no such thing. Imports nothing slow.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rewardline.core.files import read_json
from rewardline.evaluation.results import Rates, printable


@dataclass(frozen=True)
class Bin:
    """Pairs whose quantity lies between `low` and `high` (infinite where open), and how often the run is right there.

    `x` is the mean of the quantity where it is known, else NaN.
    """

    low: float
    high: float
    x: float
    rates: Rates


@dataclass(frozen=True)
class WinRate:
    """How often a source of answers wins its pairs: by the labels, and by the run's scores."""

    source: str
    n: int
    labelled: float
    model: float


@dataclass(frozen=True)
class Details:
    """Numbers are NaN and lists are empty where unknown. `controlled` and `best_of_n` have accuracy and interval.

    `answers` is the mean number of answers to a prompt of `best_of_n`, and `chance` what guessing gets right there. An
    ensemble combines the scores of the runs `ensemble`, by `combine`; a trained run has neither.
    """

    ece: float
    temperature: float
    ece_at_temperature: float
    loss_at_temperature: float
    correlation: float
    controlled: Rates
    best_of_n: Rates
    answers: float
    chance: float
    by_confidence: tuple[Bin, ...]
    by_difference: tuple[Bin, ...]
    by_margin: tuple[Bin, ...]
    win_rates: tuple[WinRate, ...]
    arithmetic: str
    overall: float
    sections: tuple[tuple[str, float, int], ...]
    ensemble: tuple[str, ...]
    combine: str


def read_details(path: Path) -> Details:
    """Read a `metrics.json`; what it lacks is unknown."""
    return details(read_json(path))


def details(metrics: Any) -> Details:
    """The details in the content of a `metrics.json`."""
    value = mapping(metrics)
    calibration, length, best = (mapping(value.get(key)) for key in ("calibration", "length", "best_of_n"))
    published = mapping(value.get("sections"))
    return Details(
        ece=real(calibration.get("ece")),
        temperature=real(calibration.get("temperature")),
        ece_at_temperature=real(calibration.get("ece_at_temperature")),
        loss_at_temperature=real(calibration.get("loss_at_temperature")),
        correlation=real(length.get("correlation")),
        controlled=_rates({"n": value.get("n"), **length}, "controlled_accuracy", "controlled"),
        best_of_n=_rates({**best, "n": best.get("prompts")}, "accuracy", "accuracy"),
        answers=real(best.get("answers")),
        chance=real(best.get("chance")),
        by_confidence=_bins(calibration.get("bins")),
        by_difference=_bins(length.get("by_difference")),
        by_margin=_bins(value.get("by_margin")),
        win_rates=tuple(
            WinRate(
                printable(str(one.get("source"))),
                whole(one.get("n")),
                real(one.get("labelled")),
                real(one.get("model")),
            )
            for one in map(mapping, value.get("win_rates") or [])
        ),
        arithmetic=printable(str(published.get("arithmetic") or "")),
        overall=real(published.get("overall")),
        sections=tuple(
            (printable(str(name)), real(mapping(one).get("score")), whole(mapping(one).get("n")))
            for name, one in mapping(published.get("sections")).items()
        ),
        ensemble=tuple(printable(str(name)) for name in value.get("ensemble") or []),
        combine=printable(str(value.get("combine") or "")).replace("_", " "),
    )


def pooled(seeds: Sequence[Sequence[Bin]]) -> list[Bin]:
    """The bins of several seeds as one: those with equal bounds have their fields averaged, a seed weighing its pairs.

    The mean of the intervals is kept, as seeds judge the same pairs and add no evidence.
    """
    groups: dict[tuple[float, float], list[Bin]] = {}
    for bins in seeds:
        for one in bins:
            groups.setdefault((one.low, one.high), []).append(one)
    return [_average(groups[bounds]) for bounds in sorted(groups)]


def _average(bins: Sequence[Bin]) -> Bin:
    weights = [one.rates.n for one in bins]

    def mean(values: Iterable[float]) -> float:
        return (
            sum(w * value for w, value in zip(weights, values, strict=True) if w) / sum(weights)
            if sum(weights)
            else math.nan
        )

    rates = [one.rates for one in bins]
    return Bin(
        bins[0].low,
        bins[0].high,
        mean(one.x for one in bins),
        Rates(
            n=round(fmean(weights)),
            accuracy=mean(one.accuracy for one in rates),
            low=mean(one.low for one in rates),
            high=mean(one.high for one in rates),
            length=math.nan,
        ),
    )


def _bins(value: Any) -> tuple[Bin, ...]:
    return tuple(
        Bin(
            real(one.get("low"), -math.inf),
            real(one.get("high"), math.inf),
            real(one.get("confidence")),
            _rates(one, "accuracy", "accuracy"),
        )
        for one in map(mapping, value or [])
    )


def _rates(value: Mapping[str, Any], accuracy: str, bounds: str) -> Rates:
    return Rates(
        whole(value.get("n")),
        real(value.get(accuracy)),
        real(value.get(f"{bounds}_low")),
        real(value.get(f"{bounds}_high")),
        math.nan,
    )


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def real(value: Any, other: float = math.nan) -> float:
    """`value` if it is a finite number, else `other`."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else other


def whole(value: Any) -> int:
    """`value` as a whole number; 0 where it is not a number."""
    return int(real(value, 0.0))
