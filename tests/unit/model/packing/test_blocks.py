"""Blocks counted from the runs of visible keys, against PyTorch's comparison of every query with every key."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask

from rewardline.model.batch import collate
from rewardline.model.packing import attention, flex
from rewardline.model.packing.blocks import BLOCK, fill_rows, filled
from rewardline.model.packing.layout import Layout, build_layout, sees

from support.models import random_model, random_segments
from support.tokens import random_comparison


def blocks_of(counts: Tensor, indices: Tensor) -> list[set[int]]:
    return [set(row[:count].tolist()) for count, row in zip(counts.flatten(), indices.flatten(0, 2), strict=True)]


def assert_equal_to_create_block_mask(layout: Layout) -> None:
    total = layout.visibility.shape[1]

    def mask(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return sees(layout.query_rows[query], key, *layout.visibility)

    expected = create_block_mask(mask, None, None, len(layout.query_rows), total, device="cpu")
    found = flex._block_mask(layout, None)
    assert found.seq_lengths == expected.seq_lengths
    for kind in ("kv", "full_kv", "q", "full_q"):
        one, other = (
            blocks_of(getattr(m, f"{kind}_num_blocks"), getattr(m, f"{kind}_indices")) for m in (found, expected)
        )
        assert one == other, kind
    rows, keys = torch.arange(len(layout.query_rows))[:, None], torch.arange(total)[None]
    none = torch.zeros(())
    assert torch.equal(found.mask_mod(none, none, rows, keys), mask(none, none, rows, keys))


@pytest.mark.parametrize("seed", range(4))
def test_blocks_of_random_rows_are_those_of_create_block_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(25):
        segments = random_segments(rng)
        total = segments[-1].stop
        read = rng.choice(total, int(rng.integers(1, total + 1)), replace=False).tolist()
        layout = build_layout(segments, read, "flex")
        assert layout.last_layer is not None
        assert_equal_to_create_block_mask(layout)
        assert_equal_to_create_block_mask(layout.last_layer)


def test_rows_fill_at_least_two_blocks() -> None:
    assert [filled(count) for count in (1, 256, 257, 384, 1000)] == [256, 256, 384, 384, 1024]
    assert fill_rows([300, 1], 384) == [*range(255), 300]
    assert fill_rows([5, 5, 3], 256) == list(range(256)), "rows that are read twice count once"


def test_a_row_that_is_filled_has_the_same_scores() -> None:
    model = random_model("llama")
    rng = np.random.default_rng(0)
    rows = [random_comparison(rng, 40, [9, 11]) for _ in range(6)]
    expected = model(collate(rows, "shared_prefix", 0))
    attention.use_shared_prefix(model.model, "flex")
    batch = collate(rows, "shared_prefix", 0, kernel="flex")
    assert batch.layout is not None and batch.layout.last_layer is not None
    assert batch.input_ids.shape == (1, 3 * BLOCK) and batch.tokens == 6 * 60 == int(batch.layout.is_real.sum())
    assert len(batch.layout.last_layer.query_rows) == 2 * BLOCK
    with torch.no_grad():
        assert torch.allclose(model(batch), expected, atol=1e-5)


def test_a_training_compiles_a_handful_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of any length and number of answers, with gradients and without, on the compiler's front end."""
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *_: None)
    compiled = flex.compiled("eager")
    monkeypatch.setattr(flex, "_kernel", lambda _: compiled)
    model, rng = random_model("llama"), np.random.default_rng(0)
    attention.use_shared_prefix(model.model, "flex")
    before, counts = flex.compilations(), []
    for step in range(9):
        lengths = rng.integers(1, 1 + int(rng.choice([10, 80])), (1 + step % 6, 3)).tolist()
        rows = [random_comparison(rng, prefix, tails) for prefix, *tails in lengths]
        with torch.set_grad_enabled(step % 3 > 0):
            scores = model(collate(rows, "shared_prefix", 0, kernel="flex"))
            if step % 3:
                torch.autograd.backward(scores.sum())
        counts.append(flex.compilations() - before)
    assert 0 < counts[-1] <= 6, counts
