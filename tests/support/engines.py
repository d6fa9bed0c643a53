"""DeepSpeed engines around a tiny model, in the process of the test."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import deepspeed
import pytest
import torch

from rewardline.core import runtime
from rewardline.model import lora
from rewardline.model.processes import start_processes
from rewardline.training import engine
from rewardline.training.settings import TrainingSettings

from support.models import random_model

Json = dict[str, Any]


@contextmanager
def one_process() -> Iterator[None]:
    """The process group of a lone process, which stays: DeepSpeed keeps the first one that it sees."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            patch.setenv(name, "")
        for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "DS_ACCELERATOR"):
            patch.setenv(name, "")
        runtime.prepare(0, 1)
        if not deepspeed.comm.is_initialized():  # torch may be, by another test
            start_processes()
        yield


def new_engine(settings: TrainingSettings) -> Any:
    model = random_model("llama").model
    model.set_attn_implementation("sdpa")
    if settings.lora:
        model = lora.add_adapters(model, settings.lora, seed=0)
    return engine.create(model, settings, engine.deepspeed_config(settings))


def steps(running: Any, first: int, count: int, clip: float = 0.0) -> None:
    """Optimizer steps on random tokens, which the step's number alone decides."""
    for step in range(first, first + count):
        ids = torch.randint(5, 90, (4, 12), generator=torch.Generator().manual_seed(step))
        loss = running(input_ids=ids).logits.float().square().mean()
        running.backward(loss)
        engine.update(running, clip)


def weights(running: Any) -> dict[str, torch.Tensor]:
    return engine.full_state(running.module)


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
