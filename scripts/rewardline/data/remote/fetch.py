"""Copies of files from elsewhere: complete and of one version, or not there at all.

An interrupted download leaves its bytes and their version in a hidden folder, and is continued where it stopped if the
file has not changed and its server can begin there; else it starts again.
"""

import logging
import shutil
from pathlib import Path

from rewardline.core.artifacts import make_folder, restored
from rewardline.core.errors import UserError
from rewardline.core.files import read_json, write_json
from rewardline.core.hashing import canonical, digest, file_sha256
from rewardline.core.locks import exclusive
from rewardline.core.progress import progress
from rewardline.data.remote.addresses import file_name, shown
from rewardline.data.remote.fetched import FetchedFile, FetchSettings
from rewardline.data.remote.stores import look_up, open_file
from rewardline.data.remote.versions import NotReachableError, Version

log = logging.getLogger(__name__)


def fetch(name: str, settings: FetchSettings, folder: Path) -> None:
    """Make the folder of a file of the dataset `name`, unless it has the file in this version, or what is pinned.

    Raises:
        UserError: the file cannot be read, changes meanwhile, or is not the one that is pinned.
    """
    if (settings.version or settings.sha256) and restored(folder, _key(settings)):
        return
    version = look_up(settings.address)
    if settings.sha256 is None:
        settings = settings.replace(version=version)
    work = folder.with_name(f".{folder.name}.download")

    def build(out: Path) -> FetchedFile:
        content = work / "content"
        _download(settings.address, version, content)
        sha256 = file_sha256(content)
        if settings.sha256 not in (None, sha256):
            content.unlink()
            raise UserError(
                f"{shown(settings.address)} has SHA-256 {sha256}, not {settings.sha256} as `sha256` of {name} says. "
                "Correct `sha256` if this is what you want; else ask whoever serves it, or take it from elsewhere"
            )
        size, file = content.stat().st_size, file_name(settings.address)
        log.info("fetched %s: %d bytes, SHA-256 %s", shown(settings.address), size, sha256)
        content.replace(out / file)
        return FetchedFile(address=settings.address, file=file, size=size, sha256=sha256)

    with exclusive(folder.with_name(f".{folder.name}.fetching")):
        make_folder(folder, _key(settings), build)
        shutil.rmtree(work, ignore_errors=True)


def _key(settings: FetchSettings) -> str:
    """What the copy was made under. No code counts: without network, a copy must not be lost by an edit."""
    return digest(canonical(settings.as_json()))


def _download(address: str, version: Version, path: Path) -> None:
    """Write a file of this version, from where an earlier call was interrupted.

    Raises:
        UserError: it changed meanwhile, or is not complete.
    """
    state = path.with_name("version.json")
    if not (version.is_exact and state.is_file() and read_json(state) == version.as_json()):
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(state, version.as_json())
    path.touch()
    while (start := path.stat().st_size) != version.size or not start:
        try:
            _continue(address, version, path, start)
            break
        except NotReachableError as error:
            if path.stat().st_size <= start or not version.is_exact:
                raise
            log.warning("%s; continuing", error)
    size = path.stat().st_size
    if look_up(address) != version or version.size not in (None, size):
        path.unlink()
        raise UserError(
            f"{shown(address)} changed while it was read, or is short ({size} of {version.size} bytes). Run this again"
        )


def _continue(address: str, version: Version, path: Path, start: int) -> None:
    """Add the bytes from `start` on, or write all of them where the server cannot begin there."""
    total = version.size
    with open_file(address, start, version) as (position, blocks), path.open("r+b") as stream:
        stream.truncate(position)
        stream.seek(position)
        if position:
            log.info("continuing %s at byte %d", shown(address), position)
        with progress(f"fetch {file_name(address)}", total=total, unit="B", start=position) as bar:
            for block in blocks:
                stream.write(block)
                bar.update(len(block))
