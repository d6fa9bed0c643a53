"""Rows of Parquet files."""

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rewardline.core.errors import UserError
from rewardline.data.sources.rows import Record, Row, as_row, unreadable

_BATCH_ROWS = 500  # in memory as Python objects
_TEMPLATE_INPUTS = ("tools", "chat_template_kwargs")
_SHORT = re.compile(r"\bfloat\b")
_CALLS = ("tools", "tool_calls", "tool_call", "functionCall", "function_call", "functionResponse", "function_response")
_FILLED = re.compile(rf"\b({'|'.join(_CALLS)}|chat_template_kwargs|input): (large_)?(list|struct)")


def read_parquet(path: Path, label: str) -> Iterator[Row]:
    """A row for each row of the file; memory is bounded by a row group."""
    with open_parquet(path, label) as file:
        number = 0
        for batch in file.iter_batches(_BATCH_ROWS):
            for value in values_of(batch):
                number += 1
                yield value._replace(number=number) if isinstance(value, Row) else as_row(number, value)


def open_parquet(path: Path, label: str) -> pq.ParquetFile:
    """The Parquet file at `path`; a `UserError` if it is damaged or has two columns of the same name."""
    try:
        file = pq.ParquetFile(path, pre_buffer=False)  # halves the memory
    except pa.ArrowInvalid as error:
        raise UserError(f"{label} is not a Parquet file, or damaged: {error}. Copy or download it again") from error
    names = file.schema_arrow.names
    if len(set(names)) < len(names):
        raise UserError(f"{label} has two columns of the same name ({', '.join(sorted(names))}). Rename one")
    return file


def values_of(batch: pa.RecordBatch) -> list[Record | Row]:
    """The rows of a batch; for one that cannot be read (text that is not UTF-8, a date after 9999) a `Row` says why."""
    try:
        values: list[dict[str, object]] = _in_few_digits(batch).to_pylist()
        is_filled = _FILLED.search(str(batch.schema)) is not None
        return [_without_filling(value) if is_filled else value for value in values]
    except (ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            return [unreadable(0, f"a value that cannot be read: {error}")]
        return [value for index in range(batch.num_rows) for value in values_of(batch.slice(index, 1))]


def _in_few_digits(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch whose numbers of single precision are those of the fewest digits that they stand for: 0.3 is 0.3.

    Their own value is 0.300000012, which would be another number than the 0.3 of a text, of JSON or of a setting.
    """
    if not _SHORT.search(str(batch.schema)):
        return batch
    columns = []
    for column in batch.columns:
        as_text, as_double = _with(column.type, pa.string()), _with(column.type, pa.float64())
        columns.append(column if as_text == column.type else column.cast(as_text).cast(as_double))
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def _with(kind: pa.DataType, number: pa.DataType) -> pa.DataType:
    """A type with `number` in place of numbers of single precision."""
    if pa.types.is_float32(kind):
        return number
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_with(field.type, number)) for field in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_with(kind.value_type, number), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        item = kind.value_field.with_type(_with(kind.value_type, number))
        return pa.large_list(item) if pa.types.is_large_list(kind) else pa.list_(item)
    return kind


def _without_filling(value: Record) -> Record:
    """A row whose tools, calls and variables have no nulls: a column has every key of all its rows, null in others."""
    return {key: _filled(item, key in _TEMPLATE_INPUTS) for key, item in value.items()}


def _filled(value: object, is_input: bool) -> object:
    if isinstance(value, dict):
        calls = (*_CALLS, "input") if value.get("type") == "tool_use" else _CALLS
        items = {key: _filled(item, is_input or key in calls) for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not None or not is_input}
    return [_filled(item, is_input) for item in value] if isinstance(value, list) else value
