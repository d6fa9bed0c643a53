"""Local files to raw rows: JSON Lines, JSON, CSV, TSV and Parquet, the text formats also as .gz and .zst.

`read` streams one file. A row that cannot be read (not JSON, the wrong number of fields, ...) is a `Row` with an
`error`, so that a later stage counts it; a file that cannot be read is a `UserError`. Memory is bounded by a row
(text), by a row group (Parquet) or by the file (`.json`, which is loaded whole: use JSON Lines for what does not fit).
"""

import csv
import io
import json
import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from rewardline.core.errors import UserError
from rewardline.data.sources.cells import Parser, parsed, parser_of
from rewardline.data.sources.files import open_bytes
from rewardline.data.sources.rows import Row, as_row, decode, json_type, unreadable

log = logging.getLogger(__name__)

_BOM = b"\xef\xbb\xbf"
_BATCH_ROWS = 500  # of a Parquet file, in memory as Python objects
_LOOKED_AT = 50  # rows of a table that say what its columns hold
_LONGEST_LINE = 32 << 20  # bytes of a line of JSON
_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons"}
_FIELD_LIMIT = 32 << 20  # characters of a CSV field; also how far a quote that is never closed can reach


def read(path: Path, label: str | None = None, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Stream the rows of a file; messages call it `label` (default: its path).

    `columns` names the columns of a table that has no line with their names.
    Raises `UserError` when the file is damaged, of an unknown format, without rows, or without a readable row.
    """
    label = label or str(path)
    count = readable = last = mended = 0
    first = None
    with damage_explained(label, lambda: last):
        for item in reader(path, label, columns)(path, label):
            count += 1
            last = item.number
            readable += item.error is None
            mended += item.mended
            first = first or item
            yield item
    if mended:
        log.warning(
            "%s: %d rows hold NaN, infinite numbers, NUL characters or broken UTF-8, which cost a row where read",
            label,
            mended,
        )
    if first is None:
        raise UserError(f"{label} has no rows. Take it out of `files:`, or fill it")
    if not readable:
        raise UserError(
            f"{label}: none of its {count} rows can be read; row {first.number}: {first.error}. "
            "Check that the extension tells the format and that the text is UTF-8"
        )


@contextmanager
def damage_explained(label: str, last: Callable[[], int]) -> Iterator[None]:
    """Turn what a damaged file raises into a `UserError` that names it; `last` tells the last row that was read."""
    try:
        yield
    except (EOFError, zlib.error, zstandard.ZstdError, pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:  # the system's word (no permission, ...), not the file's content
            raise
        raise UserError(f"{label} is damaged after row {last()}: {error}. Copy or download it again") from error


def _json_lines(path: Path, _label: str) -> Iterator[Row]:
    with open_bytes(path) as stream:
        for number, line in enumerate(iter(partial(stream.readline, _LONGEST_LINE), b""), 1):
            if len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = stream.readline(_LONGEST_LINE)
                yield unreadable(number, f"a line of more than {_LONGEST_LINE >> 20} MiB")
                continue
            text = (line.removeprefix(_BOM) if number == 1 else line).strip()
            if not text:
                continue
            try:
                value = decode(text.decode("utf-8"))
            except UnicodeDecodeError as error:
                yield unreadable(number, f"invalid UTF-8 at byte {error.start + 1} of the line")
            except json.JSONDecodeError as error:
                yield unreadable(number, f"not JSON: {error.msg} at column {error.colno}")
            except RecursionError:
                yield unreadable(number, "nested too deeply")
            except ValueError as error:
                yield unreadable(number, f"not JSON: {error}")
            else:
                yield as_row(number, value)


def _json(path: Path, label: str) -> Iterator[Row]:
    with open_bytes(path) as stream:
        data = stream.read()
    if not data.strip():
        return
    try:
        value = decode(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and _is_object(data.removeprefix(_BOM).lstrip().partition(b"\n")[0]):
            log.info("%s holds an object per line: read as JSON Lines", label)
            yield from _json_lines(path, label)
            return
        raise UserError(
            f"{label} is not JSON: {error}. Mend it, or name it .jsonl if it has an object per line"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{label} is not UTF-8 at byte {error.start + 1}. Convert it, for example with iconv"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{label} cannot be read as JSON: {error}. Save its rows as JSON Lines (.jsonl)") from error
    lists = [value] if isinstance(value, list) else []
    if isinstance(value, dict):
        lists = [item for item in value.values() if isinstance(item, list) and any(isinstance(v, dict) for v in item)]
    if len(lists) != 1:
        found = f"an object with {len(lists)} such lists" if isinstance(value, dict) else json_type(value)
        raise UserError(
            f"{label} must be a list of objects, or an object that holds exactly one such list; it is {found}. "
            "Save its rows as one list, or as JSON Lines (.jsonl)"
        )
    for number, item in enumerate(lists[0], 1):
        yield as_row(number, item)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


class _Lines:
    """The lines of a text; those after the first one since the last `mark` can be read again."""

    def __init__(self, text: Iterator[str]) -> None:
        self._text = text
        self._taken: list[str] = []
        self._again: list[str] = []
        self.number = 0
        """How many lines were read so far."""

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._text)
        self._taken.append(line)
        self.number += 1
        return line

    def mark(self) -> int:
        """Forget what was read; the number of the next line."""
        self._taken.clear()
        return self.number + 1

    def rewind(self) -> None:
        """Go back to the line after the first one since the mark."""
        self._again.extend(reversed(self._taken[1:]))
        self.number -= len(self._taken) - 1
        self._taken.clear()


def _records(path: Path, delimiter: str, quoting: int) -> Iterator[tuple[int, list[str] | str]]:
    """Yield each record's first line (1-based) with its fields, or with the reason why there are none.

    After broken quoting the very next line is a new record, so that a stray quote costs the line it stands in.
    Invalid bytes become lone surrogates, which `as_row` refuses.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    with open_bytes(path) as stream:
        lines = _Lines(io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline=""))
        records = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)  # type: ignore[arg-type]
        while True:
            first = lines.mark()
            try:
                fields = next(records)
            except StopIteration:
                return
            except csv.Error as error:
                lines.rewind()
                yield first, f"line {first}: broken quoting ({error})"
            else:
                if fields:
                    yield first, fields


