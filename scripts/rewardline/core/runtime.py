"""The environment of programs that compute with torch: processes, threads, memory.

`prepare` and `quiet` must be called before torch and deepspeed are imported.
"""

import ctypes
import logging
import os
import signal
import socket
import time
import warnings
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from statistics import fmean

from rewardline.core.gpus import gpu_names, ignored_gpus

log = logging.getLogger(__name__)
WORKER = "REWARDLINE_WORKER"
"""Set in the environment of processes that the launcher started."""
SPINS, SHARED_SPINS = 3_000, 300
"""How often a thread of libgomp that waits looks for work before it sleeps: with a core for each, and without."""
_LOAD = Path("/proc/loadavg")
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_NO_TRIM, _MAPPED_BLOCKS = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX


def is_worker() -> bool:
    """Whether this process was started by the launcher."""
    return WORKER in os.environ


def rank() -> int:
    """The rank of this process; 0 where there is one."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """The number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent, of this process id, ends, however it ends."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel knew
        os._exit(1)


def free_port() -> int:
    """A TCP port that no program on this machine uses now.

    It is one that the kernel gives to no connection by itself, so that it is still free when torch is imported.
    """
    while True:
        port = SystemRandom().randrange(20_000, 32_768)
        with socket.socket() as free, suppress(OSError):
            free.bind(("", port))
            return port


def prepare(gpus: int, threads: int, *, deterministic: bool = False) -> None:
    """Set the environment that torch and deepspeed read when they are imported.

    `deterministic`: give each of cuBLAS's streams a workspace of its own, so that sums have one order.
    """
    if not is_worker():
        ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        os.environ.update(ranks, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    quiet(threads)
    if gpus:
        os.environ["DS_ACCELERATOR"] = "cuda"  # whatever the shell has set
        if deterministic:
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    with suppress(AttributeError):  # another C library than glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_NO_TRIM, -1)  # keep freed memory: to map it again takes a fifth of a step's time
        mallopt(_MAPPED_BLOCKS, 0)


def release_memory() -> None:
    """Give freed memory back to the system.

    What is kept for later lies between blocks in use. As the sizes of batches differ, ever more of it is too small for
    the next block, and a process grows for as long as it trains.
    """
    with suppress(AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def running_elsewhere(samples: int = 50) -> float:
    """How many threads beside this one run on the machine or wait for a core, on average over 50 ms."""
    running = []
    with suppress(OSError, ValueError, IndexError):
        for _ in range(samples):
            running.append(int(_LOAD.read_text().split()[3].partition("/")[0]) - 1)
            time.sleep(0.001)
    return fmean(running) if running else 0.0


def quiet(threads: int) -> None:
    """Set the number of torch's threads and how they wait, and silence the libraries.

    By default, a thread that waits spins for milliseconds. Where other programs need the cores, now or later, it takes
    the time of the thread that it waits for, and a step may take ten times as long. A hundredth of that is as fast on
    cores of its own; it sleeps almost at once if they are needed already.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if threads > 1 and not (os.environ.get("OMP_WAIT_POLICY") or os.environ.get("GOMP_SPINCOUNT")):
        shared = threads + running_elsewhere() > (os.cpu_count() or 1) + 0.5
        os.environ["GOMP_SPINCOUNT"] = str(SHARED_SPINS if shared else SPINS)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if problem := ignored_gpus():
        log.warning("%s", problem)
    if not gpu_names():
        os.environ["DS_ACCELERATOR"] = "cpu"
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
