"""The steps of a training: whole epochs, however many steps each takes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewardline.tokens.store import TokenDataset
from rewardline.training.batching import Plan

from support.tokens import random_comparison, write_tokens
from support.training_runs import training_settings


def plan(folder: Path, pairs: list[int], **training: Any) -> Plan:
    rng = np.random.default_rng(0)
    write_tokens(folder, [random_comparison(rng, 2, [1] * (count + 1)) for count in pairs], [])
    return Plan(TokenDataset(folder, "train"), training_settings(**training), 3)


def test_whole_epochs_are_trained_though_their_steps_vary_in_number(tmp_path: Path) -> None:
    counts = [int(n) for n in np.random.default_rng(1).integers(1, 7, 40)]
    found = plan(tmp_path / "t", counts, epochs=6, pairs_per_step=8)
    lengths = [len(found.epoch(number)) for number in range(6)]
    assert len(set(lengths)) > 1
    assert found.total_steps() == sum(lengths)
    steps = list(found.steps(0, found.total_steps()))
    seen = [(piece.index, pair) for _, pieces in steps for piece in pieces for pair in range(piece.begin, piece.end)]
    assert sorted(seen) == sorted([(index, pair) for index, n in enumerate(counts) for pair in range(n)] * 6)
    assert steps[-1][0] == 6.0
    assert list(found.steps(9, found.total_steps())) == steps[9:]


@pytest.mark.parametrize("pairs", [[1] * 30, [1] * 20 + [2] * 5])
def test_parts_of_epochs_and_a_limit(tmp_path: Path, pairs: list[int]) -> None:
    epochs = {number: plan(tmp_path / str(number), pairs, epochs=number, pairs_per_step=3) for number in (0.5, 1.1, 2)}
    first = len(epochs[2].epoch(0))
    assert first == 10 or len(pairs) == 25
    assert epochs[0.5].total_steps() == -(-first // 2)
    assert epochs[1.1].total_steps() == first + -(-len(epochs[2].epoch(1)) // 10)
    assert plan(tmp_path / "limited", pairs, epochs=1000, pairs_per_step=3, max_steps=7).total_steps() == 7
