"""Programs on one machine share out its GPUs."""

import subprocess
import sys
from pathlib import Path

import pytest

from rewardline.core.errors import UserError
from rewardline.core.gpus import gpu_names, ignored_gpus, reserved_devices, reserved_gpus

from support.paths import ROOT


def test_each_program_gets_gpus_that_no_other_has(tmp_path: Path) -> None:
    names = ["0", "1", "2", "3"]
    with reserved_devices(names, 1, tmp_path) as first, reserved_devices(names, 2, tmp_path) as second:
        assert (first, second) == (["0"], ["1", "2"])
        with reserved_devices(names, 1, tmp_path) as third:
            assert third == ["3"]
    with reserved_devices(names, 4, tmp_path) as all_again:
        assert all_again == names


def test_a_program_waits_until_enough_are_free_and_holds_none_meanwhile(tmp_path: Path) -> None:
    program = f"""
import sys
sys.path.insert(0, {str(ROOT / "scripts")!r})
from pathlib import Path
from rewardline.core.gpus import reserved_devices
with reserved_devices(["0", "1"], 2, Path({str(tmp_path)!r}), pause=0.05) as names:
    print(*names)
"""
    with reserved_devices(["0", "1"], 1, tmp_path):
        other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(timeout=2)
        with reserved_devices(["1"], 1, tmp_path, pause=0.01) as free:
            assert free == ["1"]
    assert other.communicate(timeout=20)[0] == "0 1\n"


def test_more_than_there_are_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="3 GPUs are requested, and 2 are visible"),
        reserved_devices(["0", "1"], 3, tmp_path),
    ):
        pass


def test_visible_devices_are_respected_and_narrowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b,3")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    (tmp_path / "nvidiactl").touch()
    for index in range(4):
        (tmp_path / f"nvidia{index}").touch()
    monkeypatch.setattr("rewardline.core.gpus.DEVICES", tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert gpu_names() == ["GPU-a", "GPU-b", "3"]
    with reserved_gpus(2):
        assert gpu_names() == ["GPU-a", "GPU-b"]
    assert (tmp_path / "rewardline-gpus-7").is_dir()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with reserved_gpus(0):
        assert gpu_names() == []


@pytest.mark.parametrize(
    ("visible", "gpus", "used", "ignored"),
    [
        (None, 2, ["0", "1"], None),
        ("1,0", 2, ["1", "0"], None),
        ("", 2, [], None),
        ("-1", 2, [], None),
        ("0,-1", 2, ["0"], None),
        ("0,7,1", 2, ["0"], "'7' is no GPU of this machine, so 0 is used"),
        ("7", 2, [], "'7' is no GPU of this machine, so none is used"),
        ("0", 0, [], "CUDA_VISIBLE_DEVICES=0: '0' is no GPU of this machine, so none is used"),
        ("none", 2, [], "'none' is no GPU"),
        ("GPU-a,MIG-b", 1, ["GPU-a", "MIG-b"], None),
        ("GPU-a", 0, [], "'GPU-a' is no GPU"),
    ],
)
def test_names_of_no_gpu_are_ignored_as_by_cuda_but_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
    gpus: int,
    used: list[str],
    ignored: str | None,
) -> None:
    for index in range(gpus):
        (tmp_path / f"nvidia{index}").touch()
    monkeypatch.setattr("rewardline.core.gpus.DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_names() == used
    found = ignored_gpus()
    assert found is None if ignored is None else ignored in (found or "")
