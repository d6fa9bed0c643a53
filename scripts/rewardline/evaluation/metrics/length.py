"""Length bias: rank correlation, accuracy by difference in length, length-controlled accuracy."""

import math

import numpy as np
import pandas as pd

from rewardline.evaluation.metrics.intervals import (
    Codes,
    Floats,
    accuracy,
    effective_prompts,
    prompt_groups,
    statistic_interval,
)
from rewardline.evaluation.results import Bin, LengthBias

SIDES = 4
"""Bins of pairs whose chosen answer is longer, and as many of those whose rejected one is."""
STRATA, PAIRS_PER_STRATUM = 10, 50


def length_metrics(margins: Floats, longer: Floats, correct: Floats, prompts: Codes) -> LengthBias:
    """`margins` [n] are score differences, `longer` [n] differences in tokens, both chosen minus rejected."""
    value, low, high, pairs = controlled_accuracy(longer, correct, prompts)
    return LengthBias(
        correlation=correlation(margins, longer),
        controlled_accuracy=value,
        controlled_low=low,
        controlled_high=high,
        controlled_pairs=pairs,
        by_difference=by_difference(longer, correct, prompts),
    )


def correlation(first: Floats, second: Floats) -> float:
    """Spearman's rank correlation of the differences between a pair's two answers, in score and in length.

    Prompts have no effect on it, as both answers have the same; nor have labels, as each pair counts as (x, y) and as
    (-x, -y). 1 where the score rises with the length and with nothing else, NaN where scores or lengths never differ.
    """
    left, right = (np.sign(values) * (pd.Series(np.abs(values)).rank() - 0.5) for values in (first, second))
    spread = float(np.sqrt((left**2).sum() * (right**2).sum()))
    return float((left * right).sum() / spread) if spread > 0 else math.nan


def controlled_accuracy(longer: Floats, correct: Floats, prompts: Codes) -> tuple[float, float, float, int]:
    """The accuracy if length were independent of the label, its interval, and the number of its pairs.

    Pairs are stratified by how much their answers differ in length (up to ten strata of about equal number, fewer where
    they would have fewer than 50 pairs). In each, pairs whose chosen answer is longer and pairs whose rejected answer
    is longer have the same weight: the balanced accuracy (Brodersen et al. 2010) with the direction of the difference
    as the class, averaged over strata by their number of pairs (direct standardization). A preference for longer
    answers, or for shorter ones, gives 0.5. Pairs of equal length count as they are. Strata with pairs of one direction
    only are left out.
    """
    sizes = np.abs(longer)
    different = sizes > 0
    count = int(np.clip(different.sum() // PAIRS_PER_STRATUM, 1, STRATA))
    strata = np.zeros(len(sizes), dtype=np.int64)
    if different.any():
        strata[different] = 1 + np.searchsorted(upper_bounds(sizes[different], count), sizes[different])
    cells = 2 * strata + (longer > 0)  # of equal length: cell 0, and cell 1 empty
    group, prompt_count = prompt_groups(prompts)
    width = 2 * count + 2
    index, size = group * width + cells, prompt_count * width
    sums = [np.bincount(index, weights=weights, minlength=size) for weights in (correct, None)]
    table: Floats = np.stack(sums, axis=1).reshape(prompt_count, 2 * width).astype(np.float64)
    value, pairs = (float(array[0]) for array in _standardized(table.sum(axis=0, keepdims=True)))
    if not pairs:
        return math.nan, math.nan, math.nan, 0
    low, high = statistic_interval(table, lambda sums: _standardized(sums)[0], effective_prompts(prompts))
    return value, low, high, round(pairs)


def _standardized(sums: Floats) -> tuple[Floats, Floats]:
    """The standardized accuracy, and its number of pairs, of sums [resamples, cells x (correct, pairs)]."""
    cells = sums.reshape(len(sums), -1, 2, 2)  # resamples, strata, direction, (correct, pairs)
    right, pairs = cells[..., 0], cells[..., 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = right / pairs
    balanced = rates.mean(axis=2)
    balanced[:, 0] = rates[:, 0, 0]
    usable = np.isfinite(balanced)
    weights = np.where(usable, pairs.sum(axis=2), 0.0)
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        result = (np.where(usable, balanced, 0.0) * weights).sum(axis=1) / total
    return result, total


def by_difference(longer: Floats, correct: Floats, prompts: Codes) -> list[Bin]:
    """The accuracy by `longer` [n], chosen minus rejected tokens: bins below 0, those of 0, and the same bins above."""
    sizes = np.abs(longer)
    if not sizes.any():
        return binned(longer, np.zeros(len(longer), dtype=np.int64), correct, prompts)
    bounds = upper_bounds(sizes[sizes > 0], SIDES)
    bins = np.sign(longer).astype(np.int64) * (1 + np.searchsorted(bounds, sizes))
    return binned(longer, bins + len(bounds), correct, prompts)


def upper_bounds(values: Floats, count: int) -> Floats:
    """The greatest value of each of up to `count` bins of about equal number; few different values get a bin each."""
    different = np.unique(values)
    if len(different) <= count:
        return different
    return np.unique(np.quantile(values, np.arange(1, count + 1) / count, method="inverted_cdf"))


def binned(values: Floats, bins: Codes, correct: Floats, prompts: Codes) -> list[Bin]:
    """The accuracy of the pairs of each of `bins` [n]; `low` and `high` are its least and greatest value."""
    groups = (np.flatnonzero(bins == number) for number in np.unique(bins))
    return [
        Bin(
            low=float(values[rows].min()),
            high=float(values[rows].max()),
            n=len(rows),
            **accuracy(correct[rows], prompts[rows]),
        )
        for rows in groups
    ]
