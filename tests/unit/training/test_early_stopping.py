"""Which weights a training run exports, and when it ends."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rewardline.data.pairs.identity import chooses
from rewardline.data.schema import hash_texts
from rewardline.tokens.store import TokenDataset
from rewardline.training.early_stopping import (
    Selection,
    best_file,
    evaluation_is_due,
    keep_weights,
)
from rewardline.training.held_out import sample

from support.training_runs import training_settings


def test_early_stopping_counts_evaluations_without_enough_improvement() -> None:
    selection, training = Selection(), training_settings(early_stopping={"min_delta": 0.01, "patience": 2})
    stale, ends = [], []
    for loss in (0.7, 0.6, 0.595, 0.61, 0.5, 0.5, math.nan):
        selection.count(loss, training)
        stale.append(selection.stale)
        ends.append(selection.ends(training))
    assert stale == [0, 0, 1, 2, 0, 1, 2]
    assert ends == [count == 2 for count in stale]
    assert not selection.ends(training_settings())


def test_evaluations_are_due_at_equal_distances_and_at_the_end() -> None:
    assert [step for step in range(1, 8) if evaluation_is_due(training_settings(eval_every=3), step, 7)] == [3, 6, 7]
    assert not evaluation_is_due(training_settings(eval_every=0), 7, 7)


def test_weights_that_are_needed_stay_and_others_go(tmp_path: Path) -> None:
    def keep(step: int, needed: set[int]) -> str:
        found = keep_weights(tmp_path, step, {"w": torch.full((3,), float(step))}, needed)
        assert found is not None
        return found

    keep(1, set())
    keep(2, {1})
    selection = Selection(best_loss=0.5, best_step=3, best_sha256=keep(3, {2}))
    assert sorted(path.name for path in tmp_path.iterdir()) == [best_file(tmp_path, step).name for step in (2, 3)]
    assert selection.is_kept(tmp_path)
    assert load_file(best_file(tmp_path, 3))["w"].tolist() == [3.0, 3.0, 3.0]
    path = best_file(tmp_path, 3)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert not selection.is_kept(tmp_path)
    path.unlink()
    assert not selection.is_kept(tmp_path)


@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
def test_what_decides_is_a_sample_of_the_prompts_that_choose(tokens: Path, share: float) -> None:
    data = TokenDataset(tokens, "train")
    choosing = np.flatnonzero(chooses(hash_texts(data.prompt_ids), share)).tolist()
    assert 0 < len(choosing) <= len(data)
    found = sample(data, 5, share)
    assert found == choosing[: len(found)], "the first ones, whatever the run"
    pairs = data.pair_counts[found]
    assert pairs.sum() >= 5 > pairs[:-1].sum()
    assert sample(data, 10**9, share) == choosing
    assert sample(data, 10**9, 1e-9) == list(range(len(data))), "where none chooses, all count"
