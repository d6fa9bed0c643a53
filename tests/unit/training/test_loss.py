"""Scores and losses against slow references: each sequence alone, one token and one pair after the other."""

import itertools
import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from rewardline.model.batch import Batch, collate, sizes_for
from rewardline.model.packing import layout
from rewardline.model.reward_model import RewardModel, scores_of
from rewardline.model.score_positions import Score, ScorePositions, Span
from rewardline.scoring.batch_scorer import score_comparisons
from rewardline.tokens.store import Comparison, ComparisonPair
from rewardline.training.loss import Sums, batch_loss, batch_sums, pair_losses

from support.families import FAMILIES
from support.models import LONGEST, comparisons, random_model
from support.tokens import random_comparison

CPU = torch.device("cpu")
SCORES: tuple[Score, ...] = ("end", "first_padding", "mean")
SPANS: tuple[Span, ...] = ("per_token", "per_token_published")
BATCHINGS: tuple[Literal["shared_prefix", "padded"], ...] = ("shared_prefix", "padded")
OPTIONS: list[dict[str, Any]] = [
    {},
    {"margin": True},
    {"margin": "scale"},
    {"margin": "scale", "label_smoothing": 0.1, "soft_labels": True, "centering": 0.01},
    {"label_smoothing": 0.2},
    {"soft_labels": True},
    {"centering": 0.1},
    {"length_coefficient": 0.7, "margin": True},
    {"margin": True, "label_smoothing": 0.1, "soft_labels": True, "centering": 0.01},
]


def rows(seed: int = 0) -> list[Comparison]:
    """Comparisons with margins and confidences, answers that begin alike, and one that begins with all of the other."""
    rng = np.random.default_rng(seed)
    found = comparisons(seed)
    alike = random_comparison(rng, 4, [6, 3, 5])
    alike.tails[1][:] = alike.tails[0][:3]
    alike.tails[2][:2] = alike.tails[0][:2]
    found.append(alike)
    for row in found:
        for k, pair in enumerate(row.pairs):
            row.pairs[k] = replace(pair, margin=float(rng.random()), confidence=float(rng.uniform(0.5, 1)))
    return found


def batched(family: str, batching: str, score: Score = "end") -> RewardModel:
    model = RewardModel(random_model(family).model, batching, score=score, max_length=LONGEST)  # type: ignore[arg-type]
    assert model.batching == batching
    return model


def full_ids(row: Comparison, tail: int) -> list[int]:
    return [*row.prefix.tolist(), *row.tails[tail].tolist()]


def values_of(model: RewardModel, ids: list[int], pads: int = 0) -> Tensor:
    """The head's value at each token of a sequence alone, and of padding behind it, by plain transformers."""
    tokens = torch.tensor([ids + [0] * pads])
    mask = torch.tensor([[1] * len(ids) + [0] * pads])
    values: Tensor = model.model.score(model.model.base_model(tokens, attention_mask=mask).last_hidden_state)[0, :, 0]
    return values


def plain(family: str) -> RewardModel:
    model = random_model(family)
    model.model.set_attn_implementation("eager")
    return model


