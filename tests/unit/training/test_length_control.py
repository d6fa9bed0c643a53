"""Length control: what is fitted and its gradients, against references, and what real steps make of a planted bias."""

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from rewardline.model.batch import Batch, collate
from rewardline.model.reward_model import RewardModel
from rewardline.scoring.batch_scorer import score_comparisons
from rewardline.tokens.store import Comparison, ComparisonPair, TokenDataset
from rewardline.training import engine
from rewardline.training.batching import MicroBatchLoader
from rewardline.training.length_control import PRIOR, STRENGTH, LengthControl, fit, slope_penalty, step_sums
from rewardline.training.loss import pair_losses
from rewardline.training.settings import TrainStageSettings
from rewardline.training.step import OptimizerStep

from support.models import comparisons, random_model
from support.tokens import write_tokens
from support.training_runs import training_settings

CPU = torch.device("cpu")


@pytest.mark.parametrize("seed", range(5))
def test_the_coefficient_is_that_of_a_logistic_regression(seed: int) -> None:
    rng = np.random.default_rng(seed)
    leads, weights = rng.normal(scale=rng.uniform(0.1, 5), size=200), rng.uniform(0, 2, 200)
    confidences = rng.uniform(0.5, 1, 200)

    def loss(b: float) -> float:
        z = b * leads
        terms = confidences * np.logaddexp(0, -z) + (1 - confidences) * np.logaddexp(0, z)
        return float(np.average(terms, weights=weights)) + PRIOR * b * b / 2

    assert fit(leads, weights, confidences) == pytest.approx(minimize_scalar(loss, tol=1e-12).x, abs=1e-5)


def test_a_planted_preference_is_found_and_one_without_exceptions_is_finite() -> None:
    rng = np.random.default_rng(0)
    leads = rng.normal(size=20_000)
    longer = rng.random(20_000) < 1 / (1 + np.exp(-1.5 * leads))
    signed = np.where(longer, leads, -leads)
    assert fit(signed, np.ones(20_000), np.ones(20_000)) == pytest.approx(1.5, abs=0.06)
    assert 1 < fit(np.abs(leads), np.ones(20_000), np.ones(20_000)) < 100
    assert fit(np.zeros(3), np.ones(3), np.ones(3)) == 0 == fit(leads[:0], leads[:0], leads[:0])


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_lengths_are_those_of_the_answers_of_each_pair(tmp_path: Path, fraction: float) -> None:
    write_tokens(tmp_path / "x", [row for seed in range(4) for row in comparisons(seed)], [])
    data = TokenDataset(tmp_path / "x", "train", fraction)
    expected = [
        [len(row.prefix) + len(row.tails[tail]) - row.answer_start for tail in (pair.chosen, pair.rejected)]
        for row in (data[k] for k in range(len(data)))
        for pair in row.pairs
    ]
    found = data.answer_lengths()
    assert list(map(list, zip(found.chosen, found.rejected, strict=True))) == expected
    assert len(found.weight) == data.pairs


def some_batch() -> Batch:
    batch = collate(comparisons(), "padded", 0)
    generator = torch.Generator().manual_seed(0)
    batch.margin, batch.strength, batch.weight, batch.confidence = (
        torch.rand(len(batch.chosen), generator=generator) for _ in range(4)
    )
    return batch


def slope_of(d: np.ndarray, x: np.ndarray, weight: np.ndarray) -> float:
    return float((weight * d * x).sum() / (weight * x * x).sum())


@pytest.mark.parametrize("margin", [False, True, "scale"])
def test_gradients_are_those_of_the_formula(margin: Literal[False, True, "scale"]) -> None:
    """Of the penalty by the scores, where c is that of the same pairs, and of the loss by the coefficient."""
    batch = some_batch()
    values = np.random.default_rng(0).normal(size=int(batch.rejected.max()) + 1)
    weight = (batch.weight * batch.strength if margin == "scale" else batch.weight).double().numpy()
    x, chosen, rejected = batch.length_lead.double().numpy(), batch.chosen.numpy(), batch.rejected.numpy()

    def penalty(scores: np.ndarray) -> float:
        c = slope_of(scores[chosen] - scores[rejected], x, weight)
        return STRENGTH / 2 * c**2 * float((weight * x * x).sum())

    step = 1e-5 * np.eye(len(values))
    expected = [(penalty(values + one) - penalty(values - one)) / 2e-5 for one in step]
    scores = torch.tensor(values, dtype=torch.float32, requires_grad=True)
    c = slope_of(values[chosen] - values[rejected], x, weight)
    slope_penalty(scores, batch, c, margin).backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert scores.grad.tolist() == pytest.approx(expected, abs=1e-6)

    def losses(b: torch.Tensor) -> torch.Tensor:
        options: dict[str, Any] = {"margin": margin, "label_smoothing": 0.1, "soft_labels": True}
        return pair_losses(torch.tensor(values), batch, length_coefficient=b, **options)

    b = torch.tensor(0.7, requires_grad=True)
    total, gradient, products, squares = step_sums(scores, losses(b), b, batch, margin).tolist()
    higher, lower = (float((losses(torch.tensor(v)) * batch.weight).sum()) for v in (0.71, 0.69))
    assert gradient == pytest.approx((higher - lower) / 0.02, rel=3e-4)
    assert (total, products / squares) == pytest.approx((weight.sum(), c), rel=1e-5)


