"""The training objective and what is logged of it, in float32 whatever the model's dtype."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from rewardline.core.errors import UserError
from rewardline.model.batch import Batch
from rewardline.model.reward_model import RewardModel
from rewardline.model.score_positions import segment_means
from rewardline.training.settings import TrainingSettings


def check_objective(model: RewardModel, training: TrainingSettings, *, max_length: int, eval_pairs: int) -> None:
    """Refuse a training whose model or data cannot give what its settings ask for, before anything is computed.

    Raises:
        UserError: an encoder under a per-token loss, no eval split to normalise by, or no position left for padding.
    """
    loss, limit = training.loss, model.max_tokens
    if loss.startswith("per_token") and not model.is_decoder:
        raise UserError(
            f"training.loss: {loss} needs a decoder; {model.model.config.model_type} is an encoder, whose head reads "
            "one place. Use pairwise or kwise"
        )
    if training.normalize and not eval_pairs:
        raise UserError("training.normalize: the eval split has no pairs to take mean and spread from; set it to false")
    if limit is not None and max_length > limit:
        raise UserError(
            f"training.score: {model.score_positions.score} needs a position more than the longest sequence has; set "
            f"the model's max_length (now {max_length}) to {limit} or less"
        )


def pair_losses(
    scores: Tensor,
    batch: Batch,
    *,
    label_smoothing: float = 0.0,
    margin: bool = False,
    centering: float = 0.0,
    soft_labels: bool = False,
    values: Tensor | None = None,
) -> Tensor:
    """The loss of every pair, not yet weighted: float32 [P] from `scores` float32 [S].

    Logistic (Bradley-Terry) loss -log sigmoid(z) of z = chosen - rejected - margin.

    `soft_labels`: the label is right with the pair's confidence p, and the loss is the cross entropy
    -p log sigmoid(z) - (1 - p) log sigmoid(-z). `label_smoothing` e: every label is wrong with probability e, so that p
    becomes p (1 - e) + (1 - p) e. `centering` c adds c * (chosen score + rejected score)^2 (Eisenstein et al. 2023,
    arXiv 2312.09244), which keeps the mean score near 0.

    Where the batch compares tokens, z is taken at each pair of them, from the `values` of all tokens float32
    [rows * T], and a pair's loss is the mean over its tokens (DeepSpeed-Chat, Yao et al. 2023, arXiv 2308.01320), which
    run from the first that differs to the end of the longer answer. Behind the end of the shorter answer, its padding
    tokens are read as published. In the corrected form its end token is read, whose value stands for the answer from
    then on: no padding gets a gradient, and the last comparison is that of the two scores.
    """
    target = batch.confidence if soft_labels else torch.ones_like(batch.confidence)
    target = target * (1 - label_smoothing) + (1 - target) * label_smoothing
    shift = batch.margin if margin else torch.zeros_like(batch.margin)
    if batch.compared is None:
        losses = _logistic(scores[batch.chosen] - scores[batch.rejected] - shift, target)
    elif values is None:
        raise ValueError("a batch that compares tokens needs their values")
    else:
        losses = _per_token(values, batch, shift, target)
    if centering:
        losses = losses + centering * (scores[batch.chosen] + scores[batch.rejected]).square()
    return losses


def _per_token(values: Tensor, batch: Batch, shift: Tensor, target: Tensor) -> Tensor:
    compared = batch.compared
    assert compared is not None
    chosen, rejected = values.index_select(0, compared.chosen), values.index_select(0, compared.rejected)
    # A known size spares a GPU the wait for the sum of the lengths.
    shift, target = (x.repeat_interleave(compared.lengths, output_size=len(chosen)) for x in (shift, target))
    return segment_means(_logistic(chosen - rejected - shift, target), compared.lengths)


def _logistic(z: Tensor, target: Tensor) -> Tensor:
    """-target log sigmoid(z) - (1 - target) log sigmoid(-z), finite for all finite z."""
    return F.softplus(-z) + (1 - target) * z


def pair_sums(scores: Tensor, losses: Tensor, batch: Batch) -> Tensor:
    """Sums over the batch's pairs, float64 [7].

    Weight, weighted loss, correct (ties half), chosen, rejected, pairs, and the squares of chosen and rejected.
    """
    chosen, rejected = scores[batch.chosen].detach().double(), scores[batch.rejected].detach().double()
    correct = (chosen > rejected).double() + 0.5 * (chosen == rejected).double()
    columns = [
        batch.weight.double().sum(),
        (losses.detach() * batch.weight).double().sum(),
        correct.sum(),
        chosen.sum(),
        rejected.sum(),
        torch.ones_like(chosen).sum(),
        (chosen.square() + rejected.square()).sum(),
    ]
    return torch.stack(columns)
