"""Objectives of single answers with ratings: their losses against plain references, and their targets."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rewardline.core.errors import UserError
from rewardline.model.batch import collate
from rewardline.tokens.store import RatedAnswer
from rewardline.training.batching import Piece, cut
from rewardline.training.loss import Targets, answer_losses, batch_loss, pair_losses, targets_of
from rewardline.training.settings import ObjectiveSettings

from support.tokens import random_comparison


def objective(**options: Any) -> ObjectiveSettings:
    return ObjectiveSettings.model_validate(options)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


RATINGS = np.array([1.0, 2, 2, 3, 3, 3, 5, 5, 4, 1])
SCORES = [-30.0, -2.5, -0.3, 0.0, 0.7, 3.0, 30.0]


@pytest.mark.parametrize("labels", [(0.0, 1.0, 0.3), (-1.0, 1.0, 0.0)])
def test_binary_loss_is_the_cross_entropy_of_the_score(labels: tuple[float, ...]) -> None:
    targets = targets_of(objective(type="binary"), {"label": np.array(labels)}, "m")
    for score in SCORES[1:-1]:
        for label in labels:
            good = label if min(labels) == 0 else (label + 1) / 2
            expected = -good * math.log(sigmoid(score)) - (1 - good) * math.log(sigmoid(-score))
            (loss,) = answer_losses(torch.tensor([score]), torch.tensor([[label]]), targets).tolist()
            assert loss == pytest.approx(expected, rel=1e-5)


def test_ordinal_loss_is_that_of_proportional_odds_and_the_levels_share_the_probability() -> None:
    targets = targets_of(objective(type="ordinal"), {"label": RATINGS}, "m")
    assert targets.levels == (1, 2, 3, 4, 5)
    above = [float((level < RATINGS).mean()) for level in targets.levels[:-1]]
    assert [sigmoid(-threshold) for threshold in targets.thresholds] == pytest.approx(above)
    for score in SCORES:
        exceeds = [1.0, *(sigmoid(score - threshold) for threshold in targets.thresholds), 0.0]
        losses = answer_losses(
            torch.full((5,), score, dtype=torch.float64), torch.tensor(targets.levels)[:, None].double(), targets
        )
        expected = [high - low for high, low in pairwise(exceeds)]
        assert losses.neg().exp().tolist() == pytest.approx(expected, rel=1e-6, abs=1e-12)
        assert torch.isfinite(losses).all()
        assert losses.neg().exp().sum() == pytest.approx(1.0)


def test_regression_is_the_mean_squared_error_of_the_ratings_that_are_there() -> None:
    rng = np.random.default_rng(0)
    values = {"a": rng.normal(3, 2, 50), "b": rng.normal(-1, 0.5, 40)}
    targets = targets_of(objective(type="regression", attributes=["b", "a"]), values, "m")
    assert targets.mean == pytest.approx((values["b"].mean(), values["a"].mean()))
    outputs = torch.tensor([[0.5, -1.0], [0.2, 2.0], [1.0, 1.0]])
    ratings = torch.tensor([[-1.2, 4.0], [math.nan, 2.5], [math.nan, math.nan]])

    def error(row: int, column: int) -> float:
        mean, std = targets.mean[column], targets.std[column]
        return float((outputs[row, column] - (ratings[row, column] - mean) / std) ** 2)

    expected = [(error(0, 0) + error(0, 1)) / 2, error(1, 1), 0.0]
    assert answer_losses(outputs, ratings, targets).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({"type": "binary"}, {"label": np.array([0.0, 1, 1, 0.25])}),
        ({"type": "ordinal"}, {"label": RATINGS}),
        ({"type": "regression", "attributes": ["label", "b"]}, {"label": RATINGS, "b": RATINGS**2}),
    ],
)
def test_gradients_are_the_numerical_ones(options: Any, values: dict[str, np.ndarray]) -> None:
    targets = targets_of(objective(**options), values, "m")
    columns = len(targets.names)
    rng = np.random.default_rng(1)
    ratings = torch.from_numpy(np.stack([rng.choice(values[name], 12) for name in targets.names], 1)).double()
    ratings[3, 0] = math.nan
    shape = (12, columns) if targets.type == "regression" else (12,)
    outputs = torch.from_numpy(rng.normal(0, 2, shape)).double().requires_grad_()

    def loss(given: Tensor) -> Tensor:
        return answer_losses(given, ratings, targets)

    assert torch.autograd.gradcheck(loss, outputs)


def test_far_scores_have_finite_losses_and_gradients() -> None:
    targets = targets_of(objective(type="ordinal"), {"label": RATINGS}, "m")
    outputs = torch.tensor([-1e4, 1e4, 1e4, -1e4]).requires_grad_()
    losses = answer_losses(outputs, torch.tensor([[1.0], [5.0], [1.0], [5.0]]), targets)
    (gradient,) = torch.autograd.grad(losses.sum(), outputs)
    assert torch.isfinite(losses).all()
    assert losses[:2].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert gradient.tolist() == pytest.approx([0, 0, 1, -1], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "values", "message"),
    [
        ({"type": "binary"}, {}, "no training answer of m has a rating label; it has no single answers"),
        ({"type": "regression", "attributes": ["a", "c"]}, {"a": RATINGS, "b": RATINGS}, "a rating c; it has a, b"),
        ({"type": "regression", "attributes": ["a"]}, {"a": np.full(4, 3.0)}, "a is 3 in all 4 training answers"),
        ({"type": "binary"}, {"label": RATINGS}, "from 1 to 5.*type: ordinal"),
        ({"type": "ordinal"}, {"label": np.arange(50.0)}, "50 different values.*type: regression"),
    ],
)
def test_ratings_that_do_not_fit_are_one_message(options: Any, values: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        targets_of(objective(**options), values, "m")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "regression"}, "attributes"),
        ({"type": "binary", "attributes": ["a"]}, "rating"),
        ({"type": "regression", "attributes": ["a"], "weights": {"b": 1}}, "not of b"),
        ({"type": "regression", "attributes": ["a"], "weights": {"a": 0}}, "other than 0"),
    ],
)
def test_settings_that_do_not_belong_together(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        objective(**options)


def test_pairs_and_answers_add_up_by_their_weights_and_pieces_keep_their_answers() -> None:
    rng = np.random.default_rng(0)
    row = random_comparison(rng, 4, [3, 5, 2])
    answers = [
        RatedAnswer(str(tail), "d", "s", tail, [{"name": "label", "value": float(tail % 2)}], 1.0 + tail)
        for tail in (2, 0, 1)
    ]
    row = replace(row, answers=answers)
    targets = Targets("binary", ("label",), (0.5,), (0.5,), (0.0, 1.0), pair_weight=0.5, answer_weight=2.0)
    batch = collate([random_comparison(rng, 2, [1, 1]), row], "padded", 0, ratings=targets.names)
    assert batch.rated.tolist() == [4, 2, 3]
    scores = torch.tensor([0.1, 0.4, -0.3, 1.2, 0.8])
    losses = batch_loss(pair_losses(scores, batch), scores, batch, targets)
    expected = 0.5 * float((losses.pairs * batch.weight).sum()) + 2.0 * sum(
        weight * (math.log1p(math.exp(score)) - label * score)
        for score, label, weight in ((0.8, 0.0, 3.0), (-0.3, 0.0, 1.0), (1.2, 1.0, 2.0))
    )
    assert float(losses.total(batch)) == pytest.approx(expected, rel=1e-6)
    alone = pair_losses(scores, batch)
    assert torch.equal(batch_loss(alone, scores, batch, None).total(batch), (alone * batch.weight).sum())
    parts = [cut(row, Piece(0, begin, begin + 1)) for begin in range(5)]
    assert [len(part.pairs) for part in parts] == [1, 1, 0, 0, 0]
    assert [part.answers[0].answer_id for part in parts[2:]] == ["2", "0", "1"]
    for part in parts[2:]:
        (answer,) = part.answers
        assert part.tails[answer.tail].tolist() == row.tails[int(answer.answer_id)].tolist()
        assert len(part.tails) == 1
