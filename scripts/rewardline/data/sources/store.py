"""Writing of rows in the stored form of a dataset (see `data.stored_rows`)."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path

from rewardline.core.artifacts import artifact_key, make_folder
from rewardline.core.errors import UserError
from rewardline.core.hashing import file_sha256
from rewardline.core.progress import progress
from rewardline.core.settings import JsonObject, Settings
from rewardline.data.parquet import PART_ROWS, PartWriter, join_parts
from rewardline.data.sources.rows import Record, Row, as_row, json_type
from rewardline.data.stored_rows import SCHEMA, StoredDataset, StoredFile, StoredPart, StoredRow

log = logging.getLogger(__name__)

_LOGGED = 3  # unreadable rows whose reasons are logged
_KEYS = 1_000  # top-level keys that the manifest lists; data with ever new keys must not fill the memory


class Input:
    """Rows to store: those of the file `path`, which must not change until it is read, or generated ones.

    Messages and rows call the input `label`.
    """

    def __init__(self, label: str, rows: Iterator[Row], path: Path | None = None) -> None:
        self.label, self.rows, self.path = label, rows, path
        self._state = self._read_state()

    def _read_state(self) -> tuple[int, int, int] | None:
        """What changes when the file is written to: inode, size, and modification time in ns."""
        try:
            stat = self.path.stat() if self.path else None
        except FileNotFoundError as error:
            raise UserError(f"{self.label} no longer exists. Put it back, and run this again") from error
        return (stat.st_ino, stat.st_size, stat.st_mtime_ns) if stat else None

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the file; a `UserError` as by `check_unchanged`."""
        sha256 = file_sha256(self.path) if self.path else ""
        self.check_unchanged()
        return sha256

    def check_unchanged(self) -> None:
        """Raise `UserError` if the file is not as it was when this object was made."""
        if self._read_state() != self._state:
            raise UserError(f"{self.label} changed while it was read. Run this again when nothing writes to it")


@dataclass(frozen=True)
class Source:
    """Where the rows of a dataset come from."""

    settings: JsonObject
    """The source as it is described in the manifest."""
    depends_on: JsonObject
    """What the rows depend on besides the settings: hashes, or a commit."""
    write: Callable[[Path], StoredDataset]
    """Writes the parts into a folder."""
    revision: str | None = None
    linked: Sequence[Path] = ()
    """The manifests of the folders whose files are linked."""


def generated(name: str, kind: str, settings: Settings, values: Iterable[object]) -> Source:
    """Rows that are made of settings alone; `kind` is the name of their source in the manifest, and of their file."""
    inputs = [Input(kind, map(as_row, count(1), values))]
    return Source({kind: settings.as_json()}, {}, lambda folder: write_rows(name, inputs, folder))


def store(name: str, settings: Settings, source: Source, output: Path, program: Path) -> None:
    """Make the folder of a dataset, unless it exists and nothing that it depends on has changed.

    `program`: the module that makes it, whose code it depends on.
    """
    origin = {"name": name, "source": source.settings, "revision": source.revision}
    key = artifact_key(settings, source.depends_on, program, ["orjson", "pyarrow"])
    make_folder(output, key, lambda folder: source.write(folder).model_copy(update=origin), linked=source.linked)


def join_datasets(manifests: list[Path], datasets: list[StoredDataset], folder: Path) -> StoredDataset:
    """Join the parts of several datasets, in this order, in one folder."""
    types: dict[str, set[str]] = {}
    for dataset in datasets:
        for key, kinds in dataset.types.items():
            types.setdefault(key, set()).update(kinds)
    pairs = zip(manifests, datasets, strict=True)
    return StoredDataset(
        rows=sum(dataset.rows for dataset in datasets),
        unreadable=sum(dataset.unreadable for dataset in datasets),
        parts=join_parts([(manifest.parent, part) for manifest, dataset in pairs for part in dataset.parts], folder),
        inputs=[file for dataset in datasets for file in dataset.inputs],
        schema={key: sorted(kinds) for key, kinds in sorted(types.items())[:_KEYS]},
    )


def write_rows(name: str, inputs: list[Input], folder: Path) -> StoredDataset:
    """Write the rows of all inputs to parts in `folder`.

    Raises:
        UserError: there are no rows, or a file vanished or changed while it was read.
    """
    writer = PartWriter[StoredRow](
        folder, SCHEMA, batch_rows=5_000, batch_characters=32 << 20, dictionary=["file", "error"]
    )
    characters: Counter[int] = Counter()  # by number of the part
    types: dict[str, set[str]] = {}
    files: list[StoredFile] = []
    total = total_unreadable = 0
    with progress(f"read {name}") as bar:
        for source in inputs:
            rows = unreadable = 0
            for row in source.rows:
                length = len(row.record or "")
                writer.add(StoredRow(source.label, row.number, row.record, row.error), length)
                characters[(total + rows) // PART_ROWS] += length
                rows += 1
                bar.update(1)
                if row.value is None:
                    unreadable += 1
                    if total_unreadable + unreadable <= _LOGGED:
                        log.warning("cannot read row %d of %s: %s", row.number, source.label, row.error)
                _add_types(types, row.value or {})
            log.info("read %s: %d rows, %d unreadable", source.label, rows, unreadable)
            source.check_unchanged()
            if source.path:
                files.append(StoredFile(file=source.label, rows=rows, unreadable=unreadable, sha256=source.sha256))
            total, total_unreadable = total + rows, total_unreadable + unreadable
    if not total:
        raise UserError(f"{name}: there are no rows to read. Name a file with rows, or ask for at least one pair")
    if len(types) == _KEYS:
        log.warning("%s has %d or more different keys: the manifest lists the first", name, _KEYS)
    log.info("%s: %d rows from %d inputs, %d unreadable", name, total, len(inputs), total_unreadable)
    return StoredDataset(
        rows=total,
        unreadable=total_unreadable,
        parts=[StoredPart(**dict(part), characters=characters[k]) for k, part in enumerate(writer.close())],
        inputs=files,
        schema={key: sorted(kinds) for key, kinds in sorted(types.items())},
    )


def _add_types(types: dict[str, set[str]], record: Record) -> None:
    """Add the JSON types of a record's values to those of each key."""
    for key, value in record.items():
        if key in types:
            types[key].add(json_type(value))
        elif len(types) < _KEYS:
            types[key] = {json_type(value)}
