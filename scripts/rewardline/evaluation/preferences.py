"""Which answer of each pair the runs prefer, on the pairs that any of them scored."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rewardline.evaluation.metrics.intervals import Codes, Floats, prompt_groups
from rewardline.evaluation.scores import read_ids, read_pair_scores

MISSING = 255


@dataclass(frozen=True)
class Preferences:
    """The preferences of runs on the pairs that any of them scored.

    Attributes:
        pairs: hash of each pair's id, uint64 [n], ascending.
        prompts: number of its prompt, or group of prompts, int [n].
        repeats: how often the benchmark has it, int [n]; published ones repeat pairs.
        correct: by run, twice `correct` of each pair, uint8 [n]; MISSING where the run has no score.
        runs: how many trained runs scored it, int [n]; ensembles add nothing to their members.
        against: how many of them prefer the rejected answer, int [n].
        margin_mean, margin_std: over these runs, of the score difference in units of the run's root mean square [n].
    """

    pairs: npt.NDArray[np.uint64]
    prompts: Codes
    repeats: npt.NDArray[np.int64]
    correct: dict[str, npt.NDArray[np.uint8]]
    runs: npt.NDArray[np.int32]
    against: npt.NDArray[np.int32]
    margin_mean: Floats
    margin_std: Floats

    def common(self, runs: Sequence[str]) -> npt.NDArray[np.intp]:
        """Indices of the pairs that all these runs scored, each as often as the benchmark has it."""
        indices = np.flatnonzero(np.logical_and.reduce([self.correct[run] != MISSING for run in runs]))
        return np.repeat(indices, self.repeats[indices])


def read_preferences(scores: Mapping[str, Path], ensembles: Sequence[str] = ()) -> Preferences:
    """Read the `scores.parquet` of each run of a leaderboard, a file in memory at a time.

    Raises:
        UserError: a file is missing or damaged.
    """
    pairs, owners = np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint64)
    for path in scores.values():
        pairs, first = np.unique(np.concatenate([pairs, read_ids(path, "pair_id")]), return_index=True)
        owners = np.concatenate([owners, read_ids(path, "prompt_id")])[first]
    prompts, _ = prompt_groups(np.unique(owners, return_inverse=True)[1])
    count = len(pairs)
    runs, against = np.zeros(count, dtype=np.int32), np.zeros(count, dtype=np.int32)
    total, squares, repeats = np.zeros(count), np.zeros(count), np.zeros(count, dtype=np.int64)
    correct = {}
    for run, path in scores.items():
        own = read_pair_scores(path)
        indices = np.searchsorted(pairs, own.ids)
        margin = own.chosen.astype(np.float64) - own.rejected
        correct[run] = np.full(count, MISSING, dtype=np.uint8)
        correct[run][indices] = 1 + np.sign(margin)
        repeats = np.maximum(repeats, np.bincount(indices, minlength=count))
        if run in ensembles:
            continue
        scaled = margin / (math.sqrt(float((margin**2).mean())) or 1.0)
        runs[indices] += 1
        against[indices] += margin < 0
        total[indices] += scaled
        squares[indices] += scaled**2
    mean = total / np.maximum(runs, 1)
    spread = np.sqrt(np.maximum(squares / np.maximum(runs, 1) - mean**2, 0.0))
    return Preferences(pairs, prompts, repeats, correct, runs, against, mean, spread)
