"""The machine that the pipeline runs on: its programs, its GPUs, and the one instance that may work on a folder."""

import fcntl
import os
import sys
from pathlib import Path
from typing import IO

from rewardline.cli import UserError


def use_own_python() -> None:
    """Have stages run in the environment that this process runs in; what snakemake activates itself comes before."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def visible_gpus() -> int:
    """How many GPUs this machine shows to its processes."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    return len([path for path in Path("/dev").glob("nvidia*") if path.name[6:].isdigit()])


def hold_folder(folder: Path) -> IO[str]:
    """Take a lock on `folder` that lasts as long as this process, and goes however the process ends.

    Raises:
        UserError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stream = (folder / ".instance.lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        other = stream.read().strip() or "?"
        stream.close()
        raise UserError(
            f"process {other} is already working on {folder.resolve()}; wait for it, or stop it first"
        ) from None
    stream.truncate(0)
    stream.write(str(os.getpid()))
    stream.flush()
    return stream
