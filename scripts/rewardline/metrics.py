"""What scores say: pairwise accuracy with its interval, the length-only baseline, and the scores' own statistics."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
RESAMPLES = 1000
BOOTSTRAP_PROMPTS = 50_000
"""Above this many prompts the interval comes from the cluster-robust standard error, which then equals it."""


def accuracy_interval(correct: Floats, prompts: npt.NDArray[np.int64], seed: int = 0) -> tuple[float, float]:
    """A 95% interval of the mean of `correct` [n] by a percentile bootstrap that resamples prompts.

    `prompts` [n] numbers the prompt of each pair from 0. Where all pairs agree, nothing can be resampled; the Wilson
    interval (Wilson 1927) with one trial per prompt is given.
    """
    count = int(prompts.max()) + 1
    sizes = np.bincount(prompts, minlength=count).astype(np.float64)
    sums = np.bincount(prompts, weights=correct, minlength=count)
    mean = float(sums.sum() / sizes.sum())
    if count == 1 or mean in (0.0, 1.0):
        return wilson(mean, count)
    if count > BOOTSTRAP_PROMPTS:
        residuals = sums - mean * sizes
        error = math.sqrt(float((residuals**2).sum())) / float(sizes.sum())
        return max(0.0, mean - 1.96 * error), min(1.0, mean + 1.96 * error)
    rng = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        drawn = rng.integers(0, count, count)
        means[index] = sums[drawn].sum() / sizes[drawn].sum()
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def wilson(share: float, trials: int) -> tuple[float, float]:
    """The 95% Wilson score interval of a share of `trials`."""
    z = 1.96
    middle = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def half_ties(first: Floats, second: Floats) -> Floats:
    """1 where `first` is greater, 0.5 where they are equal, else 0."""
    result: Floats = (first > second) + 0.5 * (first == second)
    return result


def summarize(scores: pd.DataFrame, scale: float = 1.0) -> dict[str, Any]:
    """The metrics of a table of scored pairs (the columns of scores.parquet), by example: every pair counts once.

    `scale`: what score differences are multiplied by to be the model's log odds, the spread that they were divided by.
    """
    subsets = {str(name): _accuracies(part) for name, part in scores.groupby("subset", sort=True)}
    chosen, rejected = scores["chosen_score"].to_numpy(float), scores["rejected_score"].to_numpy(float)
    margins = chosen - rejected
    return {
        **_accuracies(scores),
        "prompts": int(scores["prompt_id"].nunique()),
        "loss": float(np.logaddexp(0.0, -scale * margins).mean()),
        "chosen_mean": float(chosen.mean()),
        "rejected_mean": float(rejected.mean()),
        "chosen_std": float(chosen.std()),
        "rejected_std": float(rejected.std()),
        "margin_mean": float(margins.mean()),
        "margin_std": float(margins.std()),
        "by_subset": subsets,
    }


def _accuracies(scores: pd.DataFrame) -> dict[str, Any]:
    correct = scores["correct"].to_numpy(float)
    prompts = pd.factorize(scores["prompt_id"])[0].astype(np.int64)
    low, high = accuracy_interval(correct, prompts)
    longer = half_ties(scores["chosen_tokens"].to_numpy(float), scores["rejected_tokens"].to_numpy(float))
    return {
        "n": len(scores),
        "accuracy": float(correct.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "length_accuracy": float(longer.mean()),
    }
