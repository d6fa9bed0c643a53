"""95% intervals of what is measured on pairs, by a bootstrap that resamples prompts.

Pairs of one prompt are not independent, so that whole prompts are drawn (cluster bootstrap, Davison and Hinkley 1997,
section 3.8). The quantiles are those of the expanded percentile interval (Hesterberg 2015, arXiv 1411.5279),
which makes up for the bootstrap's narrowness where there are few prompts.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.integer[Any]]
RESAMPLES = 2000
GROUPS = 2000
"""More prompts than this are first put together at random into so many groups, which are as independent as prompts are:
the interval is that of the prompts up to a fiftieth of its width, and the work is bounded."""
Z = NormalDist().inv_cdf(0.975)


def mean_interval(values: Floats, prompts: Codes) -> tuple[float, float]:
    """A 95% interval of the mean of `values` [n] in [0, 1]; `prompts` [n] numbers the prompt of each.

    Where all values are 0 or all are 1, nothing can be resampled; the Wilson interval with a trial for each prompt is
    given, as also where there is but one prompt.
    """
    table = prompt_sums(prompts, values, np.ones(len(values)))
    mean = float(values.mean())
    if len(table) == 1 or mean in (0.0, 1.0):
        return wilson(mean, count_prompts(prompts))
    return statistic_interval(table, lambda sums: sums[:, 0] / sums[:, 1])


def difference_interval(values: Floats, prompts: Codes) -> tuple[float, float]:
    """A 95% interval of the mean of `values` [n] in [-1, 1], such as paired differences of `correct`.

    Where all values are equal, bounds follow from the Wilson interval of a share: values that are all 0 still leave
    room for a difference on other prompts.
    """
    table = prompt_sums(prompts, values, np.ones(len(values)))
    mean = float(values.mean())
    if len(table) == 1 or values.min() == values.max():
        if mean == 0:
            bound = wilson(0.0, count_prompts(prompts))[1]
            return -bound, bound
        low, high = wilson((mean + 1) / 2, count_prompts(prompts))
        return 2 * low - 1, 2 * high - 1
    return statistic_interval(table, lambda sums: sums[:, 0] / sums[:, 1])


def prompt_sums(prompts: Codes, *columns: Floats) -> Floats:
    """The sums of each column [n] over the pairs of a prompt, or group of prompts: [at most GROUPS, columns]."""
    place, count = prompt_groups(prompts)
    return np.stack([np.bincount(place, weights=column, minlength=count) for column in columns], axis=1)


def prompt_groups(prompts: Codes) -> tuple[Codes, int]:
    """The number of each prompt, or group of prompts, from 0: int [n]; and how many there are, at most GROUPS."""
    seen = np.zeros(int(prompts.max()) + 1, dtype=bool)
    seen[prompts] = True
    ranks: Codes = np.cumsum(seen, dtype=np.int32) - 1
    count = int(ranks[-1]) + 1
    if count > GROUPS:
        ranks = np.random.default_rng(0).integers(0, GROUPS, count, dtype=np.int32)[ranks]
    place: Codes = ranks[prompts]
    return place, min(count, GROUPS)


def statistic_interval(table: Floats, statistic: Callable[[Floats], Floats]) -> tuple[float, float]:
    """A 95% interval of `statistic`, which maps sums over prompts [resamples, k] to values [resamples].

    `table` [prompts, k] has each prompt's part of the sums. A resample without a value (NaN) is left out.
    """
    count = len(table)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = statistic(_draws(count) @ table)
    values = values[np.isfinite(values)]
    tail = NormalDist().cdf(-math.sqrt(count / (count - 1)) * student_t(count - 1))
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


@lru_cache(maxsize=2)
def _draws(count: int) -> Floats:
    """How often each of `count` prompts is drawn, for each resample: [RESAMPLES, count]."""
    drawn = np.random.default_rng(0).integers(0, count, (RESAMPLES, count), dtype=np.int32)
    result = np.empty((RESAMPLES, count))
    for row, numbers in zip(result, drawn, strict=True):
        row[:] = np.bincount(numbers, minlength=count)
    return result


def student_t(freedom: int) -> float:
    """The 97.5% quantile of Student's t distribution (Abramowitz and Stegun 26.7.5), 1% low at 3 degrees of freedom."""
    if freedom < 3:
        return (12.706, 4.303)[freedom - 1]
    z, n = Z, float(freedom)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / n + second / n**2 + third / n**3


def count_prompts(prompts: Codes) -> int:
    """How many different prompts there are."""
    seen = np.zeros(int(prompts.max()) + 1, dtype=bool)
    seen[prompts] = True
    return int(seen.sum())


def wilson(share: float, trials: int) -> tuple[float, float]:
    """The 95% Wilson score interval of a share of `trials` (Wilson 1927)."""
    middle = share + Z * Z / (2 * trials)
    spread = Z * math.sqrt(share * (1 - share) / trials + Z * Z / (4 * trials * trials))
    scale = 1 + Z * Z / trials
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
