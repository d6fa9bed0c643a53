"""When a training counts as done: its model stands in the folder of its checkpoints, whole, under the same key."""

import shutil
from pathlib import Path

import pytest

from rewardline.core.files import write_json
from rewardline.core.hashing import file_sha256
from train import is_whole


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    write_json(folder / "run.json", {"key": "a", "weights_sha256": file_sha256(folder / "model.safetensors")})
    return folder


def test_a_model_under_the_same_key_is_taken_as_it_is(model: Path) -> None:
    assert is_whole(model, "a")
    assert len(list(model.iterdir())) == 3


def test_a_model_under_another_key_is_removed(model: Path) -> None:
    assert not is_whole(model, "b")
    assert not model.exists()


def test_a_damaged_model_is_removed(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"weight")
    assert not is_whole(model, "a")
    assert not model.exists()


@pytest.mark.parametrize("lost", ["run.json", "model.safetensors"])
def test_what_a_kill_has_left_of_a_model_is_removed(model: Path, lost: str) -> None:
    (model / lost).unlink()
    assert not is_whole(model, "a")
    assert not model.exists()


def test_a_model_that_cannot_be_removed_ends_the_program_and_counts_no_more(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(folder: Path) -> None:
        (folder / "config.json").unlink()
        raise OSError("busy")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", busy)
        with pytest.raises(OSError, match="busy"):
            is_whole(model, "b")
    assert not is_whole(model, "a"), "it lacks its config.json"
