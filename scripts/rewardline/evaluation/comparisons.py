"""Runs compared on the pairs that they have in common: differences, spread over seeds, disagreement with labels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt

from rewardline.evaluation.metrics.intervals import Codes, Floats, difference_interval, prompt_groups, student_t
from rewardline.evaluation.results import HELD_OUT, Board, Entry
from rewardline.evaluation.scores import read_columns

Json = dict[str, Any]
RUNS_COMPARED = 16
"""The best runs of a board, each two of which are compared; the others are named as left out."""
MISSING = 255


@dataclass(frozen=True)
class Judgements:
    """What runs say of the pairs that any of them scored.

    Attributes:
        pairs: hash of each pair's id, uint64 [n], ascending.
        prompts: number of its prompt, or group of prompts, int [n].
        times: how often it stands in the benchmark, int [n]; published ones repeat pairs.
        verdicts: by run, twice `correct` of each pair, uint8 [n]; MISSING where the run has no score.
        judges: how many trained runs scored it, int [n]; ensembles say nothing that their members do not say.
        against: how many of them prefer the rejected answer, int [n].
        margin_mean, margin_std: over these runs, of the score difference in units of the run's root mean square [n].
    """

    pairs: npt.NDArray[np.uint64]
    prompts: Codes
    times: npt.NDArray[np.int64]
    verdicts: dict[str, npt.NDArray[np.uint8]]
    judges: npt.NDArray[np.int32]
    against: npt.NDArray[np.int32]
    margin_mean: Floats
    margin_std: Floats


def read_judgements(scores: Mapping[str, Path], ensembles: Sequence[str] = ()) -> Judgements:
    """Read the `scores.parquet` of each run of a board, a file in memory at a time.

    Raises:
        UserError: a file is missing or damaged.
    """
    pairs, owners = np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint64)
    for path in scores.values():
        ids = read_columns(path, ("pair_id", "prompt_id"))
        pairs, first = np.unique(np.concatenate([pairs, ids["pair_id"]]), return_index=True)
        owners = np.concatenate([owners, ids["prompt_id"]])[first]
    prompts, _ = prompt_groups(np.unique(owners, return_inverse=True)[1])
    count = len(pairs)
    judges, against = np.zeros(count, dtype=np.int32), np.zeros(count, dtype=np.int32)
    total, squares, times = np.zeros(count), np.zeros(count), np.zeros(count, dtype=np.int64)
    verdicts = {}
    for run, path in scores.items():
        found = read_columns(path, ("pair_id", "chosen_score", "rejected_score"))
        place = np.searchsorted(pairs, found["pair_id"])
        margin = found["chosen_score"].astype(np.float64) - found["rejected_score"]
        verdicts[run] = np.full(count, MISSING, dtype=np.uint8)
        verdicts[run][place] = 1 + np.sign(margin)
        times = np.maximum(times, np.bincount(place, minlength=count))
        if run in ensembles:
            continue
        scaled = margin / (math.sqrt(float((margin**2).mean())) or 1.0)
        judges[place] += 1
        against[place] += margin < 0
        total[place] += scaled
        squares[place] += scaled**2
    mean = total / np.maximum(judges, 1)
    spread = np.sqrt(np.maximum(squares / np.maximum(judges, 1) - mean**2, 0.0))
    return Judgements(pairs, prompts, times, verdicts, judges, against, mean, spread)


def compare(board: Board, judgements: Judgements) -> Json:
    """A board's part of `comparisons.json`.

    `differences` are of accuracy, first minus second, on the pairs that both scored, with a 95% interval by a bootstrap
    over prompts; `within_noise` where it holds 0. Every two runs are compared, and every two families of seeds, whose
    difference is that of their means and whose interval is wider by the spread between seeds.
    """
    shown = [entry for entry in board.entries if any(one.run in judgements.verdicts for one in entry.members)]
    runs = [one.run for entry in shown for one in entry.members]
    differences = [_runs(first, second, judgements) for first, second in combinations(runs, 2)]
    differences += [
        _families(first, second, judgements)
        for first, second in combinations(shown, 2)
        if len(first.members) + len(second.members) > 2
    ]
    return {
        "benchmark": board.benchmark,
        "mixture": board.mixture if board.benchmark == HELD_OUT else None,
        "differences": [one for one in differences if one is not None],
        "families": [
            {
                "name": entry.name,
                "runs": [one.run for one in entry.members],
                "mean": entry.total.accuracy,
                "std": entry.spread if len(entry.members) > 1 else None,
            }
            for entry in board.entries
        ],
        "left_out": [one.run for entry in board.entries if entry not in shown for one in entry.members],
    }


def compared(board: Board) -> list[str]:
    """The runs of the best entries of a board, at least one entry, at most RUNS_COMPARED runs."""
    runs: list[str] = []
    for entry in board.entries:
        members = [one.run for one in entry.members]
        if runs and len(runs) + len(members) > RUNS_COMPARED:
            break
        runs += members
    return runs


def _runs(first: str, second: str, judgements: Judgements) -> Json | None:
    one, other = judgements.verdicts[first], judgements.verdicts[second]
    common = _common([one, other], judgements)
    if not len(common):
        return None
    values = (one[common].astype(np.float64) - other[common]) / 2
    low, high = difference_interval(values, judgements.prompts[common])
    return _difference(first, second, len(common), float(values.mean()), low, high)


def _families(first: Entry, second: Entry, judgements: Judgements) -> Json | None:
    """The difference of the means over seeds, with both sources of chance: prompts, and seeds (pooled, Student's t)."""
    sides = [[judgements.verdicts[one.run] for one in entry.members] for entry in (first, second)]
    common = _common([verdict for side in sides for verdict in side], judgements)
    if not len(common):
        return None
    rates = [[float(verdict[common].mean()) / 2 for verdict in side] for side in sides]
    values = np.zeros(len(common))
    for side, sign in zip(sides, (1, -1), strict=True):
        for verdict in side:
            values += verdict[common] * (sign / (2 * len(side)))
    low, high = difference_interval(values, judgements.prompts[common])
    mean = fmean(rates[0]) - fmean(rates[1])
    wider = _seed_error(rates)
    low, high = mean - math.hypot(mean - low, wider), mean + math.hypot(high - mean, wider)
    result = _difference(first.name, second.name, len(common), mean, max(-1.0, low), min(1.0, high))
    return {**result, "seeds": [len(side) for side in sides]}


def _common(verdicts: Sequence[npt.NDArray[np.uint8]], judgements: Judgements) -> Codes:
    """The places of the pairs that all have scored, each as often as it stands in the benchmark."""
    places = np.flatnonzero(np.logical_and.reduce([verdict != MISSING for verdict in verdicts]))
    return np.repeat(places, judgements.times[places])


def _seed_error(rates: list[list[float]]) -> float:
    """Half the width of the 95% interval that seeds alone give to a difference of means, their variance pooled."""
    freedom = sum(len(side) - 1 for side in rates)
    variance = sum(stdev(side) ** 2 * (len(side) - 1) for side in rates if len(side) > 1) / freedom
    return student_t(freedom) * math.sqrt(variance * sum(1 / len(side) for side in rates))


def _difference(first: str, second: str, n: int, difference: float, low: float, high: float) -> Json:
    return {
        "first": first,
        "second": second,
        "n": n,
        "difference": difference,
        "low": low,
        "high": high,
        "within_noise": low <= 0 <= high,
    }
