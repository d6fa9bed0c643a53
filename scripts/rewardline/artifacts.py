"""Artefacts: folders that appear whole or not at all, canonical JSON and content hashes."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rewardline.cli import UserError, log

NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK}
"""What locking fails with on file systems without locks, such as Lustre mounted without `-o flock`."""


def canonical(value: Any) -> str:
    """`value` as JSON that does not depend on the order of keys, so that equal settings are equal strings."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def settings_argument(text: str) -> dict[str, Any]:
    """The value of a `--settings` option: a JSON object, or `@` and the path of a file that holds one."""
    source = Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
    try:
        value = json.loads(source)
    except json.JSONDecodeError as error:
        raise UserError(f"--settings is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError("--settings must be a JSON object")
    return value


def digest(text: str) -> str:
    """The first 16 hex digits of the SHA-256 of `text`."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """The content of a JSON file; a `UserError` names the file when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; run the stage that makes it first") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run the stage that makes it again") from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; the file appears whole or not at all."""
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Write `facts` and the SHA-256 of the files that lie in `folder` to its `manifest.json`."""
    sha256 = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}
    write_json(folder / "manifest.json", {**facts, "sha256": sha256})


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes the place of `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


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


@contextmanager
def publish(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to write to; it takes the place of `folder` when the block ends without an error.

    Until then `folder` stays as it was. Two processes that publish the same folder take turns.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    old = folder.with_name(f".{folder.name}.old")
    with exclusive(folder.with_name(f".{folder.name}.lock")):
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            share(partial)
            if folder.exists():
                folder.replace(old)
            partial.replace(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(old, ignore_errors=True)


def share(folder: Path) -> None:
    """Give files the permissions that the user's umask allows; some libraries write for the owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1:
            path.chmod(0o666 & ~mask)


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source` where the file system allows it, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
