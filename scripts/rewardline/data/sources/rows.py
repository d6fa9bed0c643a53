"""Rows as read from a file: an object as JSON text, or the reason why there is none."""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import date, time
from decimal import Decimal
from math import inf, isfinite
from typing import NamedTuple

import orjson

INVALID_TEXT = "\ufdd0"
"""A noncharacter that starts the placeholder of a text that cannot be kept; the reason follows."""
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # an escaped NUL, not an escaped backslash before "u0000"
_TYPES = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    tuple: "array",
    dict: "object",
}
_LEAST_FLOAT, _MOST_FLOAT = 1e-4, 1e16  # between them, both encoders write a number in the same way
_LEVELS = 16  # of lists and objects
_PLAIN = frozenset({str, int, bool, type(None)})
Record = dict[str, object]


class Row(NamedTuple):
    """A row. Either `value` and `record` are set, or `error`."""

    number: int
    """1-based: the physical line of JSON Lines; for other formats the count of records, without the header."""
    value: Record | None
    record: str | None
    """`value` as the text of a JSON object, not escaped to ASCII."""
    error: str | None
    replaced: bool = False
    """Whether values that JSON cannot hold were replaced, by null or by a placeholder."""


class _RowError(ValueError):
    """Why a value cannot be a record."""


class _ReplaceableError(_RowError):
    """A value inside a record cannot be kept, but can be replaced."""


class _DuplicateKeys:
    """Takes the place of an object with duplicate keys until its row is encoded, which makes the row unreadable."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def decode(text: str) -> object:
    """The value of a JSON text; duplicate keys and NaN are left to `as_row`.

    Raises:
        json.JSONDecodeError, ValueError: it is not JSON, or has a number of thousands of digits.
        RecursionError: it is nested too deeply.
    """
    value: object = _decoder.decode(text)
    return value


def decode_many(text: str) -> Iterator[object]:
    """The values of JSON texts that follow each other, with white space between them; errors as of `decode`."""
    end = 0
    while rest := text[end:].lstrip("\ufeff \t\r\n"):
        end = len(text) - len(rest)
        value, end = _decoder.raw_decode(text, end)
        yield value


def plain_row(number: int, line: bytes) -> Row | None:
    """The row of a line of JSON, as `as_row` gives it for the value that `decode` gives; None if there may be another.

    orjson is several times as fast, and reads most lines in the same way. It keeps the last of equal keys and rounds
    large integers without a word: a line with a text that is gone, or with unusual numbers, has to be decoded.
    """
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if type(value) is not dict or 2 * _texts(value) != _quotes(line):
        return None
    data = orjson.dumps(value)
    return None if b"\\" in data and b"\\u0000" in data else Row(number, value, data.decode(), None)


def parse(record: str) -> Record:
    """The object of the text of a row, as `json.loads` reads it."""
    with suppress(orjson.JSONDecodeError):  # nested too deeply
        value: Record = orjson.loads(record)
        if _texts(value) < inf:
            return value
    decoded: Record = json.loads(record)
    return decoded


def _texts(value: object, levels: int = _LEVELS) -> float:
    """The number of texts in a value, with keys; infinite if orjson may read or write it otherwise than `json`."""
    items: Iterable[object]
    if type(value) is dict:
        count: float = len(value)
        items = value.values()
    elif type(value) is list:
        count, items = 0, value
    elif type(value) is float:
        return 0 if value == 0 or _LEAST_FLOAT <= abs(value) < _MOST_FLOAT else inf
    else:
        return int(type(value) is str) if type(value) in _PLAIN else inf
    if not levels:
        return inf
    for item in items:
        count += 1 if type(item) is str else _texts(item, levels - 1)
    return count


def _quotes(data: bytes) -> int:
    """The number of quotation marks around the texts in JSON, without those inside them."""
    if b"\\" not in data:
        return data.count(b'"')
    if b"\\\\" in data:
        data = data.replace(b"\\\\", b"")
    return data.count(b'"') - data.count(b'\\"')


def as_row(number: int, value: object) -> Row:
    """The row of a value: with an error unless it is an object.

    A value that JSON cannot hold is replaced: a number that is not finite by null; a text with a NUL or half a
    surrogate pair, and bytes that are not UTF-8, by a text that starts with `INVALID_TEXT`.
    """
    try:
        try:
            return _row(number, value)
        except _ReplaceableError:
            return _row(number, _replaced(value), replaced=True)
    except _RowError as error:
        return unreadable(number, str(error))
    except RecursionError:
        return unreadable(number, "nested too deeply")


def unreadable(number: int, reason: str) -> Row:
    """A row without a value, for the reason why it cannot be read."""
    return Row(number, None, None, reason)


def json_type(value: object) -> str:
    """The JSON type of a value: null, boolean, integer, number, array, object, or string for all else."""
    return _TYPES.get(type(value), "string")


def _row(number: int, value: object, replaced: bool = False) -> Row:
    if isinstance(value, _DuplicateKeys):
        raise _RowError(value.reason)
    if not isinstance(value, dict):
        raise _RowError(f"not an object: {json_type(value)}")
    try:
        record = _encoded(value)
        if not record.isascii():
            record.encode("utf-8")
    except _RowError:
        raise
    except UnicodeEncodeError as error:
        raise _ReplaceableError("invalid UTF-8 or a lone surrogate") from error
    except ValueError as error:
        raise _ReplaceableError("a number that is not finite") from error
    if "\\u0000" in record and _NUL.search(record):
        raise _ReplaceableError("a NUL character")
    return Row(number, value, record, None, replaced)


def _encoded(value: Record) -> str:
    if _texts(value) < inf:
        with suppress(TypeError):  # a large integer, a lone surrogate, or a key that is not text
            return orjson.dumps(value).decode()
    return _encoder.encode(value)


def _replaced(value: object) -> object:
    """A copy without values that JSON cannot hold; keys are kept, and make the row unreadable if they are invalid."""
    if isinstance(value, dict):
        return {key: _replaced(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    if isinstance(value, str) and (reason := _invalid(value)):
        return INVALID_TEXT + reason
    return value


def _invalid(text: str) -> str:
    """The reason why a text cannot be kept, or an empty text."""
    if "\0" in text:
        return "it contains a NUL character"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "it contains invalid UTF-8 or a lone surrogate"
    return ""


def _text(value: object) -> str:
    """A value that JSON has no type for, as text: dates and times in ISO 8601, decimals in digits, bytes as UTF-8."""
    if isinstance(value, _DuplicateKeys):
        raise _RowError(value.reason)
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return INVALID_TEXT + "bytes that are not UTF-8, in base64: " + base64.b64encode(value).decode("ascii")
    if isinstance(value, date | time):
        return value.isoformat()
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def _object(pairs: list[tuple[str, object]]) -> Record | _DuplicateKeys:
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    keys = [key for key, _ in pairs]
    return _DuplicateKeys(f"duplicate key {next(key for key in keys if keys.count(key) > 1)[:80]!r}")


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=float)
_encoder = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"), default=_text
)