def gradient(model: RewardModel) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.fixture(params=[512, 1], ids=["grouped", "long"])
def long(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways in which a comparison's attention is computed."""
    monkeypatch.setattr(layout, "LONG", request.param)


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_each_sequence_alone(family: str, score: Score) -> None:
    reference = plain(family)
    for batching in BATCHINGS:
        model = batched(family, batching, score)
        for row, scores in score_comparisons(model, iter(rows()), device=CPU, pad_id=0, batch_tokens=64):
            for tail, found in enumerate(scores):
                ids = full_ids(row, tail)
                with torch.no_grad():
                    values = values_of(reference, ids, pads=1)
                expected = {
                    "end": values[len(ids) - 1],
                    "first_padding": values[len(ids)],
                    "mean": values[row.answer_start : len(ids)].mean(),
                }
                assert found == pytest.approx(expected[score].item(), abs=1e-5)


@pytest.mark.parametrize("score", SCORES)
def test_places_follow_from_lengths_though_texts_hold_end_and_padding_tokens(score: Score) -> None:
    row = random_comparison(np.random.default_rng(0), 5, [4, 7])
    row.prefix[[0, 3, 4]], row.tails[0][[1, 3]], row.tails[1][[0, 6]] = [2, 0, 2], [0, 2], [0, 2]
    for batching in BATCHINGS:
        model = batched("llama", batching, score)
        batch = collate([row], batching, 0, model.score_positions)
        for tail, found in enumerate(model(batch).tolist()):
            length = len(full_ids(row, tail))
            values = values_of(plain("llama"), full_ids(row, tail), pads=1).tolist()
            start = {"end": length - 1, "first_padding": length, "mean": row.answer_start}[score]
            expected = np.mean(values[start : max(start + 1, length)])
            assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("span", [None, *SPANS])
@pytest.mark.parametrize("score", SCORES)
def test_losses_read_nothing_back_from_the_device(score: Score, span: Span | None) -> None:
    """On the meta device, whose tensors hold no numbers that Python could wait for."""
    meta = torch.device("meta")
    batch = collate(rows(), "shared_prefix", 0, ScorePositions(score, span)).to(meta)
    count = len(batch.ends) if span is None else batch.input_ids.numel()
    values = torch.zeros(count, device=meta, requires_grad=True)
    scores = scores_of(values, batch)
    options = {"margin": True, "soft_labels": True, "label_smoothing": 0.1, "centering": 0.1}
    losses = pair_losses(scores, batch, values=values, **options)  # type: ignore[arg-type]
    assert losses.shape == batch.chosen.shape
    assert batch_sums(scores, batch_loss(losses, scores, batch, None), batch).shape == (len(Sums._fields),)
    torch.autograd.backward((losses * batch.weight).sum())


def log_loss(difference: float, target: float) -> float:
    wrong, right = math.log1p(math.exp(difference)), math.log1p(math.exp(-difference))
    return target * right + (1 - target) * wrong


def slow_loss(chosen: list[float], rejected: list[float], pair: ComparisonPair, **options: Any) -> float:
    """The mean loss over compared values, one after the other."""
    target = pair.confidence if options.get("soft_labels") else 1.0
    smooth = options.get("label_smoothing", 0.0)
    target = target * (1 - smooth) + (1 - target) * smooth
    shift = (pair.margin or 0.0) if options.get("margin") is True else 0.0
    factor = max(0.0, 1.0 if pair.margin is None else pair.margin) if options.get("margin") == "scale" else 1.0
    return factor * sum(log_loss(c - r - shift, target) for c, r in zip(chosen, rejected, strict=True)) / len(chosen)


def divergence(first: list[int], second: list[int]) -> int:
    pairs = itertools.zip_longest(first, second)
    return next(k for k, (one, other) in enumerate(pairs) if one != other)


@pytest.mark.parametrize("span", [None, *SPANS])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "plain")
def test_losses_equal_a_slow_loop_and_their_numerical_gradient(options: dict[str, Any], span: Span | None) -> None:
    for batching in BATCHINGS:
        batch = collate(rows(), batching, 0, ScorePositions("mean", span))
        values = torch.randn(batch.input_ids.numel(), dtype=torch.float64, requires_grad=True)

        def losses(output: Tensor, batch: Batch = batch) -> Tensor:
            scores = scores_of(output, batch)
            return pair_losses(scores, batch, values=output, **options)

        if span is None:  # then a model gives scores, not values
            values = torch.randn(len(batch.ends), dtype=torch.float64, requires_grad=True)
        found = losses(values)
        assert found.tolist() == pytest.approx(slow_losses(values, batch, span, options), abs=1e-6)
        assert torch.autograd.gradcheck(losses, values)


