"""Rows as read from a file: an object as JSON text, or the reason why there is none."""

import base64
import json
import re
from collections.abc import Iterator
from datetime import date, time
from decimal import Decimal
from math import isfinite
from typing import NamedTuple

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
        record = _encoder.encode(value)
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