def planted(seed: int, count: int) -> list[tuple[Comparison, float, int]]:
    """Pairs with the log ratio of lengths and the difference in quality, which is the first token's.

    The log odds of a label are .8 times the one and 1.5 times the other.
    """
    rng, rows = np.random.default_rng(seed), []
    for _ in range(count):
        tails = [rng.integers(20, 60, n).astype(np.int32) for n in np.exp(rng.uniform(1, 3.4, 2)).astype(int)]
        quality = rng.integers(0, 4, 2)
        for tail, good in zip(tails, quality.tolist(), strict=True):
            tail[0] = 10 + good
        x, better = math.log(len(tails[0]) / len(tails[1])), int(quality[0] - quality[1])
        chosen = int(rng.random() > 1 / (1 + math.exp(-1.5 * better - 0.8 * x)))
        pair = ComparisonPair(f"{rng.integers(2**60):016x}", "d", "s", chosen, 1 - chosen)
        row = Comparison(f"{rng.integers(2**60):016x}", np.array([5], dtype=np.int32), tails, [pair], 1)
        rows.append((row, x, better))
    return rows


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("size", [8, 16, 64])
def test_a_bias_to_length_that_is_no_quality_leaves_no_length_in_the_scores(tmp_path: Path, size: int) -> None:
    """At about the same accuracy on labels without it."""
    write_tokens(tmp_path / "t", [row for row, _, _ in planted(0, 3000)], [])
    data, test = TokenDataset(tmp_path / "t", "train"), planted(1, 500)
    x, better = (np.array([row[k] for row in test]) for k in (1, 2))
    slopes, accuracies = [], []
    for control in (False, True):
        training = training_settings(
            pairs_per_step=size, learning_rate=3e-3, tokens_per_micro_batch=512, length_control=control
        )
        settings = TrainStageSettings(run="r", mixture="m", model="x", seed=1, training=training)
        model = RewardModel(random_model("llama").model, raw=True, max_length=64)
        torch.nn.init.normal_(model.model.score.weight, std=0.02, generator=torch.Generator().manual_seed(0))
        running = engine.create(model, training, engine.deepspeed_config(training))
        step = OptimizerStep(running, settings, MicroBatchLoader(model, training, data, 0, CPU, objective=True))
        for number, planned in enumerate(step.steps(0)):
            step.take(number, planned, lambda _: None)
        model.eval()
        scores = [found for _, found in score_comparisons(model, [row for row, _, _ in test], device=CPU, pad_id=0)]
        d = np.array([float(one[0] - one[1]) for one in scores])
        slopes.append(slope_of(d, x, np.ones(len(x))))
        accuracies.append(float((d * better > 0)[better != 0].mean()))
    assert slopes[0] > 0.2
    assert abs(slopes[1]) < 0.15
    assert accuracies[1] > accuracies[0] - 0.06


def test_the_coefficient_becomes_that_of_the_labels_given_the_scores() -> None:
    """Also in large steps, with few and with weighted pairs, and without any difference in length."""
    rng = np.random.default_rng(0)
    for pairs, horizon in ((4, 128), (1000, 128)):
        control = LengthControl(coefficient=0.0, squares=horizon * (1 + 4 * PRIOR), horizon=horizon)
        found = []
        for _ in range(8000 // pairs):
            x, d = rng.normal(size=pairs), rng.normal(scale=1.5, size=pairs)
            y = np.where(rng.random(pairs) < 1 / (1 + np.exp(-d - 0.8 * x)), 1, -1)
            gradient = -y * x / (1 + np.exp(y * (d + control.coefficient * x)))
            control.update(pairs, gradient.sum(), float((d * x).sum()), float((x * x).sum()))
            found.append(control.coefficient)
        assert np.mean(found[len(found) // 2 :]) == pytest.approx(0.8, abs=0.1)
        assert abs(control.slope) < 0.4
    control.update(0.0, 0.0, 0.0, 0.0)
    before = control.model_copy()
    for _ in range(100):
        control.update(1e3, 0.0, 0.0, 0.0)
    assert abs(control.coefficient) < abs(before.coefficient) and control.slope == pytest.approx(0)
