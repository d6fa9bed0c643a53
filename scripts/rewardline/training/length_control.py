"""Scores that do not follow the length of answers.

With x = log(tokens of the chosen answer / tokens of the rejected one) and d the score difference of a pair, the loss is
the logistic loss of d + b x and a penalty on the slope c = E[d x] / E[x²] of d on x:

    E[-log sigmoid(d + b x)] + STRENGTH / 2 * c² E[x²]

The means are over pairs by weight; swapping the answers of a pair changes neither. b x is what length says about the
label, and is in no score. The second term is STRENGTH / 2 times what x explains of the mean of d². b is learned along
with the scores, so that a slope of 0 costs no likelihood, and the minimum has it whatever STRENGTH is.

This is ODIN (Chen et al. 2024, arXiv 2402.07319), which trains two heads, for length and quality, on their sum, with a
penalty on the correlation of the latter with length; here the one for length is b. Fixed at what length alone says of
the labels, as in training on the residual of a biased model (He et al. 2019, arXiv 1908.10763), b would be too small
wherever quality says something too, and the scores would take up the rest. Length-controlled win rates (Dubois et al.
2024, arXiv 2404.04475) use a bounded function in place of the logarithm.

The gradient of the penalty is that of STRENGTH * c * E[d x] with c as a constant. c is taken from the steps before, so
that it depends neither on micro batches nor on the pairs that it is multiplied with.
"""

import math
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel
from torch import Tensor

from rewardline.model.batch import Batch
from rewardline.tokens.store import TokenDataset
from rewardline.training.loss import fit_logistic

Values = npt.NDArray[np.float64]
PRIOR = 1e-3
"""Precision of the coefficient's normal prior, for each pair: it is finite where length tells all labels."""
STRENGTH = 0.3
"""Of the penalty. In simulated runs of 1,000 to 16,000 pairs, 8 to 256 a step, a planted bias of .8 that is no quality
leaves a slope within .05 of 0 on average. From 1 on, it varies more at high learning rates, as c is of past steps."""
PAIRS = 128
"""How many pairs back c looks, in the sense of an exponential mean; b changes by as many."""


class LengthControl(BaseModel):
    """The state of length control, which is updated after each step and is part of a checkpoint.

    `coefficient`: b; `products`, `squares`: sums of d x and of x² over the pairs so far, each by its weight and the
    less the more pairs came after it; `horizon`: the sum of the weights of `PAIRS` pairs.
    """

    coefficient: float
    products: float = 0.0
    squares: float
    horizon: float

    @classmethod
    def start(cls, data: TokenDataset, mean_weight: float) -> Self:
        """Before the first step: b is that of the labels alone; no slope. `mean_weight`: that of a pair in a step."""
        pairs = data.answer_lengths()
        leads = np.log(pairs.chosen / pairs.rejected)
        weight = max(float(pairs.weight.sum()), math.ulp(0))
        mean_square, horizon = float(pairs.weight @ leads**2) / weight, PAIRS * mean_weight
        coefficient = fit(leads, pairs.weight, pairs.confidence)
        return cls(coefficient=coefficient, squares=horizon * (mean_square + 4 * PRIOR), horizon=horizon)

    @property
    def slope(self) -> float:
        """c, in the score's unit for e times as many tokens; shrunk by `PRIOR` where lengths hardly differ."""
        return self.products / self.squares

    def update(self, weight: float, gradient: float, products: float, squares: float) -> None:
        """Count the pairs of a step, of all processes, and change b; for the arguments, see `step_sums`.

        b takes a step of Newton's method with x² / 4 as curvature, which is the most that a logistic loss has.
        """
        kept = math.exp(-weight / self.horizon)
        self.products = kept * self.products + products
        self.squares = kept * self.squares + squares + 4 * PRIOR * weight
        self.coefficient -= 4 * (gradient + PRIOR * weight * self.coefficient) / self.squares


def _weights(batch: Batch, margin: Literal[False, True, "scale"]) -> Tensor:
    """What each pair counts, float32 [P]."""
    return batch.weight * batch.strength if margin == "scale" else batch.weight


def step_sums(
    scores: Tensor, losses: Tensor, coefficient: Tensor, batch: Batch, margin: Literal[False, True, "scale"]
) -> Tensor:
    """Sums over the pairs of a micro batch by weight, float64 [4]: of 1, the derivative of the loss by b, d x and x².

    Args:
        scores: float32 [S].
        losses: float32 [P], which depend on b, the `coefficient`.
        margin: that of the losses; with "scale" it is a part of the weight.
    """
    (gradient,) = torch.autograd.grad((losses * batch.weight).sum(), coefficient, retain_graph=True)
    weight = _weights(batch, margin).double()
    x, d = batch.length_lead.double(), (scores[batch.chosen] - scores[batch.rejected]).detach().double()
    return torch.stack([weight.sum(), gradient.double(), (weight * d * x).sum(), (weight * x.square()).sum()])


def slope_penalty(scores: Tensor, batch: Batch, slope: float, margin: Literal[False, True, "scale"]) -> Tensor:
    """What has the penalty's gradient: `STRENGTH` * c * the sum of d x over the pairs by weight, see `step_sums`."""
    difference = scores[batch.chosen] - scores[batch.rejected]
    return STRENGTH * slope * (_weights(batch, margin) * batch.length_lead * difference).sum()


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
