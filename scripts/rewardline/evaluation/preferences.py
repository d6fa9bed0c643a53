"""Which answers the runs of a leaderboard prefer, from their scores."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rewardline.evaluation.metrics.intervals import Codes, Floats, prompt_groups
from rewardline.evaluation.scores import Ids, read_ids, read_pair_scores

MISSING = 255


@dataclass(frozen=True)
class Preferences:
    """Which answers runs prefer, for the pairs that any of them scored.

    Attributes:
        pairs: hash of each pair's id, uint64 [n], ascending.
        prompts: number of its prompt, or group of prompts, int [n].
        prompt_ids: hash of its prompt's id, uint64 [n].
        repeats: how often the benchmark has it, int [n]; published ones repeat pairs.
        correct: by run, twice `correct` of each pair, uint8 [n]; MISSING where the run has no score.
        runs: how many trained runs scored it, int [n]; ensembles add nothing to their members.
        against: how many of them prefer the rejected answer, int [n].
        margin_mean, margin_std: over these runs, of the score difference in units of the run's root mean square [n].
    """

    pairs: Ids
    prompts: Codes
    prompt_ids: Ids
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

    def rates(self, runs: Sequence[str], pairs: npt.NDArray[np.intp]) -> Floats:
        """The mean of `correct` over these runs, for pairs that all of them scored: float64 [pairs]."""
        twice: npt.NDArray[np.int64] = np.sum([self.correct[run][pairs] for run in runs], axis=0, dtype=np.int64)
        return twice / (2.0 * len(runs))


def read_preferences(scores: Mapping[str, Path], ensembles: Sequence[str]) -> Preferences:
    """Read the `scores.parquet` of each run, a file in memory at a time.

    Raises:
        UserError: a file is missing or damaged.
    """
    pairs, prompt_ids = np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint64)
    for path in scores.values():
        pairs, first = np.unique(np.concatenate([pairs, read_ids(path, "pair_id")]), return_index=True)
        prompt_ids = np.concatenate([prompt_ids, read_ids(path, "prompt_id")])[first]
    prompts, _ = prompt_groups(np.unique(prompt_ids, return_inverse=True)[1])
    count = len(pairs)
    runs, against = np.zeros(count, dtype=np.int32), np.zeros(count, dtype=np.int32)
    total, squares, repeats = np.zeros(count), np.zeros(count), np.zeros(count, dtype=np.int64)
    correct = {}
    for run, path in scores.items():
        ids, (chosen, rejected) = read_pair_scores(path)
        indices = np.searchsorted(pairs, ids)
        margin = chosen.astype(np.float64) - rejected
        correct[run] = np.full(count, MISSING, dtype=np.uint8)
        correct[run][indices] = 1 + np.sign(margin)
        repeats = np.maximum(repeats, np.bincount(indices, minlength=count))
        if run not in ensembles:
            scaled = margin / (math.sqrt(float((margin**2).mean())) or 1.0)
            runs[indices] += 1
            against[indices] += margin < 0
            total[indices] += scaled
            squares[indices] += scaled**2
    mean = total / np.maximum(runs, 1)
    std = np.sqrt(np.maximum(squares / np.maximum(runs, 1) - mean**2, 0.0))
    return Preferences(pairs, prompts, prompt_ids, repeats, correct, runs, against, mean, std)
