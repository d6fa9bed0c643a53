"""The rows of a dataset, from the hub, local files or the demo generator, in Parquet parts."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from rewardline.core.errors import UserError
from rewardline.core.files import link_or_copy, read_json
from rewardline.core.hashing import file_sha256
from rewardline.core.progress import progress
from rewardline.data.sources import hub, readers
from rewardline.data.sources.local_files import expand_files
from rewardline.data.sources.rows import Parts, Row, as_row, json_type
from rewardline.data.sources.settings import DownloadSettings

log = logging.getLogger(__name__)
_GONE = (0,)  # the stamp of a file that is not there
_SHOWN = 3
_KEYS = 1_000  # top-level keys that the manifest names; data with ever new keys must not fill the memory


@dataclass(frozen=True)
class Input:
    """Where rows come from: a file, or a generator when `path` is None."""

    label: str
    path: Path | None
    rows: Iterator[Row]


def join(manifests: list[Path], folder: Path) -> dict[str, Any]:
    """Put the parts of several folders into one, in this order; what the manifest says of them."""
    entries = [(path.parent, read_json(path)) for path in manifests]
    parts: list[dict[str, Any]] = []
    types: dict[str, set[str]] = {}
    for source, entry in entries:
        for part in entry["parts"]:
            name = f"part-{len(parts):05d}.parquet"
            link_or_copy(source / part["file"], folder / name)
            parts.append({**part, "file": name})
        for key, found in entry["schema"].items():
            types.setdefault(key, set()).update(found)
    sums = {key: sum(entry[key] for _, entry in entries) for key in ("rows", "unreadable")}
    inputs = [item for _, entry in entries for item in entry["inputs"]]
    schema = {key: sorted(found) for key, found in sorted(types.items())[:_KEYS]}
    return {**sums, "parts": parts, "inputs": inputs, "schema": schema}


def open_inputs(settings: DownloadSettings) -> tuple[str | None, list[Input]]:
    """The resolved commit of a hub dataset, and what to read.

    Raises:
        UserError: there is not exactly one source, or it cannot be read.
    """
    given = [name for name in ("demo", "files", "hub") if getattr(settings, name) is not None]
    if len(given) != 1:
        raise UserError(f"--settings must have exactly one of demo, files, hub; they have {given or 'none'}")
    if settings.demo is not None:
        from rewardline.data.demo import generator

        values = generator.generate(settings.demo.pairs, settings.demo.seed)
        return None, [Input("demo", None, map(as_row, count(1), values))]
    commit, files = None, [hub.HubFile(file, Path(file)) for file in _existing(settings.files or [])]
    if settings.hub is not None:
        commit, files = hub.fetch(
            settings.hub,
            settings.revision or "main",
            config=settings.config,
            split=settings.split or "train",
            data_files=settings.data_files,
            data_dir=settings.data_dir,
        )
    columns = settings.columns
    for label, path in files:  # all of them before the first is read
        readers.reader(path, label, columns)
    return commit, [Input(label, path, readers.read(path, label, columns)) for label, path in files]


def _existing(patterns: list[str]) -> list[str]:
    """The files of literal paths and globs, each once; a literal path may hold characters of a glob."""
    found = (
        name for pattern in patterns for name in ([pattern] if Path(pattern).is_file() else expand_files([pattern]))
    )
    return list(dict.fromkeys(found))


def write(name: str, inputs: list[Input], folder: Path) -> dict[str, Any]:
    """Write the parts of all inputs to `folder`; what the manifest says of parts, inputs and keys."""
    tally = Tally(name)
    read = []
    with Parts(folder) as parts, progress(f"read {name}") as bar:
        for item in inputs:
            rows, unreadable = tally.rows, tally.unreadable
            before = _stamp(item.path)
            if before == _GONE:
                raise UserError(f"{item.label} is not there any more. Put it back, and run this again")
            for row in item.rows:
                parts.add(item.label, row)
                tally.add(item.label, row)
                if tally.rows % 1000 == 0:
                    bar.update(1000)
            rows, unreadable = tally.rows - rows, tally.unreadable - unreadable
            log.info("read %s: %d rows, %d unreadable", item.label, rows, unreadable)
            if item.path is not None:
                entry = {"file": item.label, "rows": rows, "unreadable": unreadable}
                if _stamp(item.path) == _GONE:
                    raise UserError(f"{item.label} vanished while it was read. Put it back, and run this again")
                read.append({**entry, "sha256": file_sha256(item.path)})
                if _stamp(item.path) != before:
                    raise UserError(f"{item.label} changed while it was read. Run this again when nothing writes to it")
        bar.update(tally.rows % 1000)
    if not tally.rows:
        raise UserError(f"{name}: there are no rows to read. Name a file with rows, or ask for at least one pair")
    log.info("%s: %d rows from %d inputs, %d unreadable", name, tally.rows, len(inputs), tally.unreadable)
    counts = {"rows": tally.rows, "unreadable": tally.unreadable}
    return {**counts, "parts": parts.listing(), "inputs": read, "schema": tally.schema()}


def _stamp(path: Path | None) -> tuple[int, ...]:
    """What changes when a file is written to."""
    if path is None:
        return ()
    try:
        stat = path.stat()
    except FileNotFoundError:
        return _GONE
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


class Tally:
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
            if self.unreadable <= _SHOWN:
                log.warning("cannot read row %d of %s: %s", row.number, label, row.error)
            return
        for key, value in row.value.items():
            if key in self._types:
                self._types[key].add(json_type(value))
            elif len(self._types) < _KEYS:
                self._types[key] = {json_type(value)}

    def schema(self) -> dict[str, list[str]]:
        """The types of each key, both sorted."""
        if len(self._types) == _KEYS:
            log.warning("%s has %d or more different keys: the manifest names the first", self._name, _KEYS)
        return {key: sorted(types) for key, types in sorted(self._types.items())}
