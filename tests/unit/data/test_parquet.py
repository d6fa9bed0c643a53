"""Parts of rows: what is read is what was written, or an error."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from rewardline.core.artifacts import Manifest, write_manifest
from rewardline.core.errors import UserError
from rewardline.data.parquet import PartWriter, read_rows

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
