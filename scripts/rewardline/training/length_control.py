"""Scores without what length alone explains of the labels.

A logistic regression of the labels on length, with one coefficient, is fitted on the training pairs before the first
step. Its logit is added to the score difference of each pair in the loss, and to no score: what length explains is
no longer left for the model to learn. This is training on the residual of a model that sees the bias alone (He et al.
2019, arXiv 1908.10763; a product of experts in Clark et al. 2019, arXiv 1909.03683); the term in length is that of
length-controlled win rates (Dubois et al. 2024, arXiv 2404.04475), with the logarithm in place of a bounded function.
"""

import math

import numpy as np
import numpy.typing as npt

from rewardline.tokens.store import TokenDataset

Values = npt.NDArray[np.float64]
PRIOR = 1e-3
"""Precision of the coefficient's normal prior, for each pair: it is finite where length tells all labels."""


def length_coefficient(data: TokenDataset) -> float:
    """The coefficient of log(tokens of the chosen answer / tokens of the rejected one) in the logit of the label."""
    pairs = data.answer_lengths()
    return fit(np.log(pairs.chosen / pairs.rejected), pairs.weight, pairs.confidence)


def fit(leads: Values, weights: Values, confidences: Values) -> float:
    """The b that minimizes the weighted mean of -p log sigmoid(b x) - (1 - p) log sigmoid(-b x), plus `PRIOR` b^2 / 2.

    Newton's method in one dimension, where the function is convex; its steps are halved until the gradient shrinks.

    Args:
        leads, weights, confidences: x, the weight and p of each pair, float64 [P].
    """
    if not len(leads) or not weights.sum():
        return 0.0
    shares = weights / weights.sum()

    def slope(b: float) -> tuple[float, float]:
        likely = 0.5 * (1 + np.tanh(b * leads / 2))
        first = float((shares * (likely - confidences) * leads).sum())
        return first + PRIOR * b, float((shares * likely * (1 - likely) * leads**2).sum()) + PRIOR

    b, (gradient, curvature) = 0.0, slope(0.0)
    for _ in range(100):
        step = gradient / curvature
        while abs(slope(b - step)[0]) > abs(gradient):
            step /= 2
        b -= step
        gradient, curvature = slope(b)
        if math.isclose(step, 0, abs_tol=1e-12):
            break
    return b
