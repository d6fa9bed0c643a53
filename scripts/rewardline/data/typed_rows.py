"""Rows of JSON objects as typed Arrow columns, in bounded memory: their schema first, then batch by batch."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice

import pyarrow as pa

from rewardline.core.hashing import canonical
from rewardline.data.sources.rows import Record, parse
from rewardline.data.stored_rows import StoredRow

ROWS_AT_ONCE = 500
_ERRORS = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError)


class TypedColumns:
    """The columns of all keys of rows, in the order in which they come first.

    Values of several kinds in one column, such as text and lists, are the JSON text of each.
    """

    def __init__(self, rows: Iterable[StoredRow]) -> None:
        """Find the type of each column; rows that cannot be read have none."""
        types: dict[str, pa.DataType] = {}
        for batch in batches(rows):
            records = [record_of(row) for row in batch]
            for name in dict.fromkeys(name for record in records for name in record):
                kind = _kind([record.get(name) for record in records])
                types[name] = _common(types[name], kind) if name in types else kind
        self._types = {name: None if kind is None or not _is_storable(kind) else kind for name, kind in types.items()}

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema."""
        return pa.schema([(name, pa.string() if kind is None else kind) for name, kind in self._types.items()])

    def arrays(self, records: Sequence[Record]) -> list[pa.Array]:
        """The columns of some rows."""
        return [self._array([record.get(name) for record in records], kind) for name, kind in self._types.items()]

    def _array(self, values: list[object], kind: pa.DataType | None) -> pa.Array:
        if kind is None:
            return pa.array([None if value is None else canonical(value) for value in values], pa.string())
        try:
            return pa.array(values, kind)
        except _ERRORS:  # an integer of 2^53 or more, where others are not integers
            return pa.array([_as_floats(value) for value in values], kind)


def record_of(row: StoredRow) -> Record:
    """The object of a row; empty for one that cannot be read."""
    return {} if row.record is None else parse(row.record)


def batches(rows: Iterable[StoredRow]) -> Iterator[list[StoredRow]]:
    """Some hundred rows at a time."""
    rows = iter(rows)
    while batch := list(islice(rows, ROWS_AT_ONCE)):
        yield batch


def _kind(values: list[object]) -> pa.DataType | None:
    """The Arrow type of values; None for values of several kinds."""
    with suppress(*_ERRORS):
        return pa.array(values).type
    return None


def _common(first: pa.DataType | None, second: pa.DataType | None) -> pa.DataType | None:
    """The least type that takes the values of both."""
    if first is None or second is None or first == second:
        return first if first == second else None
    with suppress(*_ERRORS):
        schemas = [pa.schema([("value", kind)]) for kind in (first, second)]
        return pa.unify_schemas(schemas, promote_options="permissive").field("value").type
    return None


def _is_storable(kind: pa.DataType) -> bool:
    """Whether Parquet can hold a type: it has no objects without keys."""
    if pa.types.is_struct(kind):
        return kind.num_fields > 0 and all(_is_storable(field.type) for field in kind)
    return not pa.types.is_list(kind) or _is_storable(kind.value_type)


def _as_floats(value: object) -> object:
    if isinstance(value, dict):
        return {key: _as_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_floats(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
