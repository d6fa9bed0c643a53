"""Rows in Parquet files: how they are written, in numbered parts, and read, a row group in memory at a time."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel

from rewardline.core.artifacts import MANIFEST, listed, verify
from rewardline.core.errors import UserError, first_line, refused_by_system
from rewardline.core.files import link_or_copy
from rewardline.core.hashing import file_sha256

Row = dict[str, object]
T = TypeVar("T")
S = TypeVar("S", bound=np.generic)
P = TypeVar("P", bound="PartFile")
_MANIFESTS: Final = (MANIFEST, "stats.json")
PART: Final = "part-{:05d}.parquet"
"""File name of a part, by its number."""
PART_ROWS: Final = 50_000
"""Rows of a part, unless it is the last one."""
_READ_ROWS: Final = 200  # converted to Python objects at once


class PartFile(BaseModel):
    """A Parquet file in a manifest."""

    file: str
    rows: int


class PartEntry(PartFile):
    """A Parquet file in a manifest, with its hash."""

    sha256: str


class PartWriter(Generic[T]):
    """Writes rows to numbered Parquet files, at least one; equal rows give equal bytes.

    A row is an object with an attribute for each column of the schema. A row group is written when it has `batch_rows`
    rows or `batch_characters` characters.
    """

    def __init__(
        self,
        folder: Path,
        schema: pa.Schema,
        *,
        name: str = PART,
        part_rows: int = PART_ROWS,
        batch_rows: int = 2_000,
        batch_characters: int = 16 << 20,
        dictionary: bool | list[str] = True,
    ) -> None:
        """`name` is a template for the names of the files, `dictionary` the columns that are dictionary-encoded."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._schema, self._name, self._dictionary = folder, schema, name, dictionary
        self._part_rows, self._batch_rows, self._batch_characters = part_rows, batch_rows, batch_characters
        self._values = attrgetter(*schema.names)
        self._batch: list[tuple[object, ...]] = []
        self._tables: list[pa.Table] = []
        self._waiting = self._characters = 0
        self._room = min(batch_rows, part_rows)  # rows of the next row group, at most
        self._writer: pq.ParquetWriter | None = None
        self._sizes: list[int] = []

    def add(self, row: T, characters: int | None = None) -> None:
        """Append a row; `characters` is the length of its texts, if it is known."""
        values = self._values(row)
        self._batch.append(values)
        self._waiting += 1
        self._characters += characters_of(values) if characters is None else characters
        if self._waiting >= self._room or self._characters >= self._batch_characters:
            self._flush()

    def add_columns(self, rows: pa.Table) -> None:
        """Append rows in columns, in the same row groups as by `add`; a writer gets its rows in one of both ways."""
        ends = np.cumsum(characters_in(rows))
        start = 0
        while start < len(rows):
            before = int(ends[start - 1]) if start else 0
            full = int(np.searchsorted(ends, before + self._batch_characters - self._characters)) + 1
            end = min(full, start + self._room - self._waiting, len(rows))
            self._tables.append(rows.slice(start, end - start))
            self._waiting += end - start
            self._characters += int(ends[end - 1]) - before
            if self._waiting >= self._room or self._characters >= self._batch_characters:
                self._flush()
            start = end

    def _flush(self) -> None:
        if self._writer is None:
            path = self._folder / self._name.format(len(self._sizes))
            self._writer = pq.ParquetWriter(path, self._schema, compression="zstd", use_dictionary=self._dictionary)
            self._sizes.append(0)
        if self._tables:
            rows = pa.concat_tables(self._tables).combine_chunks()
        else:
            columns = zip(*self._batch, strict=True) if self._batch else [()] * len(self._schema)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
            rows = pa.Table.from_arrays(arrays, schema=self._schema)
        self._writer.write_table(rows)
        self._sizes[-1] += self._waiting
        self._batch, self._tables = [], []
        self._waiting = self._characters = 0
        if self._sizes[-1] == self._part_rows:
            self._writer.close()
            self._writer = None
        self._room = min(self._batch_rows, self._part_rows - self._sizes[-1] if self._writer else self._part_rows)

    def close(self) -> list[PartEntry]:
        """Write the remaining rows and finish the last file; the entry of each file."""
        if self._waiting or not self._sizes:
            self._flush()
        if self._writer is not None:
            self._writer.close()
        names = map(self._name.format, range(len(self._sizes)))
        return [
            PartEntry(file=name, rows=rows, sha256=file_sha256(self._folder / name))
            for name, rows in zip(names, self._sizes, strict=True)
        ]


