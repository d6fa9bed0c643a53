"""Scores without what length alone explains of the labels.

A logistic regression of the labels on length, with one coefficient, is fitted on the training pairs before the first
step. Its logit is added to the score difference of each pair in the loss, and to no score: what length explains is
no longer left for the model to learn. This is training on the residual of a model that sees the bias alone (He et al.
2019, arXiv 1908.10763; a product of experts in Clark et al. 2019, arXiv 1909.03683); the term in length is that of
length-controlled win rates (Dubois et al. 2024, arXiv 2404.04475), with the logarithm in place of a bounded function.
"""

import numpy as np
import numpy.typing as npt
import torch

from rewardline.tokens.store import TokenDataset
from rewardline.training.loss import fit_logistic

Values = npt.NDArray[np.float64]
PRIOR = 1e-3
"""Precision of the coefficient's normal prior, for each pair: it is finite where length tells all labels."""


def length_coefficient(data: TokenDataset) -> float:
    """The coefficient of log(tokens of the chosen answer / tokens of the rejected one) in the logit of the label."""
    pairs = data.answer_lengths()
    return fit(np.log(pairs.chosen / pairs.rejected), pairs.weight, pairs.confidence)


def fit(leads: Values, weights: Values, confidences: Values) -> float:
    """The coefficient of `fit_logistic`; 0 without any pair that counts.

    Args:
        leads, weights, confidences: x, the weight and the target of each pair, float64 [P].
    """
    if not weights.sum():
        return 0.0
    x, weight, target = map(
        torch.tensor, (leads[:, None], weights, confidences)
    )  # copies, as Arrow's values are read-only
    return float(fit_logistic(x, weight, target, PRIOR))
