"""What the report shows, read from the stages' outputs and reduced to what a figure can hold."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rewardline.core.errors import UserError
from rewardline.core.files import read_json

Floats = NDArray[np.float64]

HISTOGRAM_BINS = (8, 40)
CURVE_POINTS = 240
LOGGED = tuple(
    f"{split}{field}" for split in ("", "eval_") for field in ("loss", "accuracy", "chosen_mean", "rejected_mean")
)


@dataclass(frozen=True)
class Histogram:
    """Counts of the values between neighbouring edges; values beyond the outer edges count in the outer bins."""

    edges: Floats
    counts: tuple[Floats, ...]


@dataclass(frozen=True)
class Scores:
    """The scores of one run on one benchmark, reduced. `unusable` pairs have a score that is not a finite number."""

    n: int
    unusable: int
    scores: Histogram
    margins: Histogram


@dataclass(frozen=True)
class Curve:
    """Values over optimiser steps, in order; a value that was not finite is NaN."""

    steps: Floats
    values: Floats

    @property
    def final(self) -> float:
        """The mean over the last twentieth of the curve, NaN without a value there."""
        tail = self.values[-max(1, len(self.values) // 20) :]
        tail = tail[np.isfinite(tail)]
        return float(tail.mean()) if tail.size else math.nan

    @property
    def known(self) -> bool:
        """Whether there is any value."""
        return bool(np.isfinite(self.values).any())

    def smoothed(self) -> "Curve":
        """The mean around each step, weighted by a bell over a tenth of the steps."""
        if not self.known:
            return self
        window = np.hanning(2 * (len(self.values) // 20) + 3)[1:-1]
        known = np.isfinite(self.values)
        sums = np.convolve(np.where(known, self.values, 0.0), window, mode="same")
        weights = np.convolve(known.astype(np.float64), window, mode="same")
        return Curve(self.steps, np.where(known, sums / np.where(known, weights, 1.0), np.nan))

    def thinned(self) -> "Curve":
        """At most `CURVE_POINTS` points, evenly chosen; the first and the last stay."""
        if len(self.steps) <= CURVE_POINTS:
            return self
        kept = np.linspace(0, len(self.steps) - 1, CURVE_POINTS).round().astype(int)
        return Curve(self.steps[kept], self.values[kept])


@dataclass(frozen=True)
class Training:
    """How one run was trained: the content of `run.json`, and its log as one curve per field."""

    run: str
    record: dict[str, Any]
    curves: dict[str, Curve]

    def curve(self, field: str) -> Curve:
        """The curve of a field of the log; empty where the log lacks it."""
        return self.curves.get(field, Curve(np.empty(0), np.empty(0)))


def read_scores(path: Path) -> Scores:
    """Reduce a `scores.parquet`; a `UserError` names a file that is missing, damaged or lacks a column."""
    chosen, rejected = _columns(path, "chosen_score", "rejected_score")
    usable = np.isfinite(chosen) & np.isfinite(rejected)
    chosen, rejected = chosen[usable], rejected[usable]
    return Scores(
        n=len(usable),
        unusable=int((~usable).sum()),
        scores=_histogram(chosen, rejected),
        margins=_histogram(chosen - rejected),
    )


def read_training(folder: Path) -> Training:
    """Read `run.json` and `log.jsonl` of a trained model; a `UserError` names the file and line that is damaged."""
    record = read_json(folder / "run.json")
    if not isinstance(record, dict):
        raise UserError(f"{folder / 'run.json'} does not hold an object; delete {folder} and run the train stage again")
    points: dict[str, dict[float, float]] = {}
    for line in _log_lines(folder / "log.jsonl"):
        for field, value in line.items():
            if field in LOGGED and isinstance(value, int | float):
                points.setdefault(field, {})[float(line["step"])] = float(value)
    curves = {}
    for field, values in points.items():
        pairs = np.array(sorted(values.items()), dtype=np.float64)
        curves[field] = Curve(pairs[:, 0], np.where(np.isfinite(pairs[:, 1]), pairs[:, 1], np.nan))
    return Training(str(record.get("run") or folder.name), record, curves)


def read_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold an object; delete it and run the stage that makes it again")
    return value


def _log_lines(path: Path) -> Iterable[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as stream:
            for number, text in enumerate(stream, 1):
                try:
                    line = json.loads(text)
                    float(line["step"])
                except (ValueError, KeyError, TypeError) as error:
                    message = f"{path} line {number} is damaged ({error}); delete {path.parent} and train again"
                    raise UserError(message) from error
                yield line
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; run the train stage first") from error


def _columns(path: Path, *names: str) -> list[Floats]:
    try:
        table = pq.read_table(path, columns=list(names))
        return [table.column(name).to_numpy().astype(np.float64) for name in names]
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; run the evaluate stage first") from error
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run the evaluate stage again") from error


def _histogram(*values: Floats) -> Histogram:
    """Bins of equal width, the finer the more values there are; zero is an edge where it lies among the values."""
    together = np.concatenate(values)
    if not together.size:
        return Histogram(np.array([0.0, 1.0]), tuple(np.zeros(1) for _ in values))
    low, high = np.quantile(together, [0.002, 0.998])
    bins = np.clip(2.5 * np.cbrt(len(values[0])), *HISTOGRAM_BINS)
    width = (high - low) / bins or 0.1
    edges = width * np.arange(np.floor(low / width), np.floor(high / width) + 2)
    inside = [np.clip(one, edges[0], edges[-1]) for one in values]
    return Histogram(edges, tuple(np.histogram(one, edges)[0].astype(np.float64) for one in inside))
