"""Deterministic kernels: what PyTorch is told on a GPU, and what is said of operators that have none."""

import os
from collections.abc import Iterator

import pytest
import torch

from rewardline.core import runtime
from rewardline.core.errors import UserError
from rewardline.model import determinism


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def test_a_gpu_is_told_and_a_cpu_need_not_be() -> None:
    determinism.start(True, torch.device("cpu"))
    assert not torch.are_deterministic_algorithms_enabled()
    determinism.start(True, torch.device("cuda"))
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled(), "FlashAttention only warns then"
    determinism.start(False, torch.device("cuda"))
    assert not torch.are_deterministic_algorithms_enabled()


def test_workspaces_of_cublas_are_set_before_torch_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("CUBLAS_WORKSPACE_CONFIG", "DS_ACCELERATOR", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    for name in (*names, "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "")
    found = []
    for deterministic in (False, True):
        runtime.prepare(1, 1, deterministic=deterministic)
        found.append(os.environ["CUBLAS_WORKSPACE_CONFIG"])
    assert found == ["", ":4096:8"]


def test_an_operator_without_a_deterministic_kernel_is_named() -> None:
    torch.use_deterministic_algorithms(True)
    values = torch.zeros(3)
    with (
        pytest.raises(UserError, match=r"training\.deterministic: put_ has no deterministic kernel"),
        determinism.explained(),
    ):
        values.put_(torch.tensor([0, 0]), torch.ones(2))
    with pytest.raises(RuntimeError, match="shape"), determinism.explained():
        values.view(2)