def slow_losses(values: Tensor, batch: Batch, span: Span | None, options: dict[str, Any]) -> list[float]:
    results, first = [], 0
    scores = scores_of(values, batch).tolist()
    for row in rows():
        for pair in row.pairs:
            chosen, rejected = (row.tails[index].tolist() for index in (pair.chosen, pair.rejected))
            read = []
            for index, tail in ((pair.chosen, chosen), (pair.rejected, rejected)):
                sequence = first + index
                if span is None:
                    read.append([scores[sequence]])
                    continue
                start, end = divergence(chosen, rejected), max(len(chosen), len(rejected))
                place = int(batch.ends[sequence]) - len(tail) + 1
                last = end - 1 if span == "per_token_published" else len(tail) - 1
                read.append([values[place + min(t, last)].item() for t in range(start, end)])
            answers = [len(row.prefix) + len(tail) - row.answer_start for tail in (chosen, rejected)]
            lead = options.get("length_coefficient", 0.0) * (math.log(answers[0]) - math.log(answers[1]))
            loss = slow_loss(read[0], read[1], replace(pair, margin=(pair.margin or 0.0) - lead), **options)
            loss += options.get("centering", 0.0) * (scores[first + pair.chosen] + scores[first + pair.rejected]) ** 2
            results.append(loss)
        first += len(row.tails)
    return results


def deepspeed_chat(model: RewardModel, found: list[Comparison], width: int) -> Tensor:
    """What DeepSpeed-Chat computes for a batch: chosen sequences and then rejected ones, all padded to one length.

    Each end is the position of the first padding; the loss of a pair is the mean over the tokens from the first that
    differs to the later of the two ends, and so reads padding of the shorter sequence.
    """
    chosen = [full_ids(row, pair.chosen) for row in found for pair in row.pairs]
    rejected = [full_ids(row, pair.rejected) for row in found for pair in row.pairs]
    ids = torch.zeros(2 * len(chosen), width, dtype=torch.long)
    for place, sequence in enumerate(chosen + rejected):
        ids[place, : len(sequence)] = torch.tensor(sequence)
    mask = (ids != 0).long()
    rewards = model.model.score(model.model.base_model(ids, attention_mask=mask).last_hidden_state)[..., 0]
    losses = []
    for k in range(len(chosen)):
        one, other = ids[k], ids[len(chosen) + k]
        ends = [int((row == 0).nonzero()[0]) if (row == 0).any() else width for row in (one, other)]
        span = slice(int((one != other).nonzero()[0]), max(ends))
        losses.append(-torch.nn.functional.logsigmoid(rewards[k, span] - rewards[len(chosen) + k, span]).mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("family", FAMILIES)
def test_published_per_token_loss_is_that_of_deepspeed_chat(family: str) -> None:
    reference = plain(family)
    expected = deepspeed_chat(reference, rows(), 32)
    torch.autograd.backward(expected)
    for batching in BATCHINGS:
        model = batched(family, batching)
        batch = collate(rows(), model.batching, 0, replace_span(model.score_positions, "per_token_published"))
        output = model(batch)
        loss = pair_losses(scores_of(output, batch), batch, values=output).mean()
        torch.autograd.backward(loss)
        assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
        assert (gradient(model) - gradient(reference)).norm() / gradient(reference).norm() < 1e-5


def replace_span(reading: ScorePositions, span: Span | None) -> ScorePositions:
    return ScorePositions(reading.score, span, reading.pad_position)


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("span", [None, *SPANS])
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "opt"])
def test_packed_rows_give_the_losses_and_gradients_of_padded_ones(family: str, score: Score, span: Span | None) -> None:
    found = []
    for batching in BATCHINGS:
        model = batched(family, batching, score)
        batch = collate(rows(), model.batching, 0, replace_span(model.score_positions, span))
        output = model(batch)
        loss = pair_losses(scores_of(output, batch), batch, values=output, centering=0.01).mean()
        torch.autograd.backward(loss)
        found.append((scores_of(output, batch).detach(), loss.item(), gradient(model)))
    one, other = found
    assert torch.allclose(one[0], other[0], atol=1e-5, rtol=0)
    assert abs(one[1] - other[1]) < 1e-6
    assert (one[2] - other[2]).norm() / other[2].norm() < 1e-5


