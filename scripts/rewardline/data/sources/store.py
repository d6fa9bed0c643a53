"""Writing of rows in the stored form of a dataset (see `data.stored_rows`)."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from rewardline.core.artifacts import artifact_key, make_folder
from rewardline.core.errors import UserError
from rewardline.core.files import link_or_copy
from rewardline.core.hashing import file_sha256
from rewardline.core.progress import progress
from rewardline.core.settings import JsonObject, Settings
from rewardline.data.sources.rows import Row, as_row, json_type
from rewardline.data.stored_rows import SCHEMA, StoredDataset, StoredFile, StoredPart

log = logging.getLogger(__name__)

PART_ROWS = 50_000
_BATCH_ROWS = 5_000
_BATCH_CHARACTERS = 32 << 20
_LOGGED = 3  # unreadable rows whose reasons are logged
_KEYS = 1_000  # top-level keys that the manifest lists; data with ever new keys must not fill the memory


def _state(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written to: inode, size, and modification time in ns; None if it does not exist."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


class SourceFile:
    """A file to read, which must not change until it is read; messages and rows call it `label`."""

    def __init__(self, label: str, path: Path) -> None:
        self.label = label
        self.path = path
        self._state = _state(path)

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of its content."""
        return file_sha256(self.path)

    def check_exists(self) -> None:
        """Raise `UserError` if the file did not exist when this object was made."""
        if self._state is None:
            raise UserError(f"{self.label} no longer exists. Put it back, and run this again")

    def check_unchanged(self) -> str:
        """The SHA-256 of the file; `UserError` if it is not as it was when this object was made."""
        if _state(self.path) is None:
            raise UserError(f"{self.label} vanished while it was read. Put it back, and run this again")
        sha256 = self.sha256
        if _state(self.path) != self._state:
            raise UserError(f"{self.label} changed while it was read. Run this again when nothing writes to it")
        return sha256


@dataclass(frozen=True)
class Input:
    """Rows to store: those of a file, or of a generator when `file` is None."""

    label: str
    rows: Iterator[Row]
    file: SourceFile | None = None


@dataclass(frozen=True)
class Source:
    """Where the rows of a dataset come from."""

    settings: JsonObject
    """As the manifest names the source."""
    depends_on: JsonObject
    """What the rows depend on besides the settings: hashes, or a commit."""
    write: Callable[[Path], StoredDataset]
    """Writes the parts into a folder."""
    revision: str | None = None


def generated(name: str, kind: str, settings: Settings, values: Iterable[object]) -> Source:
    """Rows that are made of settings alone; `kind` is the name of their source in the manifest, and of their file."""
    inputs = [Input(kind, map(as_row, count(1), values))]
    return Source({kind: settings.as_json()}, {}, lambda folder: write_rows(name, inputs, folder))


def store(name: str, settings: Settings, source: Source, output: Path, program: Path) -> None:
    """Make the folder of a dataset, unless it is there and nothing that it depends on has changed.

    `program`: the module that makes it, whose code it depends on.
    """
    origin = {"name": name, "source": source.settings, "revision": source.revision}
    key = artifact_key(settings, source.depends_on, program, ["pyarrow"])
    make_folder(output, key, lambda folder: source.write(folder).model_copy(update=origin))


def join_parts(manifests: list[Path], contents: list[StoredDataset], folder: Path) -> StoredDataset:
    """Put the parts of several datasets into one folder, in this order."""
    parts: list[StoredPart] = []
    types: dict[str, set[str]] = {}
    for manifest, each in zip(manifests, contents, strict=True):
        for part in each.parts:
            name = f"part-{len(parts):05d}.parquet"
            link_or_copy(manifest.parent / part.file, folder / name)
            parts.append(part.model_copy(update={"file": name}))
        for key, own in each.types.items():
            types.setdefault(key, set()).update(own)
    return StoredDataset(
        rows=sum(each.rows for each in contents),
        unreadable=sum(each.unreadable for each in contents),
        parts=parts,
        inputs=[file for each in contents for file in each.inputs],
        schema={key: sorted(own) for key, own in sorted(types.items())[:_KEYS]},
    )


