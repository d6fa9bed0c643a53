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

from rewardline.artifacts import read_json
from rewardline.cli import UserError

Floats = NDArray[np.float64]

CONFIDENCE_EDGES: Floats = np.linspace(0.5, 1.0, 11)
HISTOGRAM_BINS = (8, 40)
CURVE_POINTS = 240
LOGGED = tuple(
    f"{split}{field}" for split in ("", "eval_") for field in ("loss", "accuracy", "chosen_mean", "rejected_mean")
)


@dataclass(frozen=True)
class Bins:
    """Per bin the number of pairs, the number right (ties half) and the sum of the quantity that was binned."""

    n: Floats
    right: Floats
    x_sum: Floats

    def __add__(self, other: "Bins") -> "Bins":
        return Bins(self.n + other.n, self.right + other.right, self.x_sum + other.x_sum)


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
    confidence: Bins
    length: Bins


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


def length_edges(differences: NDArray[np.int64] | None = None) -> Floats:
    """Edges, symmetric about zero, that part differences in length (tokens) into up to seven bins; empty if all are 0.

    Edges lie half a token below a round number, so that no difference falls on one.
    """
    sizes = np.abs(differences) if differences is not None else np.empty(0)
    if not sizes.any():
        return np.empty(0)
    rounded = [float(f"{size:.0e}") for size in np.quantile(sizes[sizes > 0], [0.25, 0.5, 0.8])]
    edges = np.unique(np.maximum(1.0, rounded)) - 0.5
    return np.concatenate([-edges[::-1], edges])


def read_differences(path: Path) -> NDArray[np.int64]:
    """The chosen answer's length minus the rejected one's, in tokens, for each pair of a `scores.parquet`."""
    columns = _columns(path, "chosen_tokens", "rejected_tokens")
    return (columns[0] - columns[1]).astype(np.int64)


def read_scores(path: Path, edges: Floats) -> Scores:
    """Reduce a `scores.parquet`; `edges` (from `length_edges`) part the differences in length.

    A `UserError` names a file that is missing, damaged or lacks a column.
    """
    chosen, rejected, *tokens = _columns(path, "chosen_score", "rejected_score", "chosen_tokens", "rejected_tokens")
    usable = np.isfinite(chosen) & np.isfinite(rejected)
    chosen, rejected, difference = chosen[usable], rejected[usable], (tokens[0] - tokens[1])[usable]
    margin = chosen - rejected
    right = np.where(margin > 0, 1.0, np.where(margin == 0, 0.5, 0.0))
    confidence = 1 / (1 + np.exp(-np.abs(margin)))
    return Scores(
        n=len(usable),
        unusable=int((~usable).sum()),
        scores=_histogram(chosen, rejected),
        margins=_histogram(margin),
        confidence=_bins(confidence, np.searchsorted(CONFIDENCE_EDGES[1:-1], confidence, "right"), right, 10),
        length=_bins(difference, np.searchsorted(edges, difference, "right"), right, len(edges) + 1),
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


def _bins(values: Floats, index: NDArray[np.intp], right: Floats, count: int) -> Bins:
    return Bins(
        np.bincount(index, minlength=count).astype(np.float64),
        np.bincount(index, weights=right, minlength=count).astype(np.float64),
        np.bincount(index, weights=values, minlength=count).astype(np.float64),
    )
