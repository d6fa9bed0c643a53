"""The environment of programs that compute with torch: processes, threads, memory.

`prepare` and `quiet` must be called before torch and deepspeed are imported.
"""

import ctypes
import logging
import os
import socket
import warnings
from contextlib import suppress

from rewardline.core.gpus import visible_gpus

WORKER = "REWARDLINE_WORKER"
"""Set in the environment of processes that the launcher started."""
_NO_TRIM, _MAPPED_BLOCKS = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX


def is_worker() -> bool:
    """Whether this process was started by the launcher."""
    return WORKER in os.environ


def rank() -> int:
    """The number of this process, 0 where there is one."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def free_port() -> int:
    """A TCP port that no program on this machine uses now."""
    with socket.socket() as free:
        free.bind(("", 0))
        port: int = free.getsockname()[1]
    return port


def prepare(gpus: int, threads: int) -> None:
    """Set the environment that torch and deepspeed read at import; call it before importing them."""
    if not is_worker():
        place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        os.environ.update(place, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    quiet(threads)
    if gpus:
        os.environ["DS_ACCELERATOR"] = "cuda"  # whatever a shell says
    keep_memory()


def keep_memory() -> None:
    """Have the C library keep freed memory for the next step: mapping it anew takes a fifth of a step's time."""
    with suppress(AttributeError):  # a C library without it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_NO_TRIM, -1)
        mallopt(_MAPPED_BLOCKS, 0)


def hold_threads() -> None:
    """Have MKL use the threads of torch for every product, as its guide to reproducible results wants it.

    Left to itself (MKL_DYNAMIC) it may take fewer, and a sum in another order has other last bits. Said to torch once
    torch is there, since the variable would also lift MKL's limit of one thread for each physical core.
    """
    import torch

    torch.set_num_threads(torch.get_num_threads())


def quiet(threads: int) -> None:
    """Threads for torch, and less noise from the libraries; call it before importing them."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not visible_gpus():
        os.environ["DS_ACCELERATOR"] = "cpu"
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)


def cores() -> set[int]:
    """The cores that this process may use."""
    return os.sched_getaffinity(0)
