"""The stored form of a dataset: its rows as read, before anything is interpreted.

A dataset's folder, written by `sources.store`, holds Parquet parts with the columns of `SCHEMA`, in the order of
reading, and a `manifest.json`. An unreadable row is there too, with `record` null and the reason in `error`.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
from pydantic import BaseModel, Field

from rewardline.core.artifacts import Manifest
from rewardline.core.errors import UserError
from rewardline.core.settings import JsonObject
from rewardline.data.parquet import PartFile, read_typed_rows

SCHEMA: Final = pa.schema([("file", pa.string()), ("row", pa.int64()), ("record", pa.string()), ("error", pa.string())])


class StoredRow(NamedTuple):
    """A row: `record`, the text of a JSON object, or the `error` that reading it raised. `row` counts from 1."""

    file: str
    row: int
    record: str | None
    error: str | None


class StoredPart(PartFile):
    """A part in the manifest; `characters` is the length of its records."""

    characters: int
    sha256: str


class StoredFile(BaseModel):
    """A file that was read, in the manifest."""

    file: str
    rows: int
    unreadable: int
    sha256: str


class StoredDataset(Manifest):
    """The manifest of a dataset; `store` fills in where it comes from."""

    name: str = ""
    source: JsonObject = Field({})
    revision: str | None = None
    rows: int
    unreadable: int
    parts: list[StoredPart]
    inputs: list[StoredFile]
    types: dict[str, list[str]] = Field(alias="schema")
    """The JSON types of the values of each top-level key."""


def read_stored_rows(manifest: Path, part: tuple[int, int] = (0, 1)) -> Iterator[StoredRow]:
    """The rows of a dataset, or of part number `part[0]` (from 0) of `part[1]`.

    Raises:
        UserError: a file is missing or damaged, or its number of rows is not that of the manifest.
    """
    for entry in StoredDataset.read(manifest).parts[part[0] :: part[1]]:
        path, count = manifest.parent / entry.file, 0
        for row in read_typed_rows(path, StoredRow):
            yield row
            count += 1
        if count != entry.rows:
            raise UserError(f"{path} has {count} rows, not {entry.rows}; delete {manifest.parent} and run again")


def read_row_range(manifest: Path, first: int, end: int) -> Iterator[StoredRow]:
    """The rows of a dataset from number `first` (from 0) to `end` (exclusive); no more of its files is read.

    Raises:
        UserError: a file is missing or damaged.
    """
    start = 0
    for entry in StoredDataset.read(manifest).parts:
        if start < end and first < start + entry.rows:
            rows = read_typed_rows(manifest.parent / entry.file, StoredRow)
            yield from islice(rows, max(0, first - start), end - start)
        start += entry.rows
