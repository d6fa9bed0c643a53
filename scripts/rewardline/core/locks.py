"""Locks on files, which the kernel frees when their holder dies."""

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rewardline.core.errors import UserError

log = logging.getLogger(__name__)

NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK}
"""What locking fails with on file systems without locks, such as Lustre mounted without `-o flock`."""


def lock_at_once(stream: IO[str], path: Path) -> bool:
    """Whether the lock of an open file was free, and is now held; True, with a warning, where there are no locks."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        log.warning("the file system of %s has no locks: see that nothing else works on the same results", path)
    return True


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; wait while another process holds it. The system frees it when a process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        if not lock_at_once(stream, path):
            stream.seek(0)
            log.warning("waiting for process %s, which works on the same artefact", stream.read().strip() or "?")
            fcntl.flock(stream, fcntl.LOCK_EX)
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


def hold_folder(folder: Path) -> IO[str]:
    """Take a lock on `folder` that lasts as long as this process, and goes however the process ends.

    Raises:
        UserError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stream = (folder / ".instance.lock").open("a+", encoding="utf-8")
    if not lock_at_once(stream, folder):
        stream.seek(0)
        other = stream.read().strip() or "?"
        stream.close()
        raise UserError(f"process {other} is already working on {folder.resolve()}; wait for it, or stop it first")
    stream.truncate(0)
    stream.write(str(os.getpid()))
    stream.flush()
    return stream
