"""The GPUs of this machine, and locks that keep programs from sharing one."""

import fcntl
import logging
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice, takewhile
from pathlib import Path

from rewardline.core.errors import UserError

log = logging.getLogger(__name__)
DEVICES = Path("/dev")


def gpu_names() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    known = [str(index) for index in range(sum(path.name[6:].isdigit() for path in DEVICES.glob("nvidia*")))]
    return known if _visible() is None else list(takewhile(partial(_is_gpu, known), _visible() or ()))


def ignored_gpus() -> str | None:
    """What to say of a `CUDA_VISIBLE_DEVICES` that names more GPUs than there are; None if it does not.

    CUDA ignores a name of no GPU and all names after it, without a word.
    """
    names, used = _visible() or [], gpu_names()
    if names[len(used) :] in ([], [""], ["-1"]):
        return None
    value, first = os.environ["CUDA_VISIBLE_DEVICES"], names[len(used)]
    return f"CUDA_VISIBLE_DEVICES={value}: {first!r} is no GPU of this machine, so {', '.join(used) or 'none'} is used"


def _visible() -> list[str] | None:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if visible is None else [name.strip() for name in visible.split(",")]


def _is_gpu(known: list[str], name: str) -> bool:
    return name in known or (bool(known) and name.startswith(("GPU-", "MIG-")))


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
