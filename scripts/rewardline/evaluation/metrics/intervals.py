"""95% intervals of what is measured on pairs. Prompts are the units, as the pairs of one prompt are not independent.

The interval is the score interval in the form of Agresti and Coull (1998), with Student's t for the normal quantile and
an effective number of trials: what gives the variance of the delete-one jackknife over prompts. Near 0 and 1, where few
prompts are wrong, or right, that variance is unknown. So it is averaged with the greatest possible one, that of prompts
whose pairs all agree, which has the weight of one prompt against that of the wrong ones. For paired differences it is
about the interval of Bonett and Price (2012).
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64] | npt.NDArray[np.int32] | npt.NDArray[np.int8]
GROUPS = 2000
"""More prompts than this are first put into as many groups at random, which are as independent as prompts are: the
interval is that of the prompts up to a fiftieth of its width, and the memory is bounded."""


def mean_interval(values: Floats, prompts: Codes, level: float = 0.95) -> tuple[float, float]:
    """An interval of the mean of `values` [n] in [0, 1]; `prompts` [n] numbers the prompt of each."""
    table = prompt_sums(prompts, values, np.ones(len(values)))
    return statistic_interval(table, ratio, effective_prompts(prompts), level)


def accuracy(correct: Floats, prompts: Codes) -> dict[str, float]:
    """The fields of `results.Accuracy`: the mean of `correct` [n] in [0, 1], its 95% interval; NaN without pairs."""
    values = (float(correct.mean()), *mean_interval(correct, prompts)) if len(correct) else (math.nan,) * 3
    return dict(zip(("accuracy", "accuracy_low", "accuracy_high"), values, strict=True))


def difference_interval(values: Floats, prompts: Codes, level: float = 0.95) -> tuple[float, float]:
    """An interval of the mean of `values` [n] in [-1, 1], such as paired differences of `correct`."""
    low, high = mean_interval((values + 1) / 2, prompts, level)
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
    table: Floats, statistic: Callable[[Floats], Floats], prompts: float, level: float = 0.95
) -> tuple[float, float]:
    """An interval of `statistic`, which maps sums over prompts [k, columns] to values in [0, 1] [k].

    `table` [prompts, columns] has each prompt's part of the sums, and `prompts` is their effective number.
    """
    total = table.sum(axis=0)
    value = float(statistic(total[np.newaxis])[0])
    trials, quantile = _trials(table, statistic, value, prompts), float(stdtrit(prompts + 3, (1 + level) / 2))
    added = quantile**2
    middle = (value * trials + added / 2) / (trials + added)
    half = quantile * math.sqrt(middle * (1 - middle) / (trials + added))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _trials(table: Floats, statistic: Callable[[Floats], Floats], value: float, prompts: float) -> float:
    """How many independent trials would give `value`, the statistic of all, its variance."""
    with np.errstate(invalid="ignore", divide="ignore"):
        without = statistic(table.sum(axis=0) - table)
    without = without[np.isfinite(without)]
    if len(without) < 2 or value in (0, 1):
        return prompts
    variance = float(without.var()) * (len(without) - 1) / (value * (1 - value))
    telling = min(value, 1 - value) * prompts
    return (telling + 1) / (telling * variance + 1 / prompts)
