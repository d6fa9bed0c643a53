"""The GPUs of this machine, and locks that keep programs from using one together."""

import fcntl
import logging
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rewardline.core.errors import UserError

log = logging.getLogger(__name__)


def visible_gpus() -> int:
    """How many GPUs this machine shows to its processes."""
    return len(gpu_names())


def gpu_names() -> list[str]:
    """The GPUs of this machine that its processes may use, as `CUDA_VISIBLE_DEVICES` names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    numbers = sorted(int(path.name[6:]) for path in Path("/dev").glob("nvidia*") if path.name[6:].isdigit())
    return [str(index) for index in range(len(numbers))]


@contextmanager
def own_gpus(wanted: int) -> Iterator[None]:
    """A block in which this process and its children see `wanted` GPUs that no other rewardline program uses.

    Those that are visible are tried in turn; where too few are free, it waits. A lock is a file in the system's
    temporary folder, which the kernel frees when its holder dies. Under Slurm a job has locks of its own, since its
    numbers of GPUs may be its own.

    Raises:
        UserError: fewer GPUs are visible than wanted.
    """
    if not wanted:
        yield
        return
    folder = Path(tempfile.gettempdir()) / f"rewardline-gpus-{os.environ.get('SLURM_JOB_ID', 'machine')}"
    with claimed(gpu_names(), wanted, folder) as names:
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # so that all programs count alike
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names)
        yield


@contextmanager
def claimed(names: list[str], wanted: int, folder: Path, pause: float = 5.0) -> Iterator[list[str]]:
    """Hold locks in `folder` for `wanted` of the devices `names`; `pause` is the time in s between tries.

    Raises:
        UserError: there are fewer than wanted.
    """
    if wanted > len(names):
        raise UserError(f"{wanted} GPUs are asked for, and {len(names)} are visible; see CUDA_VISIBLE_DEVICES")
    waiting = False
    while True:
        with ExitStack() as held:
            free: list[str] = []
            for name in names:
                if len(free) < wanted and _lock(folder, name, held):
                    free.append(name)
            if len(free) == wanted:
                yield free
                return
        if not waiting:
            log.info("waiting for %d free GPU(s) of %s", wanted, ", ".join(names))
        waiting = True
        time.sleep(pause * random.uniform(0.5, 1.5))  # two that wait for each other's do not stay in step


def _lock(folder: Path, name: str, held: ExitStack) -> bool:
    """Whether the lock of a device was free, and is now held until `held` ends."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o1777)  # for every user of the machine
    path = folder / name.replace("/", "-")
    try:
        descriptor = os.open(path, os.O_RDONLY)  # that of another user must not be opened for writing
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    held.callback(os.close, descriptor)
    return True
