"""Locks on files, which the kernel releases when their holder dies.

The filelock package is not used: it cannot say which process holds a lock, and where a file system has no locks it
falls back to files that outlive a killed process.
"""

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
"""Errors of file systems without locks, such as Lustre mounted without `-o flock`."""


def _lock(stream: IO[str], path: Path) -> str | None:
    """Lock an open file at once and write this process's id to it; the id of the process that holds it, if one does."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        return stream.read().strip() or "?"
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        log.warning("the file system of %s has no locks: see that nothing else works on the same results", path)
    stream.truncate(0)
    stream.write(str(os.getpid()))
    stream.flush()
    return None


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; wait while another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        if holder := _lock(stream, path):
            log.warning("waiting for process %s, which works on the same files", holder)
            fcntl.flock(stream, fcntl.LOCK_EX)
            _lock(stream, path)
        yield


def hold_folder(folder: Path) -> IO[str]:
    """Lock `folder` until the returned file is closed, or the process ends, however it ends.

    Raises:
        UserError: another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stream = (folder / ".instance.lock").open("a+", encoding="utf-8")
    if holder := _lock(stream, folder):
        stream.close()
        raise UserError(f"process {holder} is already working on {folder.resolve()}; wait for it, or stop it first")
    return stream
