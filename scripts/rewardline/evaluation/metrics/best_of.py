"""What is picked from n answers by their scores: the expected gold score of the best, and the distance it moves."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def expected_best(scores: Floats, golds: Floats, sizes: Sequence[int]) -> Floats:
    """The mean gold score of the answer with the greatest score, over all subsets of n of N answers, for each n.

    It is unbiased for n answers drawn from the policy that the N answers were drawn from (Nakano et al. 2021, arXiv
    2112.09332). Answers of equal score are equally likely to be picked.

    Args:
        scores, golds: float64 [N].
        sizes: each n, from 1 to N.
    """
    count = len(scores)
    _, group = np.unique(scores, return_inverse=True)
    order = np.argsort(group, kind="stable")
    members = np.bincount(group)
    means = np.bincount(group, golds) / members  # by score, ascending
    result = []
    for size in sizes:
        subsets = math.comb(count, size)
        # The best of a subset is the k-th from below in comb(k, size - 1) of the subsets, k from 0.
        weights = np.array([math.comb(k, size - 1) / subsets for k in range(count)])
        result.append(float(np.bincount(group[order], weights) @ means))
    return np.array(result)


def best_of_n_divergence(size: int) -> float:
    """The Kullback-Leibler divergence of best-of-n from the policy in nats, log n - (n - 1) / n.

    Stiennon et al. 2020 (arXiv 2009.01325), and the axis of Gao et al. 2022 (arXiv 2210.10760).
    """
    return math.log(size) - (size - 1) / size
