"""95% intervals of what is measured on pairs, by a bootstrap that resamples prompts.

Pairs of one prompt are not independent, so that prompts are resampled with all their pairs (cluster bootstrap, Davison
and Hinkley 1997, section 3.8). The quantiles are those of the expanded percentile interval (Hesterberg 2015, arXiv
1411.5279), which makes up for the bootstrap's narrowness where prompts are few, or a few have most of the pairs.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtrit

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64] | npt.NDArray[np.int32] | npt.NDArray[np.int8]
RESAMPLES = 2000
GROUPS = 2000
"""More prompts than this are first put into as many groups at random, which are as independent as prompts are: the
interval is that of the prompts up to a fiftieth of its width, and the work is bounded."""
FEW = 6
"""With fewer prompts than this there is too little to resample."""
Z = float(ndtri(0.975))


def mean_interval(values: Floats, prompts: Codes) -> tuple[float, float]:
    """A 95% interval of the mean of `values` [n] in [0, 1]; `prompts` [n] numbers the prompt of each."""
    table = prompt_sums(prompts, values, np.ones(len(values)))
    return statistic_interval(table, ratio, float(values.mean()), effective_prompts(prompts))


def accuracy(correct: Floats, prompts: Codes) -> dict[str, float]:
    """The fields of `results.Accuracy`: the mean of `correct` [n] in [0, 1], its 95% interval; NaN without pairs."""
    values = (float(correct.mean()), *mean_interval(correct, prompts)) if len(correct) else (math.nan,) * 3
    return dict(zip(("accuracy", "accuracy_low", "accuracy_high"), values, strict=True))


def difference_interval(values: Floats, prompts: Codes) -> tuple[float, float]:
    """A 95% interval of the mean of `values` [n] in [-1, 1], such as paired differences of `correct`.

    Where all values are 0, other prompts may still show a difference: the bounds are then Wilson's of 0.
    """
    if not values.any():
        bound = wilson(0.0, effective_prompts(prompts))[1]
        return -bound, bound
    low, high = mean_interval((values + 1) / 2, prompts)
    return 2 * low - 1, 2 * high - 1


def ratio(sums: Floats) -> Floats:
    """The first column of sums [resamples, 2], divided by the second."""
    return np.divide(sums[:, 0], sums[:, 1])


def effective_prompts(prompts: Codes, weights: Floats | None = None) -> float:
    """The effective number of prompts (Kish 1965); their pairs have weight 1 each, or `weights`."""
    sizes = np.bincount(prompts, weights)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def prompt_sums(prompts: Codes, *columns: Floats) -> Floats:
    """The sums of each column [n] over the pairs of a prompt, or group of prompts: [at most GROUPS, columns]."""
    group, count = prompt_groups(prompts)
    return np.stack([np.bincount(group, weights=column, minlength=count) for column in columns], axis=1)


def prompt_groups(prompts: Codes) -> tuple[Codes, int]:
    """The number of each prompt, or group of prompts, from 0: int [n]; and how many there are, at most GROUPS."""
    ranks: Codes = np.cumsum(np.bincount(prompts) > 0, dtype=np.int32) - 1  # faster than sorting
    count = int(ranks[-1]) + 1
    if count > GROUPS:
        ranks = np.random.default_rng(0).integers(0, GROUPS, count, dtype=np.int32)[ranks]
    group: Codes = ranks[prompts]
    return group, min(count, GROUPS)


def statistic_interval(
    table: Floats, statistic: Callable[[Floats], Floats], value: float, prompts: float
) -> tuple[float, float]:
    """A 95% interval of `statistic`, which maps sums over prompts [resamples, k] to values in [0, 1] [resamples].

    `table` [prompts, k] has each prompt's part of the sums, `value` is the statistic of all, and `prompts` their
    effective number, from which the quantiles follow. A resample without a value (NaN) is left out. Where prompts are
    too few to resample, or all alike, it is the Wilson interval with a trial for each effective prompt.
    """
    if prompts < FEW:
        return wilson(value, prompts)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = statistic(_draws(len(table)) @ table)
    values = values[np.isfinite(values)]
    tail = ndtr(-math.sqrt(prompts / (prompts - 1)) * stdtrit(prompts - 1, 0.975))
    low, high = np.quantile(values, [tail, 1 - tail])
    return (float(low), float(high)) if high - low > 1e-9 else wilson(value, prompts)


@lru_cache(maxsize=2)
def _draws(count: int) -> Floats:
    """How often each of `count` prompts is drawn, for each resample: [RESAMPLES, count]."""
    drawn = np.random.default_rng(0).integers(0, count, (RESAMPLES, count), dtype=np.int32)
    return np.apply_along_axis(np.bincount, 1, drawn, minlength=count).astype(np.float64)


def wilson(share: float, trials: float) -> tuple[float, float]:
    """The 95% Wilson score interval of a share of `trials` (Wilson 1927).

    By hand, as scipy's takes integers only, and an effective number of prompts is a fraction.
    """
    middle = share + Z * Z / (2 * trials)
    spread = Z * math.sqrt(share * (1 - share) / trials + Z * Z / (4 * trials * trials))
    scale = 1 + Z * Z / trials
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
