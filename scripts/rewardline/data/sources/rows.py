"""The raw form of a data set: its rows as read, before anything is interpreted.

A data set's folder holds `part-00000.parquet`, ... with the columns of `SCHEMA`, in the order of reading, and a
`manifest.json`. An unreadable row is there too, with `record` null and the reason in `error`.
"""

import base64
import json
import re
from datetime import date, time
from decimal import Decimal
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from rewardline.core.hashing import file_sha256

SCHEMA = pa.schema([("file", pa.string()), ("row", pa.int64()), ("record", pa.string()), ("error", pa.string())])
PART_ROWS = 50_000
_BATCH_ROWS = 5_000
_BATCH_CHARACTERS = 32 << 20
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # an escaped NUL, not an escaped backslash before "u0000"
FLAW = "\ufdd0"  # a noncharacter: starts what stands for a text that cannot be kept, and says why; never read as text
_TYPES = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    tuple: "array",
    dict: "object",
}


class Row(NamedTuple):
    """A row as read. Either `value` and `record` are set, or `error`."""

    number: int
    """1-based: the physical line of JSON Lines; for other formats the count of records, without the header."""
    value: dict[str, Any] | None
    record: str | None
    """`value` as the text of a JSON object, not escaped to ASCII."""
    error: str | None
    mended: bool = False
    """Whether something in it stands for what cannot be kept."""


class _RowError(ValueError):
    """Why a value cannot be a record."""


class _FlawError(_RowError):
    """A flaw in a value that can be taken out of its row."""


class _Flaw:
    """Stands for a JSON value that must not be accepted, until the row that holds it is encoded."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def decode(text: str) -> Any:
    """The value of a JSON text. Duplicate keys and NaN are let through for now: `as_row` deals with them.

    Raises `json.JSONDecodeError`, another `ValueError` (a number of thousands of digits) or `RecursionError`.
    """
    return _decoder.decode(text)


def as_row(number: int, value: Any) -> Row:
    """The row of a value: with an error unless it is an object.

    A flaw in one place costs only what reads that place: a number that is not finite becomes null, a text with a NUL
    or half a surrogate pair, and bytes that are not UTF-8, become a text that starts with `FLAW`.
    """
    try:
        return Row(number, value, _encode(value), None)
    except _FlawError:
        return _as_mended_row(number, value)
    except _RowError as error:
        return unreadable(number, str(error))


def _as_mended_row(number: int, value: Any) -> Row:
    try:
        mended = _mended(value)
        return Row(number, mended, _encode(mended), None, mended=True)
    except _RowError as error:
        return unreadable(number, str(error))
    except RecursionError:
        return unreadable(number, "nested too deeply")


def _mended(value: Any) -> Any:
    """A copy in which nothing is left that JSON cannot hold, but for flaws of a whole row (duplicate or bad keys)."""
    if isinstance(value, dict):
        return {key: _mended(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mended(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    if isinstance(value, str) and _flawed(value):
        return FLAW + _flawed(value)
    return value


def _flawed(text: str) -> str:
    """What makes a text one that cannot be kept, or nothing."""
    if "\0" in text:
        return "it contains a NUL character"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "it contains invalid UTF-8 or a lone surrogate"
    return ""


def unreadable(number: int, reason: str) -> Row:
    """A row that stays in the data without a value."""
    return Row(number, None, None, reason)


def json_type(value: Any) -> str:
    """The JSON type of a value: null, boolean, integer, number, array, object, or string for all else."""
    return _TYPES.get(type(value), "string")


def _encode(value: Any) -> str:
    if isinstance(value, _Flaw):
        raise _RowError(value.reason)
    if not isinstance(value, dict):
        raise _RowError(f"not an object: {json_type(value)}")
    try:
        record = _encoder.encode(value)
        if not record.isascii():
            record.encode("utf-8")
    except _RowError:
        raise
    except RecursionError as error:
        raise _RowError("nested too deeply") from error
    except UnicodeEncodeError as error:
        raise _FlawError("invalid UTF-8 or a lone surrogate") from error
    except ValueError as error:
        raise _FlawError("a number that is not finite") from error
    if "\\u0000" in record and _NUL.search(record):
        raise _FlawError("a NUL character")
    return record


def _text(value: Any) -> str:
    """What JSON has no type for: ISO 8601 for dates and times, digits for decimals, UTF-8 for bytes."""
    if isinstance(value, _Flaw):
        raise _RowError(value.reason)
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return FLAW + "bytes that are not UTF-8, in base64: " + base64.b64encode(value).decode("ascii")
    if isinstance(value, date | time):
        return value.isoformat()
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Flaw:
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    keys = [key for key, _ in pairs]
    return _Flaw(f"duplicate key {next(key for key in keys if keys.count(key) > 1)[:80]!r}")


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=float)
_encoder = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"), default=_text
)


class Parts:
    """Writes rows to the parts of a data set's folder; equal rows give equal bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None
        self._batch: list[tuple[str, int, str | None, str | None]] = []
        self._characters = 0
        self._paths: list[Path] = []
        self._counts: list[int] = []
        self._sizes: list[int] = []

    def __enter__(self) -> "Parts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def add(self, file: str, row: Row) -> None:
        """Append a row that was read from `file`."""
        self._batch.append((file, row.number, row.record, row.error))
        self._characters += len(row.record or "")
        if len(self._batch) == min(_BATCH_ROWS, self._room()) or self._characters >= _BATCH_CHARACTERS:
            self._flush()

    def listing(self) -> list[dict[str, Any]]:
        """The parts for the manifest: file, rows, characters, sha256. To be called after the `with` block."""
        return [
            {"file": path.name, "rows": rows, "characters": size, "sha256": file_sha256(path)}
            for path, rows, size in zip(self._paths, self._counts, self._sizes, strict=True)
        ]

    def _room(self) -> int:
        return PART_ROWS - self._counts[-1] if self._writer is not None else PART_ROWS

    def _flush(self) -> None:
        if not self._batch:
            return
        if self._writer is None:
            self._paths.append(self._folder / f"part-{len(self._paths):05d}.parquet")
            self._counts.append(0)
            self._sizes.append(0)
            self._writer = pq.ParquetWriter(
                self._paths[-1], SCHEMA, compression="zstd", use_dictionary=["file", "error"]
            )
        columns = [
            pa.array(column, field.type) for column, field in zip(zip(*self._batch, strict=True), SCHEMA, strict=True)
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
        self._counts[-1] += len(self._batch)
        self._sizes[-1] += self._characters
        self._batch, self._characters = [], 0
        if self._room() == 0:
            self._writer.close()
            self._writer = None
