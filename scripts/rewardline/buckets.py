"""Rows on disk, in buckets by key: what lets data of any size be sorted or grouped in bounded memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

_ROWS = 20_000
_CHARACTERS = 48 << 20
_WAITING = 10_000  # rows in memory over all buckets


def bucket_count(rows: int, characters: int) -> int:
    """How many buckets keep each of them small enough to be held as Python objects."""
    return max(1, -(-rows // _ROWS), -(-characters // _CHARACTERS))


class Buckets:
    """Appends rows to `count` files; each is read back whole, in the order of writing, and deleted."""

    def __init__(self, folder: Path, schema: pa.Schema, count: int) -> None:
        folder.mkdir(parents=True)
        self._folder, self._schema = folder, schema
        self._waiting: list[list[dict[str, Any]]] = [[] for _ in range(count)]
        self._writers: list[pa.RecordBatchStreamWriter | None] = [None] * count
        self._batch = max(8, min(500, _WAITING // count))

    def add(self, key: int, row: dict[str, Any]) -> None:
        """Append a row to the bucket of `key`, a number below 2^64; a smaller key lies in no later bucket."""
        index = key * len(self._waiting) >> 64
        self._waiting[index].append(row)
        if len(self._waiting[index]) >= self._batch:
            self._flush(index)

    def drain(self) -> Iterator[list[dict[str, Any]]]:
        """The rows of each bucket, by ascending key ranges; nothing is left on disk after the last one."""
        for index in range(len(self._waiting)):
            self._flush(index)
            if (writer := self._writers[index]) is not None:
                writer.close()
        for index, writer in enumerate(self._writers):
            if writer is None:
                continue
            with self._path(index).open("rb") as stream, pa.ipc.open_stream(stream) as reader:
                rows = reader.read_all().to_pylist()
            self._path(index).unlink()
            yield rows
        self._folder.rmdir()

    def _path(self, index: int) -> Path:
        return self._folder / f"{index}.arrow"

    def _flush(self, index: int) -> None:
        if not self._waiting[index]:
            return
        writer = self._writers[index]
        if writer is None:
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            writer = pa.ipc.new_stream(self._path(index), self._schema, options=options)
            self._writers[index] = writer
        writer.write_batch(pa.RecordBatch.from_pylist(self._waiting[index], schema=self._schema))
        self._waiting[index] = []
