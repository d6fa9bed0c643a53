"""Processes of a training: one, or several under torchrun; none outlives the one that started it."""

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rewardline.cli import UserError, terminal_of_children
from rewardline.machine import visible_gpus

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_NO_TRIM, _MAPPED_BLOCKS = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX


def is_worker() -> bool:
    """Whether this process was started by the launcher."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """The number of this process, 0 where there is one."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however it ends."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def launch(program: Path, arguments: Sequence[str], processes: int) -> None:
    """Run a program in several processes on this machine under torchrun, and wait for them.

    Raises:
        UserError: a process failed; its message stands in the log.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    child = subprocess.Popen(
        # The dashes keep torchrun from reading the program's options as abbreviations of its own.
        [*command, "--max-restarts=0", "--", str(program), *arguments],
        preexec_fn=die_with_parent,
        env={**os.environ, **terminal_of_children()},
        process_group=0,
    )

    def forward(signum: int, _frame: object) -> None:
        os.killpg(child.pid, signum)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        code = child.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if code:
        raise UserError(f"a training process ended with code {code}; its message stands above")


def prepare(gpus: int, threads: int) -> None:
    """Set the environment that torch and deepspeed read at import; call it before importing them."""
    if not is_worker():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    else:
        die_with_parent()
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    quiet(threads)
    keep_memory()


def keep_memory() -> None:
    """Have the C library keep freed memory for the next step: mapping it anew takes a fifth of a step's time."""
    with suppress(AttributeError):  # a C library without it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_NO_TRIM, -1)
        mallopt(_MAPPED_BLOCKS, 0)


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
