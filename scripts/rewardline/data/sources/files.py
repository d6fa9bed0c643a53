"""The bytes of files, decompressed."""

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed as its extension says."""
    with path.open("rb") as raw:
        if path.suffix.lower() == ".gz":
            with gzip.open(raw, "rb") as stream:
                yield cast(BinaryIO, stream)
        elif path.suffix.lower() == ".zst":
            yield io.BufferedReader(_Zstd(raw), 1 << 16)
        else:
            yield raw


class _Zstd(io.RawIOBase):
    """The decompressed bytes of one or more zstd frames. Unlike zstandard's own reader it notices a missing end."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        self._frame: Any = None
        self._source = self._ready = b""

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as one step goes; 0 at the end."""
        while not self._ready:
            self._source = self._source or self._stream.read(1 << 14)
            if not self._source:
                if self._frame is not None:
                    raise EOFError("the compressed data ends too early")
                return 0
            if self._frame is None:
                self._frame = self._decompressor.decompressobj()
            self._ready = self._frame.decompress(self._source)
            self._source = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count
