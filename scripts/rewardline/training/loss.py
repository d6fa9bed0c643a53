"""The training objective and the sums for the log, in float32 whatever the model's dtype."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from rewardline.model.batch import Batch
from rewardline.model.score_positions import ComparedTokens, segment_means


def pair_losses(
    scores: Tensor,
    batch: Batch,
    *,
    label_smoothing: float = 0.0,
    margin: Literal[False, True, "scale"] = False,
    centering: float = 0.0,
    soft_labels: bool = False,
    length_coefficient: float = 0.0,
    values: Tensor | None = None,
) -> Tensor:
    """The loss of every pair, not yet weighted: float32 [P] from `scores` float32 [S].

    Logistic (Bradley-Terry) loss -log sigmoid(z) of z = chosen - rejected - margin; with `margin` "scale", the margin
    is not subtracted but multiplies the loss (HelpSteer2-Preference, Wang et al. 2024, arXiv 2410.01257).

    `soft_labels`: the label is right with the pair's confidence p, and the loss is the cross entropy
    -p log sigmoid(z) - (1 - p) log sigmoid(-z). `label_smoothing` e: every label is wrong with probability e, so that p
    becomes p (1 - e) + (1 - p) e. `centering` c adds c * (chosen score + rejected score)^2 (Eisenstein et al. 2023,
    arXiv 2312.09244), which keeps the mean score near 0. `length_coefficient` b adds b * log(chosen tokens / rejected
    tokens) to z, see `length_control`.

    Where the batch compares tokens, z is taken at each pair of them, from the `values` of all tokens float32
    [rows * T], and a pair's loss is the mean over its tokens (DeepSpeed-Chat, Yao et al. 2023, arXiv 2308.01320), which
    run from the first that differs to the end of the longer answer. After the end of the shorter answer, its padding
    tokens are read as published. In the corrected form its end token is read, whose value represents the answer from
    then on: no padding gets a gradient, and the last comparison is that of the two scores.
    """
    target = batch.confidence if soft_labels else torch.ones_like(batch.confidence)
    target = target * (1 - label_smoothing) + (1 - target) * label_smoothing
    shift = batch.margin if margin is True else torch.zeros_like(batch.margin)
    if length_coefficient:
        shift = shift - length_coefficient * batch.length_lead
    if batch.compared is None:
        losses = _logistic(scores[batch.chosen] - scores[batch.rejected] - shift, target)
    elif values is None:
        raise ValueError("a batch that compares tokens needs their values")
    else:
        losses = _per_token(values, batch.compared, shift, target)
    if margin == "scale":
        losses = losses * batch.strength
    if centering:
        losses = losses + centering * (scores[batch.chosen] + scores[batch.rejected]).square()
    return losses


def _per_token(values: Tensor, compared: ComparedTokens, shift: Tensor, target: Tensor) -> Tensor:
    chosen, rejected = values.index_select(0, compared.chosen), values.index_select(0, compared.rejected)
    # A known size spares a GPU the wait for the sum of the lengths.
    shift, target = (x.repeat_interleave(compared.lengths, output_size=len(chosen)) for x in (shift, target))
    return segment_means(_logistic(chosen - rejected - shift, target), compared.lengths)


def _logistic(z: Tensor, target: Tensor) -> Tensor:
    """-target log sigmoid(z) - (1 - target) log sigmoid(-z), finite for all finite z."""
    return F.softplus(-z) + (1 - target) * z


class Sums(NamedTuple):
    """Sums over pairs, for the means in the log; `correct` counts ties half.

    `squares`: of the scores of chosen and rejected; `full_tokens`: tokens of chosen and rejected in full, `tokens`:
    those that were computed, without padding; `router_loss`: that of their micro batch, by the weight of the pair.
    """

    weight: float
    weighted_loss: float
    correct: float
    chosen: float
    rejected: float
    pairs: float
    squares: float
    full_tokens: float
    tokens: float
    router_loss: float

    @property
    def loss(self) -> float:
        """The mean loss of the pairs by their weight."""
        return self.weighted_loss / self.weight


def batch_sums(scores: Tensor, losses: Tensor, batch: Batch, router_loss: Tensor | None = None) -> Tensor:
    """The `Sums` of a micro batch, float64 [10] on its device."""
    chosen, rejected = scores[batch.chosen].detach().double(), scores[batch.rejected].detach().double()
    correct = (chosen > rejected).double() + 0.5 * (chosen == rejected).double()
    pairs = torch.ones_like(chosen).sum()
    sums = {
        "weight": batch.weight.double().sum(),
        "weighted_loss": (losses.detach() * batch.weight).double().sum(),
        "correct": correct.sum(),
        "chosen": chosen.sum(),
        "rejected": rejected.sum(),
        "pairs": pairs,
        "squares": (chosen.square() + rejected.square()).sum(),
        "full_tokens": torch.full_like(pairs, batch.full_tokens),
        "tokens": torch.full_like(pairs, batch.tokens),
        "router_loss": torch.zeros_like(pairs)
        if router_loss is None
        else router_loss.detach() * batch.weight.double().sum(),
    }
    return torch.stack([sums[name] for name in Sums._fields])