def _table(path: Path, label: str, columns: Sequence[str] | None = None) -> Iterator[Row]:
    delimiter = "\t" if ".tsv" in path.name.lower() else _delimiter(path, len(columns) if columns else None)
    quoting = _quoting(path) if delimiter == "\t" else csv.QUOTE_MINIMAL
    records = _records(path, delimiter, quoting)
    header: Sequence[str] | str = columns or next(records, (0, []))[1]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if isinstance(header, str) or repeated or as_row(0, dict.fromkeys(header)).error:
        reason = header if isinstance(header, str) else f"{repeated} occur twice" if repeated else "they are not UTF-8"
        where = "`columns` must name them" if columns else "its first line must hold the names of the columns"
        raise UserError(f"{label}: {where}, but {reason}. Mend that line, or set `columns` if the file has none such")
    log.info(
        "%s: separated by %s%s; %s the columns: %s",
        label,
        _DELIMITERS[delimiter],
        ", quotes as plain characters" if quoting == csv.QUOTE_NONE else "",
        "`columns` names" if columns else "its first line names",
        ", ".join(header)[:200],
    )
    first = list(islice(records, _LOOKED_AT))
    parsers = _parsers(header, [fields for _, fields in first if isinstance(fields, list)], label)
    for number, (line, fields) in enumerate(chain(first, records), 1):
        if isinstance(fields, str):
            yield unreadable(number, fields)
        elif len(fields) != len(header):
            yield unreadable(number, f"line {line}: {len(fields)} fields instead of {len(header)}")
        else:
            row: dict[str, Any] = dict(zip(header, fields, strict=True))
            for name, parse in parsers.items():
                row[name] = parsed(row[name], parse)
            yield as_row(number, row)