def characters_of(value: object) -> int:
    """The length of the texts in a row, or in a value of one."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, (list, tuple)):
        return sum(map(characters_of, value))
    return sum(map(characters_of, value.values())) if isinstance(value, dict) else 0


def characters_in(rows: pa.Table) -> npt.NDArray[np.int64]:
    """The length of the texts in each row, as of `characters_of`: int64 [N]."""
    return _added(len(rows), (_characters(column.combine_chunks()) for column in rows.columns))


def _added(count: int, columns: Iterable[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    total = np.zeros(count, dtype=np.int64)
    for column in columns:
        total += column
    return total


def _characters(values: pa.Array) -> npt.NDArray[np.int64]:
    kind = values.type
    if pa.types.is_string(kind):
        return np.asarray(pc.fill_null(pc.utf8_length(values), 0), dtype=np.int64)
    if pa.types.is_struct(kind):
        return _added(len(values), (_characters(pc.struct_field(values, n)) for n in range(kind.num_fields)))
    if pa.types.is_list(kind):
        ends = np.cumsum(np.append(0, _characters(pc.list_flatten(values))))
        offsets = np.cumsum(np.append(0, np.asarray(pc.fill_null(pc.list_value_length(values), 0), dtype=np.int64)))
        lengths: npt.NDArray[np.int64] = ends[offsets[1:]] - ends[offsets[:-1]]
        return lengths
    return np.zeros(len(values), dtype=np.int64)


def count_rows(parts: Iterable[PartFile]) -> int:
    """The number of rows in parts."""
    return sum(part.rows for part in parts)


def join_parts(parts: Iterable[tuple[Path, P]], folder: Path) -> list[P]:
    """Link or copy parts, given with their folders, to one folder with new numbers; their new entries.

    Raises:
        UserError: a part is missing or damaged.
    """
    folder.mkdir(exist_ok=True)
    joined = []
    for number, (source, part) in enumerate(parts):
        name = PART.format(number)
        verify(source / part.file)
        link_or_copy(source / part.file, folder / name)
        joined.append(part.model_copy(update={"file": name}))
    return joined


def read_batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file, or of the parts of a folder in order, with all columns or some of them.

    Raises:
        UserError: a file is missing or damaged.
    """
    for part in _parts(path):
        with reading(part), pq.ParquetFile(part) as file:
            for group in range(file.num_row_groups):
                yield from file.read_row_group(group, columns=columns).to_batches(max_chunksize=_READ_ROWS)


def _parts(path: Path) -> list[Path]:
    """The parts of a folder, with those that are lost; or the path of a file."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in {*path.iterdir(), *listed(path, *_MANIFESTS)} if file.match("part-*.parquet"))


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of `read_batches` as dictionaries."""
    for batch in read_batches(path, columns):
        yield from batch.to_pylist()


def read_typed_rows(path: Path, kind: type[T]) -> Iterator[T]:
    """The rows of `read_batches` as objects of the class `kind`, whose fields are the columns in their order."""
    for batch in read_batches(path):
        yield from map(kind, *(column.to_pylist() for column in batch.columns))


def read_array(path: Path, _kind: type[S]) -> npt.NDArray[S]:
    """The array in a .npy file, memory-mapped; raises as `read_batches`."""
    with reading(path):
        array: npt.NDArray[S] = np.load(path, mmap_mode="r")
        return array


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Verify a file or a folder of parts; turn what reading raises into a `UserError` that names it and the remedy."""
    for part in _parts(path):
        verify(part, *_MANIFESTS)
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        if refused_by_system(error):
            raise
        raise UserError(f"{path} cannot be read ({first_line(error)}); delete its folder and run again") from error
