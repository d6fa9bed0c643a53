"""Readers of local files by extension: JSON Lines, JSON, CSV, TSV and Parquet, the text formats also as .gz and .zst.

A row that cannot be read (not JSON, the wrong number of fields, ...) is a `Row` with an `error`, so that a later stage
counts it; a file that cannot be read is a `UserError`.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa

from rewardline.core.errors import UserError, refused_by_system
from rewardline.data.sources.csv_files import read_table
from rewardline.data.sources.json_files import read_json, read_json_lines
from rewardline.data.sources.parquet_files import read_parquet
from rewardline.data.sources.rows import Row

log = logging.getLogger(__name__)

Reader = Callable[[Path, str], Iterator[Row]]
"""Takes a file and what messages call it."""
READERS: dict[str, Reader] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".csv": read_table,
    ".tsv": read_table,
    ".parquet": read_parquet,
}


def reader(path: Path, label: str, columns: Sequence[str] | None = None) -> Reader:
    """The reader of a file by its extension; a `UserError` for an unknown one. With `columns`, .txt is a table too."""
    name = path.name.lower()
    plain = name.removesuffix(".gz").removesuffix(".zst")
    extension = Path(plain).suffix
    known = READERS.get(extension)
    if columns:
        if known is not read_table and extension != ".txt":
            raise UserError(f"{label}: `columns` names the columns of .csv, .tsv and .txt files, not of this one")
        return partial(read_table, columns=columns)
    if known is None or (known is read_parquet and plain != name):
        raise UserError(
            f"{label}: unknown format. Known extensions: {', '.join(READERS)}; all but .parquet also with .gz or .zst"
        )
    return known


def read(path: Path, label: str | None = None, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Stream the rows of a file; messages call it `label` (default: its path).

    `columns` names the columns of a table that has no line with their names.

    Raises:
        UserError: the file is damaged, of an unknown format, without rows, or without a readable row.
    """
    label = label or str(path)
    count = readable = replaced = 0
    first = last = None
    with damage_explained(label, lambda: last.number if last else 0):
        for last in reader(path, label, columns)(path, label):
            count += 1
            readable += last.error is None
            replaced += last.replaced
            first = first or last
            yield last
    if replaced:
        what = "NaN, infinite numbers, NUL characters or broken UTF-8"
        log.warning("%s: %d rows hold %s; a format that reads such a value rejects the row", label, replaced, what)
    if first is None:
        raise UserError(f"{label} has no rows. Remove it from `files:`, or fill it")
    if not readable:
        raise UserError(
            f"{label}: none of its {count} rows can be read; row {first.number}: {first.error}. "
            "Check that the extension fits the format and that the text is UTF-8"
        )


@contextmanager
def damage_explained(label: str, last_row: Callable[[], int]) -> Iterator[None]:
    """Turn the errors of a damaged file into a `UserError` that names it and the last row that was read."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError) or refused_by_system(error):
            raise
        raise UserError(f"{label} is damaged after row {last_row()}: {error}. Copy or download it again") from error
