import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardline.core.errors import UserError
from rewardline.model import batch as batches
from rewardline.model.batch import Piece
from rewardline.tokens.store import Comparison, ShardWriter, TokenDataset

from support.tokens import random_comparison, write_tokens

COUNTS = st.lists(st.integers(1, 9), min_size=1, max_size=40)


@given(COUNTS, st.integers(1, 12))
def test_steps_hold_every_pair_once_and_at_most_the_limit(counts: list[int], limit: int) -> None:
    visit = np.random.default_rng(0).permutation(len(counts))
    plan = batches.steps(np.asarray(counts), visit, limit)
    assert all(0 < sum(piece.pairs for piece in step) <= limit for step in plan)
    seen = [(piece.index, pair) for step in plan for piece in step for pair in range(piece.begin, piece.end)]
    assert len(seen) == len(set(seen)) == sum(counts)
    for index, count in enumerate(counts):
        parts = [piece for step in plan for piece in step if piece.index == index]
        assert len(parts) == 1 or count > limit


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_micro_batches_hold_every_piece_within_the_budget(sizes: list[int]) -> None:
    pieces = [Piece(index, 0, 1) for index in range(len(sizes))]
    groups = batches.micro_batches(np.asarray(sizes), pieces, 50)
    assert sorted((piece for group in groups for piece in group), key=lambda p: p.index) == pieces
    assert all(len(group) == 1 or sum(sizes[p.index] for p in group) <= 50 for group in groups)


def test_order_depends_on_seed_and_epoch_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_tokens(tmp_path / "t", [random_comparison(rng, 3, [2, 2]) for _ in range(50)], [])
    data = TokenDataset(tmp_path / "t", "train")
    assert batches.order(data, 1, 0).tolist() == batches.order(data, 1, 0).tolist()
    assert batches.order(data, 1, 0).tolist() != batches.order(data, 1, 1).tolist()
    assert batches.order(data, 1, 0).tolist() != batches.order(data, 2, 0).tolist()


def test_a_piece_keeps_only_the_tails_that_its_pairs_use() -> None:
    comparison = random_comparison(np.random.default_rng(0), 4, [3, 5, 2, 6])
    part = batches.cut(comparison, Piece(0, 1, 2))
    assert [tail.tolist() for tail in part.tails] == [comparison.tails[0].tolist(), comparison.tails[2].tolist()]
    assert [(p["chosen"], p["rejected"]) for p in part.pairs] == [(0, 1)]
    assert part.pairs[0]["pair_id"] == comparison.pairs[1]["pair_id"]


def test_packed_and_padded_rows_hold_the_same_sequences() -> None:
    rng = np.random.default_rng(0)
    comparisons = [random_comparison(rng, 4, [3, 5, 1]), random_comparison(rng, 0, [2, 4])]
    packed = batches.collate(comparisons, "shared_prefix", 0)
    padded = batches.collate(comparisons, "padded", 0)
    full = [np.concatenate([c.prefix, tail]) for c in comparisons for tail in c.tails]
    assert packed.input_ids.shape == (1, sum(c.tokens for c in comparisons))
    assert padded.attention_mask is not None
    assert padded.attention_mask.sum(1).tolist() == [len(row) for row in full]
    for batch in (packed, padded):
        assert batch.input_ids.flatten()[batch.ends].tolist() == [row[-1] for row in full]
        assert batch.position_ids.flatten()[batch.ends].tolist() == [len(row) - 1 for row in full]
    assert packed.chosen.tolist() == [0, 0, 3]
    assert packed.rejected.tolist() == [1, 2, 4]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(1, 6), min_size=2, max_size=4)), max_size=30),
    st.integers(5, 200),
)
def test_shards_give_back_what_was_written(rows: list[tuple[int, list[int]]], tokens_per_shard: int) -> None:
    rng = np.random.default_rng(0)
    written = [random_comparison(rng, prefix, tails) for prefix, tails in rows]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = ShardWriter(folder, "train", tokens_per_shard)
        for row in written:
            writer.add(row)
        entry = writer.close()
        (folder / "manifest.json").write_text(json.dumps({"splits": {"train": entry}}))
        data = TokenDataset(folder, "train")
        assert len(data) == len(written)
        assert entry["tokens"] == sum(row.tokens for row in written) == data.tokens.sum()
        for index, row in enumerate(written):
            _same(data[index], row)
            assert data.pair_counts[index] == len(row.pairs)


def _same(first: Comparison, second: Comparison) -> None:
    assert first.prefix.tolist() == second.prefix.tolist()
    assert [tail.tolist() for tail in first.tails] == [tail.tolist() for tail in second.tails]
    assert first.pairs == second.pairs
    assert first.prompt_id == second.prompt_id
    assert first.answer_start == second.answer_start


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_tokens(tmp_path / "t", [random_comparison(rng, 3, [2, 2])], [])
    shard = tmp_path / "t" / "train-00000.arrow"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(UserError, match=r"train-00000\.arrow"):
        TokenDataset(tmp_path / "t", "train")


def test_padded_micro_batches_hold_their_budget_and_rows_of_similar_lengths() -> None:
    rng = np.random.default_rng(0)
    rows, widths = rng.integers(2, 5, 200), rng.integers(5, 300, 200)
    pieces = [Piece(k, 0, 1) for k in range(200)]
    found = batches.micro_batches(rows * widths, pieces, 2_000, rows)
    assert sorted(piece.index for group in found for piece in group) == list(range(200))
    computed = 0
    for group in found:
        indices = [piece.index for piece in group]
        computed += (size := int(rows[indices].sum() * widths[indices].max()))
        assert size <= 2_000 or len(group) == 1
    assert computed < 1.15 * (rows * widths).sum()
