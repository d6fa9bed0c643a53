"""Rows on disk in buckets by key, to sort or group data of any size in bounded memory; pyarrow sorts in memory."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from rewardline.data.parquet import Row, characters_of

_ROWS, _CHARACTERS = 20_000, 48 << 20  # of a bucket
_WAITING_ROWS, _WAITING_CHARACTERS = 10_000, 16 << 20  # in memory over all buckets
_LEAST_WIDTH = 2**20  # of a range of keys that is split again
_KEY = "_key"
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


def bucket_count(rows: int, characters: int) -> int:
    """How many buckets keep each of them small enough to be held as Python objects."""
    return max(1, -(-rows // _ROWS), -(-characters // _CHARACTERS))


class Buckets:
    """Appends rows to files by ranges of keys in [`low`, `high`); each range is read back in the order of writing.

    `count` is the number of files at the start, and may be an estimate: a range that gets too large is split again.
    """

    def __init__(self, folder: Path, schema: pa.Schema, count: int, low: int = 0, high: int = 2**64) -> None:
        folder.mkdir(parents=True)
        self._folder, self._row_schema = folder, schema
        self._schema = schema.append(pa.field(_KEY, pa.uint64()))
        self._low, self._high = low, high
        self._waiting: list[list[Row]] = [[] for _ in range(count)]
        self._waiting_rows = self._waiting_characters = 0
        self._writers: list[pa.RecordBatchStreamWriter | None] = [None] * count
        self._sizes = [[0, 0] for _ in range(count)]

    def add(self, key: int, row: Row) -> None:
        """Append a row to the bucket of `key`; no smaller key is in a later bucket."""
        index = (key - self._low) * len(self._waiting) // (self._high - self._low)
        size = characters_of(row)
        self._waiting[index].append({**row, _KEY: key})
        self._waiting_rows += 1
        self._waiting_characters += size
        self._sizes[index][0] += 1
        self._sizes[index][1] += size
        if self._waiting_rows >= _WAITING_ROWS or self._waiting_characters >= _WAITING_CHARACTERS:
            self._flush()

    def drain(self) -> Iterator[list[Row]]:
        """The rows of each range, by ascending keys; nothing is left on disk after the last one."""
        self._flush()
        for writer in filter(None, self._writers):
            writer.close()
        for index, writer in enumerate(self._writers):
            if writer is not None:
                yield from self._read(index)
                self._path(index).unlink()
        self._folder.rmdir()

    def _read(self, index: int) -> Iterator[list[Row]]:
        low, high = (self._low + -(-(self._high - self._low) * (index + k) // len(self._waiting)) for k in (0, 1))
        count = bucket_count(*self._sizes[index])
        if count > 2 and high - low > _LEAST_WIDTH:
            parts = Buckets(self._folder / f"{index}", self._row_schema, count, low, high)
            for key, row in self._rows(index):
                parts.add(key, row)
            yield from parts.drain()
        else:
            yield [row for _, row in self._rows(index)]

    def _rows(self, index: int) -> Iterator[tuple[int, Row]]:
        with self._path(index).open("rb") as stream, pa.ipc.open_stream(stream) as reader:
            for batch in reader:
                for row in batch.to_pylist():
                    yield row.pop(_KEY), row

    def _path(self, index: int) -> Path:
        return self._folder / f"{index}.arrow"

    def _flush(self) -> None:
        for index, rows in enumerate(self._waiting):
            if rows:
                writer = self._writers[index] or pa.ipc.new_stream(self._path(index), self._schema, options=_OPTIONS)
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=self._schema))
                self._writers[index], self._waiting[index] = writer, []
        self._waiting_rows = self._waiting_characters = 0
