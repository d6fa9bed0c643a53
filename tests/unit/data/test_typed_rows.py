"""Rows of JSON as typed columns."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rewardline.data import typed_rows
from rewardline.data.stored_rows import StoredRow
from rewardline.data.typed_rows import TypedColumns, batches, record_of


def read_back(*records: Any) -> tuple[pa.Schema, list[dict[str, Any]]]:
    """The records as Parquet gives them back, written one at a time."""
    rows = [StoredRow("f", k, None if one is None else json.dumps(one), None) for k, one in enumerate(records)]
    columns, sink = TypedColumns(rows), pa.BufferOutputStream()
    with pq.ParquetWriter(sink, columns.schema) as writer:
        for batch in batches(rows):
            arrays = columns.arrays([record_of(row) for row in batch])
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=columns.schema))
    return columns.schema, pq.read_table(pa.BufferReader(sink.getvalue())).to_pylist()


@pytest.fixture(autouse=True, params=[1, 500])
def rows_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typed_rows, "ROWS_AT_ONCE", request.param)


@pytest.mark.parametrize(
    "values",
    [
        ["a", None, "ä"],
        [1, 2**60, None],
        [True, False],
        [1, 2.5, None],
        [[], None, [1.5]],
        [None, None],
        [{"a": 1, "b": [{"c": "x"}]}, None, {"a": None, "b": []}],
        [[{"role": "user", "content": "x"}], [{"role": "user", "content": None}]],
    ],
)
def test_values_of_one_kind_keep_it(values: list[Any]) -> None:
    _, rows = read_back(*({"v": value} for value in values))
    assert [row["v"] for row in rows] == values


@pytest.mark.parametrize(
    "values", [["a", ["b"]], [1, "1"], [True, 1], [{}, {}], [2**70, 1], [{"a": 1}, {"a": "x"}], [[1], 1]]
)
def test_values_of_several_kinds_are_their_json(values: list[Any]) -> None:
    schema, rows = read_back(*({"v": value} for value in values))
    assert schema.field("v").type == pa.string()
    assert [json.loads(row["v"]) for row in rows] == values


def test_keys_that_come_later_and_rows_that_cannot_be_read() -> None:
    schema, rows = read_back({"a": 1}, None, {"b": "x", "a": 2})
    assert schema.names == ["a", "b"]
    assert rows == [{"a": 1, "b": None}, {"a": None, "b": None}, {"a": 2, "b": "x"}]