def _parsers(header: Sequence[str], rows: list[list[str]], label: str) -> dict[str, Parser]:
    """By column: what parses its cells, if those of the first rows spell lists or objects."""
    columns = zip(*(fields for fields in rows if len(fields) == len(header)), strict=True)
    found = {name: parser for name, cells in zip(header, columns, strict=False) if (parser := parser_of(cells))}
    for name, (_, what) in found.items():
        log.info("%s: the cells of %s are read as %s", label, name, what)
    return {name: parse for name, (parse, _) in found.items()}


def _delimiter(path: Path, wanted: int | None = None) -> str:
    """What splits the first line of a .csv file into `wanted`, else into the most columns; a comma if in doubt."""
    widths = {}
    for delimiter in _DELIMITERS:
        _, header = next(_records(path, delimiter, csv.QUOTE_MINIMAL), (0, ""))
        widths[delimiter] = len(header) if isinstance(header, list) else 0
    return max(widths, key=lambda delimiter: (widths[delimiter] == wanted, widths[delimiter]))


def _quoting(path: Path) -> int:
    """How to read quotes in a tab-separated file: as CSV does where all of it keeps to that, else as plain characters.

    Many such files are written without quoting, so that a text that starts with a quote would swallow what follows.
    """

    def whole(quoting: int) -> bool:
        width = 0
        for _, fields in _records(path, "\t", quoting):
            width = width or len(fields)
            if isinstance(fields, str) or len(fields) != width:
                return False
        return True

    return csv.QUOTE_NONE if not whole(csv.QUOTE_MINIMAL) and whole(csv.QUOTE_NONE) else csv.QUOTE_MINIMAL


def _parquet(path: Path, label: str) -> Iterator[Row]:
    with open_parquet(path, label) as file:
        number = 0
        for batch in file.iter_batches(_BATCH_ROWS):
            for value in values_of(batch):
                number += 1
                yield value._replace(number=number) if isinstance(value, Row) else as_row(number, value)


def open_parquet(path: Path, label: str) -> Any:
    """The `ParquetFile` at `path`; a `UserError` if it is none, or has two columns of the same name."""
    try:
        file = pq.ParquetFile(path, pre_buffer=False)  # halves the memory
    except pa.ArrowInvalid as error:
        raise UserError(f"{label} is not a Parquet file, or damaged: {error}. Copy or download it again") from error
    names = file.schema_arrow.names
    if len(set(names)) < len(names):
        raise UserError(f"{label} has two columns of the same name ({', '.join(sorted(names))}). Rename one")
    return file


def values_of(batch: Any) -> list[Any]:
    """The rows of a batch as dicts; when that fails (text that is not UTF-8, a date after 9999), row by row."""
    try:
        return cast(list[Any], batch.to_pylist())
    except (ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            return [unreadable(0, f"a value that cannot be read: {error}")]
        return [value for index in range(batch.num_rows) for value in values_of(batch.slice(index, 1))]


_READERS: dict[str, Callable[[Path, str], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _table,
    ".tsv": _table,
    ".parquet": _parquet,
}


def reader(path: Path, label: str, columns: Sequence[str] | None = None) -> Callable[[Path, str], Iterator[Row]]:
    """What reads a file of this extension; `UserError` for an unknown one. With `columns`, .txt is a table too."""
    name = path.name.lower()
    plain = name.removesuffix(".gz").removesuffix(".zst")
    extension = Path(plain).suffix
    found = _READERS.get(extension)
    if columns:
        if found is not _table and extension != ".txt":
            raise UserError(f"{label}: `columns` names the columns of .csv, .tsv and .txt files, not of this one")
        return partial(_table, columns=columns)
    if found is None or (found is _parquet and plain != name):
        raise UserError(
            f"{label}: unknown format. Known extensions: {', '.join(_READERS)}; all but .parquet also with .gz or .zst"
        )
    return found
