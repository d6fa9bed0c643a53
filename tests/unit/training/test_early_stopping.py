"""Which weights a training leaves, when it stops, and when it says that nothing is learned."""

import math
from pathlib import Path

import pytest
import torch

from rewardline.training.early_stopping import Chance, Selection, best_file, is_kept, keep_weights, kept_weights


def test_early_stopping_counts_evaluations_without_enough_improvement() -> None:
    selection = Selection()
    stale = []
    for loss in (0.7, 0.6, 0.595, 0.61, 0.5, 0.5, math.nan):
        selection.count(loss, min_delta=0.01)
        stale.append(selection.stale)
    assert stale == [0, 0, 1, 2, 0, 1, 2]


def test_weights_that_are_needed_stay_and_others_go(tmp_path: Path) -> None:
    def keep(step: int, needed: set[int]) -> str:
        found = keep_weights(tmp_path, step, {"w": torch.full((3,), float(step))}, needed)
        assert found is not None
        return found

    keep(1, set())
    keep(2, {1})
    selection = Selection(best_loss=0.5, best_step=3, best_sha256=keep(3, {2}))
    assert sorted(path.name for path in tmp_path.iterdir()) == [best_file(tmp_path, step).name for step in (2, 3)]
    assert is_kept(tmp_path, selection)
    assert kept_weights(tmp_path, selection)["w"].tolist() == [3.0, 3.0, 3.0]
    path = best_file(tmp_path, 3)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert not is_kept(tmp_path, selection)
    path.unlink()
    assert not is_kept(tmp_path, selection)


def messages(accuracy: float, loss: float, steps: int = 450) -> list[str]:
    chance = Chance()
    line = {"pairs": 32, "accuracy": accuracy, "loss": loss}
    return [message for message in (chance.add(line, 200) for _ in range(steps)) if message]


@pytest.mark.parametrize(
    ("accuracy", "loss", "told"),
    [(0.5, 0.75, True), (0.505, 0.69, True), (0.9, 0.6931, True), (0.53, 0.69, False), (0.8, 0.5, False)],
)
def test_no_better_than_guessing_for_long_is_said_once(accuracy: float, loss: float, told: bool) -> None:
    found = messages(accuracy, loss)
    assert len(found) == told
    if told:
        assert f"{accuracy:.1%}" in found[0]
        assert "learning_rate" in found[0]
    assert messages(accuracy, loss, steps=150) == []


def test_few_pairs_say_nothing() -> None:
    chance = Chance()
    assert [chance.add({"pairs": 2, "accuracy": 0.5, "loss": 0.7}, 10) for _ in range(200)] == [None] * 200
