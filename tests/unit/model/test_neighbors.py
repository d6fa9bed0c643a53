"""A score is that of its row alone in a fresh process, for models that look at the batch too."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from rewardline.core.errors import UserError
from rewardline.model.batch import collate
from rewardline.model.reward_model import RewardModel
from rewardline.scoring.batch_scorer import score_comparisons
from rewardline.tokens.store import Comparison

from support.families import LLAMA
from support.tokens import random_comparison

CPU = torch.device("cpu")
SWITCH = 16
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0, 9.0, 20.0, 50.0]}
CONFIGS: dict[str, dict[str, Any]] = {
    "phi3 longrope": {"model_type": "phi3", "original_max_position_embeddings": SWITCH, "rope_scaling": LONG},
    "llama longrope": {"rope_scaling": {**LONG, "original_max_position_embeddings": SWITCH}},
    "llama dynamic": {"max_position_embeddings": SWITCH, "rope_scaling": {"rope_type": "dynamic", "factor": 4.0}},
    "mixtral": {"model_type": "mixtral", "num_local_experts": 4},
}


def tiny(max_position_embeddings: int = 64, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    values = {**LLAMA, **changes, "max_position_embeddings": max_position_embeddings}
    config = AutoConfig.for_model(values.pop("model_type"), vocab_size=90, num_labels=1, pad_token_id=0, **values)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        model.score.weight.normal_()
    return model


def rows() -> list[Comparison]:
    """Conversations on both sides of the switch, also in one comparison."""
    rng = np.random.default_rng(0)
    shapes = [(4, [2, 3]), (10, [4, 30]), (2, [SWITCH - 2, SWITCH - 1]), (20, [5, 9]), (3, [1, 1]), (9, [20, 40])]
    return [random_comparison(rng, prefix, tails) for prefix, tails in shapes]


def plain_scores(model: PreTrainedModel, comparison: Comparison) -> list[float]:
    """The score of each row alone, by a copy of the model that has computed nothing else."""
    scores = []
    for tail in comparison.tails:
        ids = torch.from_numpy(np.concatenate([comparison.prefix, tail]).astype(np.int64))[None]
        with torch.no_grad():
            scores.append(copy.deepcopy(model)(input_ids=ids).logits.item())
    return scores


def check_scores(plain: PreTrainedModel, model: RewardModel) -> None:
    for order, budget in ((rows(), 10_000), (rows()[::-1], 40)):
        for comparison, found in score_comparisons(model, order, device=CPU, pad_id=0, batch_tokens=budget):
            assert found.tolist() == pytest.approx(plain_scores(plain, comparison), abs=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_scores_are_those_of_rows_alone_on_both_sides_of_a_switch(name: str) -> None:
    plain = tiny(**CONFIGS[name])
    model = RewardModel(copy.deepcopy(plain), max_length=64)
    assert model.alone_above == (None if name == "mixtral" else SWITCH)
    assert model.batching == "shared_prefix"
    check_scores(plain, model)
    if name != "mixtral":
        assert RewardModel(copy.deepcopy(plain), max_length=SWITCH, compares=True).batching == "shared_prefix"


@pytest.mark.parametrize("name", ["phi3 longrope", "llama dynamic"])
@pytest.mark.parametrize("score", ["end", "first_padding", "mean"])
def test_training_learns_from_the_scores_of_rows_alone(name: str, score: Any) -> None:
    model = RewardModel(tiny(**CONFIGS[name]), max_length=64, compares=True, score=score).train()
    alone = copy.deepcopy(model)
    found = model(collate(rows(), model.batching, 0, model.score_positions))
    torch.autograd.backward(found.square().sum())
    expected: list[Tensor] = []
    for comparison in rows():
        for tail in comparison.tails:
            row = Comparison("", comparison.prefix, [tail], [], comparison.answer_start)
            expected.append(alone(collate([row], "padded", 0, model.score_positions)))
            torch.autograd.backward(expected[-1].square().sum())
    assert torch.allclose(found, torch.cat(expected), atol=1e-5, rtol=0)
    for (name, one), (_, other) in zip(model.named_parameters(), alone.named_parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert (one.grad - other.grad).norm() <= 1e-4 * other.grad.norm(), name


class Capacity(nn.Module):
    """Experts that leave out what exceeds their share of the tokens of a batch."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.router = inner, nn.Linear(32, 4, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        expert = self.router(states).argmax(-1).flatten()
        place = nn.functional.one_hot(expert, 4).cumsum(0).gather(1, expert[:, None])[:, 0]
        kept = (place <= len(expert) // 3).view(*states.shape[:2], 1)
        result: Tensor = self.inner(states) * kept
        return result


class BatchMean(Capacity):
    """Statistics of the batch, in evaluation too."""

    def forward(self, states: Tensor) -> Tensor:
        result: Tensor = self.inner(states) - states.mean((0, 1))
        return result


class WidthSwitch(Capacity):
    """Another scale for wide batches, whatever the positions."""

    def forward(self, states: Tensor) -> Tensor:
        result: Tensor = self.inner(states) * (1 if states.shape[1] <= 40 else 3)
        return result


class Normed(Capacity):
    """Batch normalization, with running statistics in evaluation."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.norm = nn.BatchNorm1d(32)

    def forward(self, states: Tensor) -> Tensor:
        result: Tensor = self.norm(self.inner(states).transpose(1, 2)).transpose(1, 2)
        return result


class Counting(Capacity):
    """What it has computed before changes what it computes."""

    calls = 0

    def forward(self, states: Tensor) -> Tensor:
        self.calls += 1
        result: Tensor = self.inner(states) * (1 + 0.01 * self.calls)
        return result


def with_layer(kind: Callable[[nn.Module], nn.Module]) -> PreTrainedModel:
    model = tiny()
    torch.manual_seed(1)
    layer = model.base_model.layers[0]
    layer.mlp = kind(layer.mlp)
    model.config.model_type = "made_up"
    return model.eval()


@pytest.mark.parametrize("kind", [Capacity, BatchMean, WidthSwitch])
def test_models_that_look_at_the_batch_are_found_and_computed_row_by_row(kind: type[Capacity]) -> None:
    plain = with_layer(kind)
    for compares in (False, True):
        model = RewardModel(copy.deepcopy(plain), max_length=64, compares=compares)
        assert model.alone_above == 0
    check_scores(plain, model)


def test_batch_normalization_is_scored_and_not_trained() -> None:
    plain = with_layer(Normed)
    model = RewardModel(copy.deepcopy(plain), max_length=64)
    assert model.alone_above is None
    check_scores(plain, model)
    with pytest.raises(UserError, match="batch statistics"):
        RewardModel(plain, max_length=64, compares=True)


def test_a_model_whose_scores_depend_on_its_past_is_refused() -> None:
    with pytest.raises(UserError, match=r"depends on the rows be.* it"):
        RewardModel(with_layer(Counting), max_length=64)


def test_the_rows_of_a_check_are_small_where_a_model_holds_all_attention_weights() -> None:
    model = tiny(2**17, model_type="gemma2", head_dim=16, sliding_window=8)
    widths: list[int] = []
    model.base_model.register_forward_pre_hook(
        lambda _, __, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    RewardModel(model)
    assert 64 < max(widths) < 1100  # 16 MB of weights for each of 4 heads and rows
