"""The steps of a training run: complete epochs, however many steps each takes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardline.tokens.store import TokenDataset
from rewardline.training import batching
from rewardline.training.batching import Piece, StepSampler

from support.tokens import random_comparison, write_tokens
from support.training_runs import training_settings

COUNTS = st.lists(st.integers(1, 9), min_size=1, max_size=40)


def sampler(folder: Path, pairs: list[int], **training: Any) -> StepSampler:
    rng = np.random.default_rng(0)
    write_tokens(folder, [random_comparison(rng, 2, [1] * (count + 1)) for count in pairs], [])
    return StepSampler(TokenDataset(folder, "train"), training_settings(**training), 3)


def test_complete_epochs_are_trained_though_their_steps_vary_in_number(tmp_path: Path) -> None:
    counts = [int(n) for n in np.random.default_rng(1).integers(1, 7, 40)]
    six_epochs = sampler(tmp_path / "t", counts, epochs=6, pairs_per_step=8)
    lengths = [len(six_epochs.epoch(number)) for number in range(6)]
    assert len(set(lengths)) > 1
    assert six_epochs.total_steps == sum(lengths)
    steps = list(six_epochs.steps(0))
    seen = [(piece.index, pair) for _, pieces in steps for piece in pieces for pair in range(piece.begin, piece.end)]
    assert sorted(seen) == sorted([(index, pair) for index, n in enumerate(counts) for pair in range(n)] * 6)
    assert steps[-1][0] == 6.0
    assert list(six_epochs.steps(9)) == steps[9:]


@pytest.mark.parametrize("pairs", [[1] * 30, [1] * 20 + [2] * 5])
def test_parts_of_epochs_and_a_limit(tmp_path: Path, pairs: list[int]) -> None:
    epochs = {
        number: sampler(tmp_path / str(number), pairs, epochs=number, pairs_per_step=3) for number in (0.5, 1.1, 2)
    }
    first = len(epochs[2].epoch(0))
    assert first == 10 or len(pairs) == 25
    assert epochs[0.5].total_steps == -(-first // 2)
    assert epochs[1.1].total_steps == first + -(-len(epochs[2].epoch(1)) // 10)
    assert sampler(tmp_path / "limited", pairs, epochs=1000, pairs_per_step=3, max_steps=7).total_steps == 7


@given(COUNTS, st.integers(1, 12))
def test_steps_hold_every_pair_once_and_at_most_the_limit(counts: list[int], limit: int) -> None:
    visit = np.random.default_rng(0).permutation(len(counts))
    plan = batching.steps(np.asarray(counts), visit, limit)
    assert all(0 < sum(piece.pairs for piece in step) <= limit for step in plan)
    seen = [(piece.index, pair) for step in plan for piece in step for pair in range(piece.begin, piece.end)]
    assert len(seen) == len(set(seen)) == sum(counts)
    for index, count in enumerate(counts):
        parts = [piece for step in plan for piece in step if piece.index == index]
        assert len(parts) == 1 or count > limit


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_micro_batches_hold_every_piece_within_the_budget(sizes: list[int]) -> None:
    pieces = [Piece(index, 0, 1) for index in range(len(sizes))]
    groups = batching.micro_batches(np.asarray(sizes), pieces, 50)
    assert sorted((piece for group in groups for piece in group), key=lambda p: p.index) == pieces
    assert all(len(group) == 1 or sum(sizes[p.index] for p in group) <= 50 for group in groups)


def test_order_depends_on_seed_and_epoch_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_tokens(tmp_path / "t", [random_comparison(rng, 3, [2, 2]) for _ in range(50)], [])
    data = TokenDataset(tmp_path / "t", "train")
    assert batching.order(data, 1, 0).tolist() == batching.order(data, 1, 0).tolist()
    assert batching.order(data, 1, 0).tolist() != batching.order(data, 1, 1).tolist()
    assert batching.order(data, 1, 0).tolist() != batching.order(data, 2, 0).tolist()


def test_a_piece_keeps_only_the_tails_that_its_pairs_use() -> None:
    comparison = random_comparison(np.random.default_rng(0), 4, [3, 5, 2, 6])
    part = batching.cut(comparison, Piece(0, 1, 2))
    assert [tail.tolist() for tail in part.tails] == [comparison.tails[0].tolist(), comparison.tails[2].tolist()]
    assert [(p.chosen, p.rejected) for p in part.pairs] == [(0, 1)]
    assert part.pairs[0].pair_id == comparison.pairs[1].pair_id


def test_padded_micro_batches_hold_their_budget_and_rows_of_similar_lengths() -> None:
    rng = np.random.default_rng(0)
    rows, widths = rng.integers(2, 5, 200), rng.integers(5, 300, 200)
    pieces = [Piece(k, 0, 1) for k in range(200)]
    found = batching.micro_batches(rows * widths, pieces, 2_000, rows)
    assert sorted(piece.index for group in found for piece in group) == list(range(200))
    computed = 0
    for group in found:
        indices = [piece.index for piece in group]
        computed += (size := int(rows[indices].sum() * widths[indices].max()))
        assert size <= 2_000 or len(group) == 1
    assert computed < 1.15 * (rows * widths).sum()
