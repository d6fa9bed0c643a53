"""Pairs on disk: Parquet parts that are written and read a batch at a time."""

from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from rewardline.core.hashing import file_sha256
from rewardline.data.pairs.external_sort import Row, characters_of
from rewardline.data.parquet import read_batches
from rewardline.data.schema import PAIR_SCHEMA, Pair, RejectedRow, arrow_schema

MESSAGES = PAIR_SCHEMA.field("prompt").type
"""The type of the column `prompt`."""
T = TypeVar("T", Pair, RejectedRow)
_BATCH_CHARACTERS = 16 << 20  # held in memory at most to write or read a part; a single row may have more


class PartEntry(BaseModel):
    """What a manifest says of a part."""

    file: str
    rows: int
    sha256: str


class PartWriter(Generic[T]):
    """Writes rows to numbered Parquet parts of at most `rows_per_part` rows; there is at least one part."""

    def __init__(self, folder: Path, kind: type[T], rows_per_part: int = 50_000, batch: int = 2_000) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._limit, self._batch = folder, rows_per_part, batch
        self._schema = arrow_schema(kind)
        self._names = self._schema.names
        self._values = attrgetter(*self._names)
        self._rows: list[Row] = []
        self._characters = 0
        self._writer: pq.ParquetWriter | None = None
        self._sizes: list[int] = []
        self.parts: list[Path] = []

    def add(self, row: T) -> None:
        """Append a row."""
        values = dict(zip(self._names, self._values(row), strict=True))
        self._rows.append(values)
        self._characters += characters_of(values)
        if len(self._rows) >= self._batch or self._characters >= _BATCH_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            self.parts.append(self._folder / f"part-{len(self.parts):05d}.parquet")
            self._writer = pq.ParquetWriter(self.parts[-1], self._schema, compression="zstd")
            self._sizes.append(0)
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._sizes[-1] += len(self._rows)
        self._rows, self._characters = [], 0
        if self._sizes[-1] >= self._limit:
            self._writer.close()
            self._writer = None

    def close(self) -> None:
        """Write the remaining rows and finish the last part."""
        if self._rows or not self.parts:
            self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @property
    def total(self) -> int:
        """Number of written rows; complete after `close`."""
        return sum(self._sizes)

    def entries(self) -> list[PartEntry]:
        """The entry of each part; complete after `close`."""
        return [
            PartEntry(file=part.name, rows=rows, sha256=file_sha256(part))
            for part, rows in zip(self.parts, self._sizes, strict=True)
        ]


def read_pairs(folder: Path) -> Iterator[Pair]:
    """The pairs of a folder of Parquet parts, in order, a batch in memory at a time.

    Raises:
        UserError: a part is damaged.
    """
    for part in _parts(folder):
        for batch in read_batches(part):
            for row in batch.to_pylist():
                yield Pair(**row)


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of a folder of Parquet parts as dictionaries; as `read_pairs`, but with some of the columns."""
    for part in _parts(folder):
        yield from read_part(part, columns)


def read_part(part: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of a Parquet file, a batch in memory at a time.

    Raises:
        UserError: it is missing or damaged.
    """
    for batch in read_batches(part, columns):
        yield from batch.to_pylist()


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))
