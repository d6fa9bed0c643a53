"""The GPUs of this machine, and locks that keep programs from sharing one."""

import fcntl
import logging
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

from rewardline.core.errors import UserError

log = logging.getLogger(__name__)


def gpu_names() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    devices = [path for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()]
    return [str(index) for index in range(len(devices))]


@contextmanager
def reserved_gpus(count: int) -> Iterator[None]:
    """A block in which this process and its children see `count` GPUs that no other rewardline program uses.

    The locks are files in the system's temporary folder. Each Slurm job has its own, since its GPU numbers may be
    relative to the job.

    Raises:
        UserError: fewer GPUs are visible.
    """
    if not count:
        yield
        return
    folder = Path(tempfile.gettempdir()) / f"rewardline-gpus-{os.environ.get('SLURM_JOB_ID', 'machine')}"
    with reserved_devices(gpu_names(), count, folder) as names:
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # so that all programs number GPUs alike
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names)
        yield


@contextmanager
def reserved_devices(names: list[str], count: int, folder: Path, pause: float = 5.0) -> Iterator[list[str]]:
    """Hold the locks in `folder` of the first `count` devices of `names` that are free; wait while there are too few.

    `pause`: mean time between tries, in s.

    Raises:
        UserError: there are fewer devices.
    """
    if count > len(names):
        raise UserError(f"{count} GPUs are requested, and {len(names)} are visible; see CUDA_VISIBLE_DEVICES")
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o1777)  # for every user of the machine
    waiting = False
    while True:
        with ExitStack() as locks:
            free = list(islice((name for name in names if _lock(folder / name.replace("/", "-"), locks)), count))
            if len(free) == count:
                yield free
                return
        if not waiting:
            log.info("waiting for %d free GPU(s) of %s", count, ", ".join(names))
        waiting = True
        time.sleep(pause * random.uniform(0.5, 1.5))  # so that programs that wait for each other get out of step


def _lock(path: Path, locks: ExitStack) -> bool:
    """Whether a lock file was free; it is then locked until `locks` is closed."""
    try:
        descriptor = os.open(path, os.O_RDONLY)  # another user's file must not be opened for writing
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    locks.callback(os.close, descriptor)
    return True
