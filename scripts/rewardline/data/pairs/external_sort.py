"""Rows on disk in buckets by key, to sort or group data of any size in bounded memory; pyarrow sorts in memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_ROWS, _CHARACTERS = 20_000, 48 << 20  # of a bucket
_WAITING_ROWS, _WAITING_CHARACTERS = 10_000, 16 << 20  # in memory over all buckets
_LEAST_WIDTH = 2**20  # of a range of keys that is split again
_KEY = "_key"


def bucket_count(rows: int, characters: int) -> int:
    """How many buckets keep each of them small enough to be held as Python objects."""
    return max(1, -(-rows // _ROWS), -(-characters // _CHARACTERS))


class Buckets:
    """Appends rows to files by ranges of keys in [`low`, `high`); each range is read back in the order of writing.

    A row is the values of the schema's columns. `count` is the number of files at the start, and may be an estimate: a
    range that gets too large is split again. Rows that fit into one file are kept in memory, as they are to be read.
    """

    def __init__(self, folder: Path, schema: pa.Schema, count: int, low: int = 0, high: int = 2**64) -> None:
        folder.mkdir(parents=True)
        self._folder, self._row_schema = folder, schema
        self._schema = schema.append(pa.field(_KEY, pa.uint64()))
        self._low, self._high = low, high
        self._waiting: list[list[tuple[object, ...]]] = [[] for _ in range(count)]
        self._firsts = np.array([self._first(index) for index in range(count)], dtype=np.uint64)
        self._waiting_rows = self._waiting_characters = 0
        self._writers: list[pa.RecordBatchStreamWriter | None] = [None] * count
        self._sizes = [[0, 0] for _ in range(count)]
        self._held: list[pa.RecordBatch] | None = [] if count == 1 else None  # rows that no file has

    def add(self, key: int, row: Sequence[object], characters: int) -> None:
        """Append a row, with the length of its texts, to the bucket of `key`; no smaller key is in a later bucket."""
        index = self._index(key)
        self._waiting[index].append((*row, key))
        self._waiting_rows += 1
        self._waiting_characters += characters
        self._sizes[index][1] += characters
        if self._waiting_rows >= _WAITING_ROWS or self._waiting_characters >= _WAITING_CHARACTERS:
            self._flush()

    def add_columns(self, keys: npt.NDArray[np.uint64], rows: pa.RecordBatch, characters: int) -> None:
        """Append rows in columns, with the length of their texts, as `add` appends each of them."""
        self._flush()
        self._split(rows.append_column(self._schema.field(_KEY), pa.array(keys)), characters)

    def drain(self) -> Iterator[pa.Table]:
        """The rows of each range, by ascending keys; nothing is left on disk after the last one."""
        self._flush()
        if self._held:
            yield self._taken_from_memory()
        for writer in filter(None, self._writers):
            writer.close()
        for index, writer in enumerate(self._writers):
            if writer is not None:
                yield from self._read(index)
                self._path(index).unlink()
        self._folder.rmdir()

    def _taken_from_memory(self) -> pa.Table:
        """The rows that no file has; they are not kept."""
        held, self._held = self._held, None
        return pa.Table.from_batches(held).drop_columns(_KEY)

    def _index(self, key: int) -> int:
        return (key - self._low) * len(self._waiting) // (self._high - self._low)

    def _first(self, index: int) -> int:
        """The least key in a bucket."""
        return self._low + -(-(self._high - self._low) * index // len(self._waiting))

    def _read(self, index: int) -> Iterator[pa.Table]:
        low, high = self._first(index), self._first(index + 1)
        count = bucket_count(*self._sizes[index])
        with pa.OSFile(str(self._path(index))) as stream, pa.ipc.open_stream(stream) as reader:
            if count > 2 and high - low > _LEAST_WIDTH:
                parts = Buckets(self._folder / f"{index}", self._row_schema, count, low, high)
                for batch in reader:
                    parts._split(batch, batch.nbytes)
                yield from parts.drain()
            else:
                yield reader.read_all().drop_columns(_KEY)

    def _split(self, batch: pa.RecordBatch, characters: int) -> None:
        """Append rows in columns, with their keys."""
        buckets = np.searchsorted(self._firsts, batch.column(_KEY).to_numpy(), side="right") - 1
        for index in np.unique(buckets).tolist():
            chosen = np.flatnonzero(buckets == index)
            rows = batch if len(chosen) == len(batch) else batch.take(pa.array(chosen))
            self._sizes[index][1] += characters * len(rows) // len(batch)
            self._write(index, rows)

    def _flush(self) -> None:
        for index, rows in enumerate(self._waiting):
            if rows:
                columns = zip(*rows, strict=True)
                arrays = [pa.array(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
                self._write(index, pa.RecordBatch.from_arrays(arrays, schema=self._schema))
                self._waiting[index] = []
        self._waiting_rows = self._waiting_characters = 0

    def _write(self, index: int, rows: pa.RecordBatch) -> None:
        self._sizes[index][0] += rows.num_rows
        batches = [rows]
        if self._held is not None:
            self._held.append(rows)
            if bucket_count(*self._sizes[index]) == 1:
                return
            batches, self._held = self._held, None
        writer = self._writers[index] or pa.ipc.new_stream(self._path(index), self._schema)
        for batch in batches:
            writer.write_batch(batch)
        self._writers[index] = writer

    def _path(self, index: int) -> Path:
        return self._folder / f"{index}.arrow"
