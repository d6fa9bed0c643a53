import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from rewardline.core.errors import UserError
from rewardline.model.batch import collate
from rewardline.model.packing import attention, kernels, layout
from rewardline.model.packing.blocks import fill_rows
from rewardline.model.packing.layout import Segment, build_layout
from rewardline.model.reward_model import RewardModel
from rewardline.training.loss import pair_losses

from support.families import FAMILIES
from support.models import comparisons, random_model

SEGMENTS = [
    Segment(0, 10, (5, 7), pads=(2, 0)),
    Segment(22, 0, (3, 4)),
    Segment(29, 12, (1, 1)),
    Segment(43, 5, (9, 2, 6, 1)),
]
TOTAL = 66


def sees(query: int, key: int) -> bool:
    """Whether a token sees another, one by one."""
    for segment in SEGMENTS:
        parts = [segment.prefix, *segment.tails]
        owner = [part for part, count in enumerate(parts) for _ in range(count)]
        q, k = query - segment.start, key - segment.start
        if 0 <= q < segment.length:
            if not 0 <= k <= q:
                return False
            part = owner[k]
            end = sum(parts[: part + 1])
            padded = part > 0 and k >= end - (segment.pads[part - 1] if segment.pads else 0)
            return part in (0, owner[q]) and not padded
    raise AssertionError(query)


@pytest.mark.parametrize("long", [512, 15])
@pytest.mark.parametrize("read_rows", [[21, 14], [65, 0, 30, 12, 41], list(range(0, TOTAL, 2))])
def test_every_query_sees_its_prefix_and_its_own_tail(
    monkeypatch: pytest.MonkeyPatch, long: int, read_rows: list[int]
) -> None:
    monkeypatch.setattr(layout, "LONG", long)
    found = build_layout(SEGMENTS, read_rows)
    assert build_layout(SEGMENTS, None).last_layer is None
    # Values that identify the keys, and equal logits: the output shows which keys were seen.
    values = torch.eye(TOTAL)[None, None]
    zeros = torch.zeros(1, 1, TOTAL, 8)
    module = torch.nn.Module().eval()
    expected = torch.tensor([[sees(q, k) for k in range(TOTAL)] for q in range(TOTAL)])
    result, _ = attention.shared_prefix_attention(module, zeros, zeros, values, None, layout=found)
    assert torch.equal(result[0, :, 0] > 0, expected)
    last = found.last_layer
    assert last is not None
    few = zeros[:, :, : len(read_rows)]
    result, _ = attention.shared_prefix_attention(
        module, few, few, few, None, layout=last, keys_and_values=(zeros, values)
    )
    assert last.query_rows.tolist() == sorted(read_rows)
    assert torch.equal(result[0, :, 0] > 0, expected[last.query_rows])


@pytest.mark.parametrize("window", [1, 2, 5, 11, 12, 13, 14])
@pytest.mark.parametrize("long", [512, 15])
@pytest.mark.parametrize("read_rows", [None, [14, 21, 30, 41, 65]])
def test_in_a_sliding_window_a_query_sees_as_many_tokens_of_its_sequence(
    monkeypatch: pytest.MonkeyPatch, long: int, window: int, read_rows: list[int] | None
) -> None:
    monkeypatch.setattr(layout, "LONG", long)
    segments = [Segment(one.start, one.prefix, one.tails) for one in SEGMENTS]
    found = build_layout(segments, read_rows)
    current = found.last_layer or found
    position = [
        position
        for one in segments
        for position in [*range(one.prefix), *(one.prefix + k for tail in one.tails for k in range(tail))]
    ]
    unpadded = {(q, k) for q in range(TOTAL) for k in range(TOTAL) if sees(q, k) or k == q or (k < q < 15 and k >= 10)}
    expected = [[(q, k) in unpadded and position[q] - position[k] < window for k in range(TOTAL)] for q in range(TOTAL)]
    zeros, values, module = torch.zeros(1, 1, TOTAL, 8), torch.eye(TOTAL)[None, None], torch.nn.Module().eval()
    query = zeros[:, :, : len(current.query_rows)]
    result, _ = attention.shared_prefix_attention(
        module, query, zeros, values, None, layout=current, sliding_window=window, keys_and_values=(zeros, values)
    )
    assert torch.equal(result[0, :, 0] > 0, torch.tensor(expected)[current.query_rows])


@pytest.mark.parametrize("options", [{}, {"sliding_window": 4}, {"s_aux": torch.tensor([0.5, -1.0, 2.0, 0.0])}])
@pytest.mark.parametrize("read_rows", [[21, 14, 8], None])
def test_flex_attention_is_the_same(read_rows: list[int] | None, options: dict[str, Any]) -> None:
    rows = read_rows and fill_rows(read_rows, TOTAL)
    query = torch.randn(1, 4, len(rows or range(TOTAL)), 8)
    key, value = torch.randn(2, 1, 2, TOTAL, 8)
    module = torch.nn.Module().eval()
    outputs = []
    for kernel in ("sdpa", "flex"):
        found = build_layout(SEGMENTS, rows, kernel)
        current = found.last_layer or found
        output, _ = attention.shared_prefix_attention(module, query, key, value, None, 0.3, layout=current, **options)
        outputs.append(output)
    assert torch.allclose(outputs[0], outputs[1], atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "opt", "gpt_oss"])
