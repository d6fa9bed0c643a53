import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardline.core.errors import UserError
from rewardline.tokens.store import Comparison, TokenDataset

from support.tokens import random_comparison, write_split, write_token_manifest, write_tokens


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
        entry = write_split(folder, "train", written, tokens_per_shard=tokens_per_shard)
        write_token_manifest(folder, train=entry)
        data = TokenDataset(folder, "train")
        assert len(data) == len(written)
        assert entry.tokens == sum(row.tokens for row in written) == data.tokens.sum()
        for index, row in enumerate(written):
            _same(data[index], row)
            assert data.pair_counts[index] == len(row.pairs)


def test_fractions_are_nested_parts_of_the_prompts_with_all_that_belongs_to_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [random_comparison(rng, int(rng.integers(0, 9)), [3] * int(rng.integers(2, 5))) for _ in range(400)]
    rows = [replace(row, prompt_id=f"p{index}") for index, row in enumerate(rows)]
    write_tokens(tmp_path / "tokens", rows, rows[:2])
    parts = {share: TokenDataset(tmp_path / "tokens", "train", share) for share in (0.1, 0.4, 0.7, 1.0)}
    prompts = [{data[index].prompt_id for index in range(len(data))} for data in parts.values()]
    assert all(small < large for small, large in pairwise(prompts)) and len(prompts[-1]) == 400
    for share, data in parts.items():
        assert abs(len(data) / 400 - share) < 0.1
        own = [data[index] for index in range(len(data))]
        assert data.pair_counts.tolist() == [len(row.pairs) for row in own]
        assert data.tail_lengths.tolist() == [len(tail) for row in own for tail in row.tails]
        assert data.tokens.tolist() == [row.tokens for row in own]
        weights = [pair.weight for row in own for pair in row.pairs]
        assert data.mean_weight() == pytest.approx(np.mean(weights))
    with pytest.raises(UserError, match="fraction: 1e-09 of the 400 training prompts"):
        TokenDataset(tmp_path / "tokens", "train", 1e-9)


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
