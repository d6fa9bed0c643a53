"""Programs on one machine share out its GPUs."""

import subprocess
import sys
from pathlib import Path

import pytest

from rewardline.core.errors import UserError
from rewardline.core.gpus import gpu_names, reserved_devices, reserved_gpus

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
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert gpu_names() == ["GPU-a", "GPU-b", "3"]
    with reserved_gpus(2):
        assert gpu_names() == ["GPU-a", "GPU-b"]
    assert (tmp_path / "rewardline-gpus-7").is_dir()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with reserved_gpus(0):
        assert gpu_names() == []
