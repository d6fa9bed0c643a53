"""Figures of rankings, whose answers have a gold score each."""

import numpy as np
import numpy.typing as npt

from rewardline.evaluation.published.base import ScoredRow

Floats = npt.NDArray[np.float64]


def scores_and_golds(row: ScoredRow) -> tuple[Floats, Floats]:
    """The scores and the gold scores of a row's answers, float64 [answers]."""
    answers = row.answers
    return np.array([answer.score for answer in answers]), np.array([answer.gold for answer in answers])


def tau_b(first: Floats, second: Floats) -> float:
    """Kendall's tau-b between two lists of numbers, 0 where one has equal numbers only."""
    one, two = (np.sign(np.subtract.outer(values, values)) for values in (first, second))
    scale = np.sqrt(float((one != 0).sum()) * float((two != 0).sum()))
    return float((one * two).sum() / scale) if scale else 0.0


def ndcg(scores: Floats, golds: Floats) -> float:
    """The normalized discounted cumulative gain of the order by score (Järvelin and Kekäläinen 2002).

    The gain is the gold score, minus the least of the row if that is negative; the discount log2(1 + rank). Answers of
    equal score share their discounts, as in scikit-learn.
    """
    gains = golds - min(float(golds.min()), 0.0)
    discounts = 1 / np.log2(np.arange(2, len(gains) + 2))
    _, group = np.unique(-scores, return_inverse=True)
    ordered = np.sort(group)
    shared = np.bincount(ordered, discounts) / np.bincount(ordered)
    best = float((np.sort(gains)[::-1] * discounts).sum())
    return float((gains * shared[group]).sum()) / best if best else 0.0