def test_a_model_has_the_same_scores_and_gradients_with_flex_attention(
    monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """On the CPU PyTorch refuses the gradient, though its plain form is there: enough to test what we hand to it."""
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *_: None)
    found = []
    for kernel in ("sdpa", "flex"):
        model = random_model(family)
        attention.use_shared_prefix(model.model, kernel)
        scores = model(collate(comparisons(), "shared_prefix", 0, model.score_positions, kernel=kernel))
        torch.autograd.backward(scores.square().sum())
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append((scores.detach(), torch.cat(gradients)))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
    assert (found[0][1] - found[1][1]).norm() / found[0][1].norm() < 1e-5


def test_where_flex_attention_does_not_work_the_reason_is_known() -> None:
    """The CPU's has no gradient."""
    heads = kernels.Heads(4, 2, 8)
    assert "backward" in str(kernels.unsupported_reason("flex", torch.device("cpu"), torch.float32, heads))
    expected = "flex" if torch.cuda.is_available() else "sdpa"
    assert kernels.candidates("auto", torch.float32, heads)[0] == expected


def test_the_variable_length_kernel_is_left_out_where_it_lacks_what_the_model_has() -> None:
    for family, changes in {"gpt_oss": {}, "mistral": {"sliding_window": 7}}.items():
        heads = kernels.heads_of(random_model(family, **changes).model, max_length=64)
        with pytest.raises(UserError, match=r"training\.attention: varlen has no sliding windows"):
            kernels.candidates("varlen", torch.float32, heads)
    heads = kernels.heads_of(random_model("mistral", sliding_window=64).model, max_length=64)
    assert kernels.candidates("varlen", torch.float32, heads) == ("varlen",)


def test_dropout_is_refused_where_the_kernel_has_none() -> None:
    model = random_model("llama", attention_dropout=0.5).train()
    with pytest.raises(RuntimeError, match="does not support dropout"):
        model(collate(comparisons(), "shared_prefix", 0, kernel="flex"))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_layer_at_some_rows_equals_the_complete_one(family: str) -> None:
    model = random_model(family).model
    batch = collate(comparisons(), "shared_prefix", 0)
    segments, start = [], 0
    for comparison in comparisons():
        segments.append(Segment(start, len(comparison.prefix), tuple(map(len, comparison.tails))))
        start += comparison.tokens
    read_rows = [3, 9, 20, 21, 22, 60, start - 1]
    states: list[Tensor] = []
    gradients: list[Tensor] = []
    for rows in (read_rows, None):
        model.zero_grad()
        hidden = model.base_model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            use_cache=False,
            layout=build_layout(segments, rows),
        ).last_hidden_state
        read = hidden[0, read_rows]
        torch.autograd.backward(read.square().sum())
        states.append(read.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in model.base_model.parameters() if p.grad is not None]))
    assert torch.allclose(states[0], states[1], atol=1e-5)
    assert (gradients[0] - gradients[1]).norm() / gradients[1].norm() < 1e-5


@pytest.mark.parametrize(
    ("family", "changes"), [("llama", {}), ("gpt2", {}), ("gpt_oss", {}), ("mistral", {"sliding_window": 7})]
)
def test_long_comparisons_equal_padded_rows(
    monkeypatch: pytest.MonkeyPatch, family: str, changes: dict[str, int]
) -> None:
    monkeypatch.setattr(layout, "LONG", 15)
    packed = random_model(family, **changes)
    padded = RewardModel(copy.deepcopy(packed.model), "padded")
    losses = []
    for model in (packed, padded):
        batch = collate(comparisons(), model.batching, pad_id=0)
        assert batch.layout is None or len(batch.layout.long) > 1
        losses.append(pair_losses(model(batch), batch).mean().item())
    assert abs(losses[0] - losses[1]) < 1e-6


def test_a_copy_of_a_model_has_a_last_layer_of_its_own() -> None:
    model = random_model("llama")
    batch = collate(comparisons(), "shared_prefix", 0)
    before = model(batch)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.zero_()
    assert torch.equal(model(batch), before)
    assert not torch.equal(other(batch), before)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_forward_pass_has_a_layout_of_its_own(family: str, checkpointing: bool) -> None:
    """Two rows before either goes backward, where gradient checkpointing runs their layers again."""
    model = random_model(family).train()
    if checkpointing:
        model.model.activation_checkpointing_enable({"use_reentrant": False})
    gradients = []
    for together in (True, False):
        model.zero_grad()
        batches = [collate(comparisons(seed)[seed:], "shared_prefix", 0) for seed in (0, 1)]
        torch.manual_seed(0)
        if together:
            torch.autograd.backward([pair_losses(model(batch), batch).sum() for batch in batches])
        else:
            for batch in batches:
                torch.autograd.backward(pair_losses(model(batch), batch).sum())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert torch.allclose(gradients[0], gradients[1], atol=1e-5)


def test_a_packed_row_without_its_layout_is_refused() -> None:
    model = random_model("llama").model
    with pytest.raises(RuntimeError, match="no layout"):
        model(input_ids=torch.ones(1, 4, dtype=torch.long))