def write_rows(name: str, inputs: list[Input], folder: Path) -> StoredDataset:
    """Write the rows of all inputs to parts in `folder`.

    Raises:
        UserError: there are no rows, or a file vanished or changed while it was read.
    """
    statistics = _Statistics(name)
    files = []
    with RowWriter(folder) as writer, progress(f"read {name}") as bar:
        for each in inputs:
            rows, unreadable = statistics.rows, statistics.unreadable
            if each.file is not None:
                each.file.check_exists()
            for row in each.rows:
                writer.add(each.label, row)
                statistics.add(each.label, row)
                if statistics.rows % 1000 == 0:
                    bar.update(1000)
            rows, unreadable = statistics.rows - rows, statistics.unreadable - unreadable
            log.info("read %s: %d rows, %d unreadable", each.label, rows, unreadable)
            if each.file is not None:
                sha256 = each.file.check_unchanged()
                files.append(StoredFile(file=each.label, rows=rows, unreadable=unreadable, sha256=sha256))
        bar.update(statistics.rows % 1000)
    if not statistics.rows:
        raise UserError(f"{name}: there are no rows to read. Name a file with rows, or ask for at least one pair")
    log.info("%s: %d rows from %d inputs, %d unreadable", name, statistics.rows, len(inputs), statistics.unreadable)
    return StoredDataset(
        rows=statistics.rows,
        unreadable=statistics.unreadable,
        parts=writer.listing(),
        inputs=files,
        schema=statistics.types(),
    )


class _Statistics:
    """Counts rows, and collects the JSON types that the values of each top-level key have."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._types: dict[str, set[str]] = {}
        self.rows = 0
        self.unreadable = 0

    def add(self, label: str, row: Row) -> None:
        """Count a row; the first unreadable ones are logged with their reasons."""
        self.rows += 1
        if row.value is None:
            self.unreadable += 1
            if self.unreadable <= _LOGGED:
                log.warning("cannot read row %d of %s: %s", row.number, label, row.error)
            return
        for key, value in row.value.items():
            if key in self._types:
                self._types[key].add(json_type(value))
            elif len(self._types) < _KEYS:
                self._types[key] = {json_type(value)}

    def types(self) -> dict[str, list[str]]:
        """The types of each key, both sorted."""
        if len(self._types) == _KEYS:
            log.warning("%s has %d or more different keys: the manifest lists the first", self._name, _KEYS)
        return {key: sorted(types) for key, types in sorted(self._types.items())}


class RowWriter:
    """Writes rows to the parts of a dataset's folder; equal rows give equal bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: pq.ParquetWriter | None = None
        self._batch: list[tuple[str, int, str | None, str | None]] = []
        self._characters = 0
        self._parts: list[StoredPart] = []

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._close()

    def add(self, file: str, row: Row) -> None:
        """Append a row that was read from `file`."""
        self._batch.append((file, row.number, row.record, row.error))
        self._characters += len(row.record or "")
        if len(self._batch) == min(_BATCH_ROWS, self._room()) or self._characters >= _BATCH_CHARACTERS:
            self._flush()

    def listing(self) -> list[StoredPart]:
        """The parts for the manifest; complete after the `with` block."""
        return self._parts

    def _room(self) -> int:
        return PART_ROWS - self._parts[-1].rows if self._writer is not None else PART_ROWS

    def _flush(self) -> None:
        if not self._batch:
            return
        if self._writer is None:
            part = StoredPart(file=f"part-{len(self._parts):05d}.parquet", rows=0, characters=0, sha256="")
            self._parts.append(part)
            self._writer = pq.ParquetWriter(
                self._folder / part.file, SCHEMA, compression="zstd", use_dictionary=["file", "error"]
            )
        columns = [
            pa.array(column, field.type) for column, field in zip(zip(*self._batch, strict=True), SCHEMA, strict=True)
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
        self._parts[-1].rows += len(self._batch)
        self._parts[-1].characters += self._characters
        self._batch, self._characters = [], 0
        if self._room() == 0:
            self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._parts[-1].sha256 = file_sha256(self._folder / self._parts[-1].file)
            self._writer = None