def test_corrected_per_token_loss_gives_padding_no_gradient_and_ends_at_the_scores() -> None:
    row = random_comparison(np.random.default_rng(0), 3, [2, 6])
    batch = collate([row], "padded", 0, ScorePositions("end", "per_token"))
    values = torch.randn(batch.input_ids.numel(), dtype=torch.float64, requires_grad=True)
    torch.autograd.backward(pair_losses(scores_of(values, batch), batch, values=values).sum())
    assert values.grad is not None
    assert batch.attention_mask is not None
    assert not values.grad[batch.attention_mask.flatten() == 0].any()
    assert values.grad[batch.ends].all(), "both end tokens are trained"
    assert batch.compared is not None
    assert [batch.compared.chosen[-1], batch.compared.rejected[-1]] == batch.ends.tolist()


def test_scores_do_not_change_by_padding_that_stands_beside_them() -> None:
    """No other token attends to padding that a per-token loss reads."""
    model = batched("llama", "shared_prefix")
    alone = model(collate(rows(), "shared_prefix", 0, model.score_positions))
    batch = collate(rows(), "shared_prefix", 0, replace_span(model.score_positions, "per_token_published"))
    assert torch.allclose(alone, scores_of(model(batch), batch), atol=1e-6)
    changed = batch.input_ids.clone()
    changed[batch.input_ids == 0] = 7
    batch.input_ids = changed
    assert torch.allclose(alone, scores_of(model(batch), batch), atol=1e-6)


@pytest.mark.parametrize("span", [None, *SPANS])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loss_is_float32_whatever_the_models_dtype(dtype: torch.dtype, span: Span | None) -> None:
    model = batched("llama", "shared_prefix")
    model.model.to(dtype)
    batch = collate(rows(), "shared_prefix", 0, replace_span(model.score_positions, span))
    output = model(batch)
    losses = pair_losses(scores_of(output, batch), batch, values=output)
    assert output.dtype == losses.dtype == torch.float32
    torch.autograd.backward(losses.mean())
    assert torch.isfinite(gradient(model)).all()


@pytest.mark.parametrize("span", [None, *SPANS])
@pytest.mark.parametrize("score", SCORES)
def test_sizes_count_all_that_is_computed(tmp_path: Any, score: Score, span: Span | None) -> None:
    from rewardline.tokens.store import TokenDataset

    from support.tokens import write_tokens

    write_tokens(tmp_path / "t", rows(), [])
    data = TokenDataset(tmp_path / "t", "train")
    reading = ScorePositions(score, span)
    for batching in BATCHINGS:
        sizes = sizes_for(data, batching, reading)
        for index in range(len(data)):
            computed = collate([data[index]], batching, 0, reading).input_ids.numel()
            exact = span != "per_token_published" or (len(data[index].tails) == 2 and score != "first_padding")
            assert sizes[index] == computed if exact else sizes[index] >= computed


def test_extreme_scores_have_a_finite_loss_with_soft_labels() -> None:
    batch = collate(rows()[:1], "padded", 0)
    batch.confidence = torch.tensor([0.75])
    for high, expected in ((1e4, 0.25 * 2e4), (-1e4, 0.75 * 2e4)):
        assert pair_losses(torch.tensor([high, -high]), batch, soft_labels=True).tolist() == [expected]


@pytest.mark.parametrize("margin", [None, 0.0, 3.0, -2.0])
def test_a_scaled_loss_counts_a_pair_by_its_margin_and_one_without_once(margin: float | None) -> None:
    row = rows()[0]
    row = replace(row, pairs=[replace(row.pairs[0], margin=margin)])
    batch = collate([row], "padded", 0, ScorePositions("end"))
    scores = torch.randn(len(batch.ends), dtype=torch.float64, requires_grad=True)
    (plain,) = pair_losses(scores, batch)
    (scaled,) = pair_losses(scores, batch, margin="scale")
    factor = {None: 1.0, -2.0: 0.0}.get(margin, margin)
    assert scaled.item() == pytest.approx(factor * plain.item(), rel=1e-6)
