"""Parts of rows: what is read is what was written, or an error."""

import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rewardline.core.artifacts import Manifest, write_manifest
from rewardline.core.errors import UserError
from rewardline.data.parquet import PartWriter, characters_in, characters_of, read_rows

SCHEMA = pa.schema([("number", pa.int64()), ("text", pa.string())])


@dataclass
class Numbered:
    number: int
    text: str = "t"


@pytest.mark.parametrize(("folder", "name"), [("", "manifest.json"), ("eval", "stats.json")])
@pytest.mark.parametrize("damage", ["lost", "added", "exchanged"])
def test_a_part_that_is_lost_added_or_exchanged_is_named(tmp_path: Path, folder: str, name: str, damage: str) -> None:
    parts = tmp_path / folder
    writer: PartWriter[Numbered] = PartWriter(parts, SCHEMA, part_rows=2)
    for number in range(6):
        writer.add(Numbered(number))
    writer.close()
    write_manifest(tmp_path, Manifest(), name=name)
    assert [row["number"] for row in read_rows(parts)] == [*range(6)]
    first, second, last = sorted(parts.glob("part-*.parquet"))
    if damage == "lost":
        last.unlink()
    elif damage == "added":
        last = Path(shutil.copyfile(second, parts / "part-00003.parquet"))
    else:
        last = Path(shutil.copyfile(first, second))
    with pytest.raises(UserError, match=rf"{last.name} is damaged .*snakemake"):
        list(read_rows(parts))


NESTED = pa.schema([
    *SCHEMA,
    ("turns", pa.list_(pa.struct([("role", pa.string()), ("row", pa.int64())]))),
    ("place", pa.struct([("item", pa.string()), ("golds", pa.list_(pa.string()))])),
])  # fmt: skip
TEXTS = st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
ROWS = st.fixed_dictionaries({
    "number": st.integers(0, 9),
    "text": TEXTS,
    "turns": st.none() | st.lists(st.fixed_dictionaries({"role": TEXTS, "row": st.none()}), max_size=2),
    "place": st.none() | st.fixed_dictionaries({"item": TEXTS, "golds": st.none() | st.lists(TEXTS, max_size=2)}),
})  # fmt: skip


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(ROWS, max_size=30), cuts=st.lists(st.integers(0, 30), max_size=3), most=st.sampled_from([9, 10**6])
)
def test_rows_in_columns_give_the_same_bytes(
    tmp_path: Path, rows: list[dict[str, object]], cuts: list[int], most: int
) -> None:
    by_row, in_columns = (
        PartWriter[SimpleNamespace](tmp_path / name, NESTED, part_rows=11, batch_rows=4, batch_characters=most)
        for name in ("rows", "columns")
    )
    for row in rows:
        by_row.add(SimpleNamespace(**row))
    table = pa.Table.from_pylist(rows, schema=NESTED)
    assert characters_in(table).tolist() == list(map(characters_of, rows))
    edges = [0, *sorted(cuts), len(rows)]
    for start, end in pairwise(edges):
        in_columns.add_columns(table.slice(start, max(0, end - start)))
    assert by_row.close() == in_columns.close()
