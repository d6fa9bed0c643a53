import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rewardline.core.errors import UserError
from rewardline.model.batch import Batch, collate
from rewardline.model.reward_model import RewardModel
from rewardline.model.score_positions import Score
from rewardline.tokens.store import TokenDataset
from rewardline.training.loss import Sums, batch_loss, batch_sums, pair_losses
from rewardline.training.schedule import learning_rate
from rewardline.training.train import check_examples, check_objective

from support.models import encoder, random_model
from support.tokens import random_comparison, write_tokens
from support.training_runs import training_settings


def batch_of(pairs: int) -> Batch:
    rng = np.random.default_rng(0)
    batch = collate([random_comparison(rng, 2, [2, 3]) for _ in range(pairs)], "padded", 0)
    batch.margin = torch.from_numpy(rng.random(pairs).astype(np.float32))
    return batch


@pytest.mark.parametrize(
    "options", [{}, {"label_smoothing": 0.1}, {"margin": True}, {"centering": 0.01}, {"margin": True, "centering": 1.0}]
)
def test_loss_equals_a_plain_computation_and_its_numerical_gradient(options: dict[str, float]) -> None:
    batch = batch_of(6)
    scores = torch.randn(12, dtype=torch.float64, requires_grad=True)
    losses = pair_losses(scores, batch, **options)  # type: ignore[arg-type]
    for k, loss in enumerate(losses.tolist()):
        chosen, rejected = scores[2 * k].item(), scores[2 * k + 1].item()
        gap = chosen - rejected - (batch.margin[k].item() if options.get("margin") else 0.0)
        smooth = options.get("label_smoothing", 0.0)
        expected = (1 - smooth) * math.log1p(math.exp(-gap)) + smooth * math.log1p(math.exp(gap))
        expected += options.get("centering", 0.0) * (chosen + rejected) ** 2
        assert loss == pytest.approx(expected, abs=1e-7)
    assert torch.autograd.gradcheck(lambda s: pair_losses(s, batch, **options), scores)  # type: ignore[arg-type]


def test_loss_is_finite_for_extreme_scores() -> None:
    batch = batch_of(2)
    losses = pair_losses(torch.tensor([1e4, -1e4, -1e4, 1e4]), batch)
    assert losses.tolist() == [0.0, 2e4]


@pytest.mark.parametrize(
    ("family", "score", "training", "max_length", "message"),
    [
        ("gpt2", "first_padding", {}, 1024, r"max_length \(now 1024\) to 1023 or less"),
        ("gpt2", "first_padding", {}, 1023, None),
        ("gpt2", "mean", {}, 1024, None),
        ("opt", "first_padding", {}, 128, None),
        ("gpt2", "end", {"normalize": True}, 1024, "training.normalize: the eval split has no pairs"),
        ("bert", "end", {"loss": "per_token"}, 512, "training.loss: per_token needs a decoder; bert is an encoder"),
        ("bert", "mean", {}, 512, "training.score: mean needs a decoder"),
        ("bert", "end", {"loss": "kwise"}, 512, None),
    ],
)
def test_what_the_model_or_the_data_cannot_give_is_refused(
    family: str, score: Score, training: dict[str, object], max_length: int, message: str | None
) -> None:
    def check() -> None:
        model = RewardModel(encoder("bert") if family == "bert" else random_model(family).model, score=score)
        check_objective(model, training_settings(**training), max_length=max_length, eval_pairs=0)

    if message is None:
        check()
    else:
        with pytest.raises(UserError, match=message):
            check()


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_pairs_without_weight_by_their_margin_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fraction: float
) -> None:
    margins = [None, 2.0, 0.0, -1.5] * 8
    rows = [random_comparison(np.random.default_rng(k), 2, [2, 3]) for k in range(len(margins))]
    rows = [replace(row, pairs=[replace(row.pairs[0], margin=one)]) for row, one in zip(rows, margins, strict=True)]
    write_tokens(tmp_path / "some", rows, [])
    data = TokenDataset(tmp_path / "some", "train", fraction)
    count = sum(pair.margin is not None and pair.margin <= 0 for k in range(len(data)) for pair in data[k].pairs)
    assert 0 < count < data.pairs
    for margin in (False, True, "scale"):
        caplog.clear()
        check_examples(training_settings(margin=margin), data, "m")
        found = [f"{count} of {data.pairs} training pairs have a margin of 0" in text for text in caplog.messages]
        assert found == [True] * (margin == "scale")
    write_tokens(tmp_path / "none", [row for row in rows if row.pairs[0].margin == 0], [])
    with pytest.raises(UserError, match=r"training\.margin: no pair of m has a margin above 0"):
        check_examples(training_settings(margin="scale"), TokenDataset(tmp_path / "none", "train"), "m")


def test_ties_count_half() -> None:
    batch = batch_of(3)
    scores = torch.tensor([1.0, 0.0, 0.5, 0.5, 0.0, 1.0])
    sums = Sums(*batch_sums(scores, batch_loss(pair_losses(scores, batch), scores, batch, None), batch).tolist())
    assert (sums.correct, sums.pairs) == (1.5, 3)
    assert (sums.tokens, sums.full_tokens) == (batch.tokens, batch.full_tokens)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_schedule_warms_up_to_the_peak_and_ends_where_it_should(schedule: str) -> None:
    training = training_settings(learning_rate=1.0, warmup=0.1, schedule=schedule)
    rates = [learning_rate(training, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert max(rates) == rates[10] == 1.0
    assert rates == rates[:10] + sorted(rates[10:], reverse=True)
    assert rates[-1] == 1.0 if schedule == "constant" else rates[-1] < 0.02
    assert learning_rate(training.replace(warmup=4), 1, 100) == 0.5
    assert learning_rate(training.replace(warmup=0), 0, 100) == 1.0
