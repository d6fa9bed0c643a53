"""Files and folders that are written completely or not at all, and JSON files."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rewardline.core.errors import UserError
from rewardline.core.locks import exclusive

_PARTIAL = ".partial"


def home_expanded(path: str) -> str:
    """A path with the home folder in place of a leading `~`; unchanged if there is no such home."""
    with suppress(RuntimeError):
        return str(Path(path).expanduser()) if path.startswith("~") else path
    return path


def local_path(path: str) -> Path:
    """The path that a person wrote; see `home_expanded`."""
    return Path(home_expanded(path))


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; run the stage that makes it first") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run the stage that makes it again") from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, completely or not at all."""
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces `path` if the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to write to; it replaces `folder` if the block ends without an error.

    Two processes that write the same folder take turns.
    """
    partial = folder.with_name(f".{folder.name}{_PARTIAL}")
    old = folder.with_name(f".{folder.name}.old")
    with exclusive(folder.with_name(f".{folder.name}.lock")):
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            apply_umask(partial)
            if folder.exists():
                folder.replace(old)
            partial.replace(folder)
        finally:
            for leftover in (partial, old):
                shutil.rmtree(leftover, ignore_errors=True)


def final_name(folder: str) -> str:
    """The name that a folder of `atomic_folder` has in the end."""
    return folder[1:].removesuffix(_PARTIAL) if folder.startswith(".") and folder.endswith(_PARTIAL) else folder


def apply_umask(folder: Path) -> None:
    """Give files the permissions that the umask allows; some libraries make files that only the owner can read."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1:
            path.chmod(0o666 & ~mask)


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source` where the file system allows it, otherwise a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def writable_temporary_folder() -> str | None:
    """Have temporary files go to a folder that can be written; a warning where that is not the one that is wanted.

    Raises:
        UserError: there is none.
    """
    wanted = os.environ.get("TMPDIR", "/tmp")
    try:
        found = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise UserError("no folder takes temporary files; set TMPDIR to one with free space") from error
    if Path(wanted).is_dir() and Path(found).samefile(wanted):
        return None
    os.environ["TMPDIR"] = found
    return f"{wanted} takes no temporary files; they go to {found}. Set TMPDIR to choose another folder"
