"""The bytes of files, decompressed."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

CODECS = {".gz": "gzip", ".zst": "zstd"}
_BUFFER = 1 << 16  # bytes; lines are long


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed by its extension; reading them raises `OSError` if they are damaged."""
    codec = CODECS.get(path.suffix.lower())
    if codec is None:
        with path.open("rb", _BUFFER) as plain:
            yield plain
    else:
        with pa.input_stream(str(path), compression=codec) as stream:
            yield io.BufferedReader(stream, _BUFFER)
