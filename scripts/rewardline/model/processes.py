"""Processes that compute with one model together, and their devices."""

import os

import torch

from rewardline.model.threads import start_threads


def start_processes() -> None:
    """Join the other processes that the environment names, by DeepSpeed."""
    import deepspeed  # takes seconds, and a lone scorer needs none of it
    from deepspeed.ops import __compatible_ops__

    # Only its own kernels for inference use this one, and building it takes minutes and a compiler.
    __compatible_ops__["deepspeed_shm_comm"] = False
    start_threads()
    deepspeed.init_distributed(verbose=False)


def local_device() -> torch.device:
    """The device of this process."""
    if torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", "0"))
        torch.cuda.set_device(local)
        return torch.device("cuda", local)
    return torch.device("cpu")
