"""The training objective and the sums for the log, in float32 whatever the model's dtype."""

import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from rewardline.core.errors import UserError
from rewardline.core.settings import JsonObject
from rewardline.model.batch import Batch
from rewardline.model.score_positions import ComparedTokens, segment_means
from rewardline.training.settings import ObjectiveSettings

NEWTON_STEPS, TOLERANCE = 25, 1e-9


def pair_losses(
    scores: Tensor,
    batch: Batch,
    *,
    label_smoothing: float = 0.0,
    margin: Literal[False, True, "scale"] = False,
    centering: float = 0.0,
    soft_labels: bool = False,
    length_coefficient: Tensor | None = None,
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
    if length_coefficient is not None:
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


def fit_logistic(
    x: Tensor, weight: Tensor, target: Tensor, ridge: float, total: Callable[[Tensor], Tensor] = lambda part: part
) -> Tensor:
    """The coefficients b, float64 [A], of a logistic regression without an intercept, by Newton's method.

    They minimize the weighted sum of -target log sigmoid(x b) - (1 - target) log sigmoid(-x b), and `ridge` / 2 times
    the sum of squares of b for each pair, which keeps them finite.

    Args:
        x: float64 [P, A].
        weight, target: float64 [P]; the weights are not all 0.
        total: the sum of a tensor over all processes that have a part of the pairs.
    """
    penalty = ridge * float(total(weight.sum()))
    fitted = x.new_zeros(x.shape[1])

    def loss(of: Tensor) -> float:
        return float(total((weight * _logistic(x @ of, target)).sum()) + penalty / 2 * of.square().sum())

    for _ in range(NEWTON_STEPS):
        probability = torch.sigmoid(x @ fitted)
        gradient = total(x.T @ (weight * (probability - target)))
        curvature = total((x * (weight * probability * (1 - probability))[:, None]).T @ x)
        penalties = penalty * torch.eye(len(fitted), dtype=x.dtype, device=x.device)
        change = torch.linalg.solve(curvature + penalties, gradient + penalty * fitted)
        while change.abs().max() > TOLERANCE and loss(fitted - change) > loss(fitted):
            change = change / 2  # a full step may go too far where pairs are wrong by much
        fitted = fitted - change
    return fitted


class Targets(NamedTuple):
    """What the ratings of single answers are compared with, by the training answers; see `answer_losses`.

    `mean` and `std` of each of the `names`, by which it is standardized; of an ordinal rating its `levels`, ascending,
    and the `thresholds` between them; of a binary one the two values that mean bad and good. `pair_weight` and
    `answer_weight`: those of the losses of a pair and of a single answer.
    """

    type: Literal["binary", "ordinal", "regression"]
    names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    levels: tuple[float, ...] = ()
    thresholds: tuple[float, ...] = ()
    pair_weight: float = 1.0
    answer_weight: float = 1.0

    def as_json(self) -> JsonObject:
        """As JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self._asdict().items()}


MOST_LEVELS = 20
"""Of an ordinal rating."""


def targets_of(objective: ObjectiveSettings, ratings: Mapping[str, npt.NDArray[np.float64]], where: str) -> Targets:
    """The targets of an objective, from all values of each rating of the training answers, float64 [n].

    The threshold above a level is the score at which a level above it has the probability that it has among the
    training answers: minus the log odds of that share.

    Raises:
        UserError: no answer has a rating, all have the same value, or its values are not of the objective's type.
    """
    for name in objective.names:
        if name not in ratings:
            known = ", ".join(sorted(ratings)) or "no single answers with ratings"
            raise UserError(f"training.objective: no training answer of {where} has a rating {name}; it has {known}")
        low, high = float(ratings[name].min()), float(ratings[name].max())
        if low == high:
            raise UserError(
                f"training.objective: {name} is {low:g} in all {len(ratings[name]):,} training answers of {where}; "
                "there is nothing to learn from a constant"
            )
        if objective.type == "binary" and not (low >= -1 and high <= 1):
            raise UserError(
                f"training.objective: {name} is from {low:g} to {high:g} in {where}; a binary rating is from 0 to 1, "
                "or from -1 to 1. Use type: ordinal or regression, or state the `scale` of its dataset"
            )
    values = [ratings[name] for name in objective.names]
    mean, std = (tuple(float(function(one)) for one in values) for function in (np.mean, np.std))
    targets = Targets(
        objective.type, tuple(objective.names), mean, std,
        pair_weight=objective.pair_weight if objective.trains_pairs else 0.0, answer_weight=objective.answer_weight,
    )  # fmt: skip
    if objective.type == "binary":  # from -1 to 1 as from 0 to 1
        low = -1.0 if values[0].min() < 0 else 0.0
        return targets._replace(levels=(low, 1.0))
    if objective.type != "ordinal":
        return targets
    levels, counts = np.unique(values[0], return_counts=True)
    if len(levels) > MOST_LEVELS:
        raise UserError(
            f"training.objective: {objective.rating} has {len(levels):,} different values in {where}, more than "
            f"{MOST_LEVELS} levels; use type: regression with attributes: [{objective.rating}]"
        )
    above = 1 - np.cumsum(counts)[:-1] / counts.sum()
    thresholds = tuple((-np.log(above / (1 - above))).tolist())
    return targets._replace(levels=tuple(levels.tolist()), thresholds=thresholds)


def answer_losses(outputs: Tensor, ratings: Tensor, targets: Targets) -> Tensor:
    """The loss of every single answer, not yet weighted: float32 [N]; 0 for one without a rating.

    `ratings`: float32 [N, number of names], NaN where one is missing. `outputs`: the scores float32 [N] or, of a
    regression, the attributes float32 [N, number of names].

    Binary: the cross-entropy of the rating y in [0, 1], whose log odds are the score. Ordinal: the cross-entropy of the
    level under the proportional-odds model (McCullagh 1980), in which P(level > k) = sigmoid(score - threshold k).
    Regression: the mean over the ratings that are there of the squared error of the standardized rating.
    """
    known = torch.isfinite(ratings)
    if targets.type == "regression":
        mean, std = (ratings.new_tensor(values) for values in (targets.mean, targets.std))
        errors = torch.where(known, outputs - (ratings - mean) / std, 0.0)
        return errors.square().sum(1) / known.sum(1).clamp(min=1)
    rating, is_known = ratings[:, 0].nan_to_num(), known[:, 0]
    if targets.type == "binary":
        low, high = targets.levels
        losses = _logistic(outputs, ((rating - low) / (high - low)).clamp(0, 1))
    else:
        levels, thresholds = rating.new_tensor(targets.levels), rating.new_tensor(targets.thresholds)
        level = torch.bucketize(rating, (levels[1:] + levels[:-1]) / 2)
        # P = sigmoid(above) - sigmoid(below) = sigmoid(above) sigmoid(-below) (1 - exp(below - above)), where the last
        # factor depends on the level alone, and is 1 for the lowest and the highest.
        above = outputs - thresholds[(level - 1).clamp(min=0)]
        below = outputs - thresholds[level.clamp(max=len(thresholds) - 1)]
        between = -torch.log(-torch.expm1(thresholds[:-1] - thresholds[1:]))
        between = torch.cat([between.new_zeros(1), between, between.new_zeros(1)])
        losses = torch.where(level > 0, F.softplus(-above), 0.0) + between[level]
        losses = losses + torch.where(level < len(thresholds), F.softplus(below), 0.0)
    return torch.where(is_known, losses, 0.0)


class Sums(NamedTuple):
    """Sums over pairs, for the means in the log; `correct` counts ties half.

    `weight`, `weighted_loss`: of single answers with ratings too, of which there are `answers`; `answer_weight` and
    `answer_loss`: of these alone, the latter without the weight of the objective. `squares`: of the scores of chosen
    and rejected; `full_tokens`: tokens of chosen and rejected in full, `tokens`: those that were
    computed, without padding; `router_loss`: that of their micro batch, by the weight of the pair.
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
    answers: float = 0.0
    answer_weight: float = 0.0
    answer_loss: float = 0.0

    def of_pairs(self, total: float) -> float | None:
        """The mean of a sum over pairs; None without any."""
        return total / self.pairs if self.pairs else None

    @property
    def loss(self) -> float:
        """The mean loss of the pairs and the single answers by their weight."""
        return self.weighted_loss / self.weight if self.weight else math.nan


class BatchLoss(NamedTuple):
    """The losses of a micro batch: of each pair float32 [P], and of each single answer with ratings float32 [N].

    `pair_weight`, `answer_weight`: the weights of the objective.
    """

    pairs: Tensor
    answers: Tensor
    pair_weight: float = 1.0
    answer_weight: float = 1.0

    def total(self, batch: Batch) -> Tensor:
        """The sum that is trained on, each loss by its weight in the data and in the objective."""
        total = (self.pairs * batch.weight).sum()
        if not len(self.answers):
            return total if self.pair_weight == 1 else self.pair_weight * total
        return self.pair_weight * total + self.answer_weight * (self.answers * batch.rated_weight).sum()


def batch_loss(pairs: Tensor, output: Tensor, batch: Batch, targets: Targets | None) -> BatchLoss:
    """The losses of a batch, from those of its pairs float32 [P] and the model's `output` for it.

    `output`: float32 [S], or [S, 1 + attributes] as `RewardModel` gives it.
    """
    if targets is None:
        return BatchLoss(pairs, pairs.new_zeros(0))
    read = output.index_select(0, batch.rated)
    answers = answer_losses(read[:, 1:] if read.ndim > 1 else read, batch.ratings, targets)
    return BatchLoss(pairs, answers, targets.pair_weight, targets.answer_weight)


def batch_sums(scores: Tensor, losses: BatchLoss, batch: Batch, router_loss: Tensor | None = None) -> Tensor:
    """The `Sums` of a micro batch, float64 [13] on its device."""
    chosen, rejected = scores[batch.chosen].detach().double(), scores[batch.rejected].detach().double()
    correct = (chosen > rejected).double() + 0.5 * (chosen == rejected).double()
    pairs = torch.ones_like(chosen).sum()
    weight, weighted_loss = batch.weight.double().sum(), (losses.pairs.detach() * batch.weight).double().sum()
    answer_weight = answer_loss = torch.zeros_like(weight)
    if len(losses.answers):
        answer_weight = batch.rated_weight.double().sum()
        answer_loss = (losses.answers.detach() * batch.rated_weight).double().sum()
    sums = {
        "weight": weight * (losses.pair_weight > 0) + answer_weight,
        "weighted_loss": losses.pair_weight * weighted_loss + losses.answer_weight * answer_loss,
        "correct": correct.sum(),
        "chosen": chosen.sum(),
        "rejected": rejected.sum(),
        "pairs": pairs,
        "squares": (chosen.square() + rejected.square()).sum(),
        "full_tokens": torch.full_like(pairs, batch.full_tokens),
        "tokens": torch.full_like(pairs, batch.tokens),
        "router_loss": torch.zeros_like(pairs)
        if router_loss is None
        else router_loss.detach() * (weight * (losses.pair_weight > 0) + answer_weight),
        "answers": torch.full_like(pairs, len(losses.answers)),
        "answer_weight": answer_weight,
        "answer_loss": answer_loss,
    }
    return torch.stack([sums[name] for name in Sums._fields])
