"""Checkpoints: bit for bit what was saved, however a training run is distributed; damage is noticed."""

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rewardline.core.cli import log
from rewardline.core.errors import UserError
from rewardline.training import checkpoints, optimizer_state

from support.engines import equal, new_engine, steps, weights
from support.training_runs import training_settings

pytestmark = pytest.mark.usefixtures("one_process")

Json = dict[str, Any]


WAYS: list[Json] = [
    {"zero_stage": 0},
    {"zero_stage": 1},
    {
        "zero_stage": 2,
        "offload": "optimizer",
        "deepspeed": {"zero_optimization": {"offload_optimizer": {"pin_memory": False}}},
    },
    {"zero_stage": 3},
    {"zero_stage": 3, "offload": "all"},
    {"zero_stage": 1, "precision": "bf16"},
    {"zero_stage": 2, "precision": "bf16"},
    {"zero_stage": 3, "precision": "bf16"},
    {"zero_stage": 2, "precision": "bf16", "deepspeed": {"data_types": {"grad_accum_dtype": "fp32"}}},
    {"zero_stage": 1, "precision": "bf16", "state_precision": "bf16"},
    {"zero_stage": 3, "precision": "bf16", "state_precision": "bf16"},
    {"zero_stage": 0, "lora": {"rank": 4}},
    {"zero_stage": 2, "lora": {"rank": 4}},
    {"zero_stage": 3, "lora": {"rank": 4}},
]


@pytest.mark.parametrize("options", WAYS, ids=lambda options: "-".join(str(value) for value in options.values()))
def test_restored_engine_continues_bit_for_bit(tmp_path: Path, options: Json) -> None:
    settings = training_settings(learning_rate=1e-2, **options)
    running = new_engine(settings)
    steps(running, 0, 3)
    assert checkpoints.save(running, tmp_path, 3, {"any": ["thing"]})
    steps(running, 3, 2)
    fresh = new_engine(settings)
    before = weights(fresh)
    assert checkpoints.restore(fresh, tmp_path) == {"any": ["thing"]}
    steps(fresh, 3, 2)
    assert equal(weights(fresh), weights(running))
    assert not equal(weights(fresh), before)


def state_of(running: Any) -> dict[str, torch.Tensor]:
    """All fp32 weights and moments by name, whatever keeps them."""
    return {
        f"{kind} {part.name} {part.start}": tensor.clone()
        for part in optimizer_state.fragments(running)
        for kind, tensor in part.tensors.items()
    }


@pytest.mark.parametrize("stage", [2, 3])
def test_state_in_bf16_takes_half_of_the_memory_and_follows_that_in_fp32(stage: int) -> None:
    sizes, found = {}, {}
    for state in ("fp32", "bf16"):
        running = new_engine(
            training_settings(learning_rate=1e-2, zero_stage=stage, precision="bf16", state_precision=state)
        )
        start = weights(running)
        steps(running, 0, 4)
        parts = state_of(running)
        sizes[state] = sum(tensor.nbytes for tensor in parts.values())
        found[state] = torch.cat([(weights(running)[name] - start[name]).flatten().float() for name in start])
        assert {tensor.dtype for tensor in parts.values()} == {
            getattr(torch, {"fp32": "float32"}.get(state, "bfloat16"))
        }
    assert sizes["fp32"] == 2 * sizes["bf16"]
    assert found["fp32"].norm() > 0
    assert (found["bf16"] - found["fp32"]).norm() < 0.2 * found["fp32"].norm()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_checkpoint_of_one_zero_stage_is_that_of_every_other(tmp_path: Path, precision: str) -> None:
    stages = [1, 2, 3] if precision == "bf16" else [0, 1, 2, 3]
    saved_by = new_engine(training_settings(learning_rate=1e-2, zero_stage=stages[-1], precision=precision))
    steps(saved_by, 0, 2)
    assert checkpoints.save(saved_by, tmp_path, 2, {})
    expected = state_of(saved_by)
    for stage in stages[:-1]:
        other = new_engine(training_settings(learning_rate=1e-2, zero_stage=stage, precision=precision))
        checkpoints.restore(other, tmp_path)
        assert equal(state_of(other), expected)
        assert equal(weights(other), weights(saved_by))
        assert optimizer_state.counters(other).adam_step == 2


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut_off, flip_a_bit, Path.unlink])
def test_damage_to_any_file_falls_back_to_the_checkpoint_before(
    tmp_path: Path, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoints, "FILE_BYTES", 10_000)
    monkeypatch.setattr(log, "propagate", True)
    running = new_engine(training_settings(learning_rate=1e-2))
    complete = tmp_path / "complete"
    for step in (1, 2):
        steps(running, step, 1)
        assert checkpoints.save(running, complete, step, {"step": step})
    names = [path.name for path in (complete / "step-00000002").iterdir()]
    assert len(names) > 5
    for name in names:
        folder = tmp_path / "damaged"
        shutil.copytree(complete, folder)
        damage(folder / "step-00000002" / name)
        caplog.clear()
        assert checkpoints.restore(running, folder) == {"step": 1}
        assert "trying the one before" in caplog.text
        assert name in caplog.text
        # It does not count among the two that are kept.
        assert checkpoints.save(running, folder, 3, {"step": 3})
        assert [path.name for path in checkpoints.steps(folder)] == ["step-00000001", "step-00000003"]
        shutil.rmtree(folder)
    assert checkpoints.restore(running, complete) == {"step": 2}


def test_damaged_checkpoints_alone_are_an_error_and_none_at_all_is_a_start(tmp_path: Path) -> None:
    running = new_engine(training_settings(learning_rate=1e-2))
    assert checkpoints.restore(running, tmp_path) is None
    steps(running, 0, 1)
    checkpoints.save(running, tmp_path, 1, {})
    cut_off(tmp_path / "step-00000001" / "state.json")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read"):
        checkpoints.restore(running, tmp_path)


def test_the_newest_two_are_kept_and_unfinished_ones_are_cleared_away(tmp_path: Path) -> None:
    running = new_engine(training_settings(learning_rate=1e-2))
    (tmp_path / ".step-00000001.partial").mkdir()
    for step in (1, 2, 3):
        checkpoints.save(running, tmp_path, step, {"step": step})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
    assert [state["step"] for state in checkpoints.states(tmp_path)] == [2, 3]
    facts = json.loads((tmp_path / "step-00000003" / "state.json").read_text())
    assert (facts["processes"], facts["zero_stage"]) == (1, 0)


def test_a_full_disk_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log, "propagate", True)
    running = new_engine(training_settings(learning_rate=1e-2))
    assert checkpoints.save(running, tmp_path, 1, {"step": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # what is written beyond it fails
    try:
        assert not checkpoints.save(running, tmp_path, 2, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "the newest checkpoint is that of step 1" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert checkpoints.restore(running, tmp_path) == {"step": 1}
