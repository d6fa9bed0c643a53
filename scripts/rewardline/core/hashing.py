"""Canonical JSON and hashes of content."""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

FileState = tuple[int, int, int, int]
_XXH3: Final[dict[FileState, str]] = {}  # by the state of the file


def canonical(value: Any) -> str:
    """`value` as JSON with sorted keys and no spaces: equal values are equal strings."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest(text: str) -> str:
    """The first 16 hex digits of the SHA-256 of `text`."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def file_state(path: Path) -> FileState:
    """What changes when a file is written to: device, inode, size, and time in ns; the same for hard links."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def file_xxh3(path: Path) -> str:
    """The 128-bit XXH3 of a file's content, in hex: as fast as memory, to notice damage; once per process and file."""
    import xxhash  # here, as Snakemake's own process may lack it

    state = file_state(path)
    if state not in _XXH3:
        hasher, block = xxhash.xxh3_128(), memoryview(bytearray(1 << 20))
        with path.open("rb", buffering=0) as stream:
            while size := stream.readinto(block):
                hasher.update(block[:size])
        _XXH3[state] = hasher.hexdigest()
    return _XXH3[state]


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
