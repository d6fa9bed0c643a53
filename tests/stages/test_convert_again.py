"""Conversion and the index of joins: work that is done under its key is not done again; damage is noticed."""

import json
from pathlib import Path
from typing import Any

import pytest

import convert_rows
import download
import index_joins
from rewardline.core.errors import UserError
from rewardline.data import convert
from rewardline.data.formats import joins
from rewardline.data.formats.settings import ConvertSettings, JoinIndexSettings
from rewardline.data.sources.settings import DownloadSettings

from support.data_stages import write_rows

JOIN = {"answer": {"dataset": "texts", "key": "id", "value": "text"}}
SETTINGS = ConvertSettings.model_validate({"join": {f"{side}_id": JOIN["answer"] for side in ("good", "bad")}})


def read(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    settings = DownloadSettings(files=[write_rows(folder / f"{name}.jsonl", rows)])
    out = folder / "data" / name
    assert download.main(["--name", name, "--settings", settings.canonical_json(), "--output", str(out)]) == 0
    return out / "manifest.json"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    texts = read(tmp_path, "texts", [{"id": n, "text": f"text {n}"} for n in range(4)])
    make_index(tmp_path, texts)
    return tmp_path / "joins" / "manifest.json"


def make_index(folder: Path, texts: Path) -> None:
    settings = JoinIndexSettings(join=SETTINGS.join).canonical_json()
    assert index_joins.main(["--settings", settings, "--data", str(texts), "--output", str(folder / "joins")]) == 0


def run(folder: Path, data: Path, *options: str | Path, settings: ConvertSettings = SETTINGS) -> Path:
    own = settings.replace(format="pairs", fields={"chosen": "good_id", "rejected": "bad_id"}).canonical_json()
    places = ["--data", data, *options, "--output", folder]
    assert convert_rows.main(["--name", "d", "--settings", own, *map(str, places)]) == 0
    return folder / "manifest.json"


def test_an_index_is_made_once_and_its_rows_are_counted(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = index.read_bytes()
    assert json.loads(before)["datasets"] == {"texts": {"rows": 4, "unusable": 0, "repeated": 0}}
    index.unlink()
    monkeypatch.delattr(joins, "build_index")
    make_index(tmp_path, tmp_path / "data" / "texts" / "manifest.json")
    assert index.read_bytes() == before


def test_a_conversion_reads_the_index_and_is_done_once(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = read(tmp_path, "d", [{"prompt": f"q {n}", "good_id": n, "bad_id": n + 1} for n in range(4)])
    out = run(tmp_path / "out", data, "--join-index", index)
    facts = json.loads(out.read_text())
    assert (facts["candidates"], facts["rejects"]) == (3, {"unknown_id": 1})
    alone = run(
        tmp_path / "alone" / tmp_path.name / "out", data, "--tables", tmp_path / "data" / "texts" / "manifest.json"
    )
    assert alone.read_bytes() == out.read_bytes()
    out.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(convert, "convert", lambda *_: pytest.fail("it was converted again"))
        run(tmp_path / "out", data, "--join-index", index)
    assert json.loads(out.read_text()) == facts
    run(tmp_path / "out", data, "--join-index", index, settings=SETTINGS.replace(where={"prompt": "q 0"}))
    assert json.loads(out.read_text())["candidates"] == 1


def test_a_damaged_index_is_noticed(tmp_path: Path, index: Path) -> None:
    data = read(tmp_path, "d", [{"prompt": "q", "good_id": 0, "bad_id": 1}])
    with (index.parent / joins.FILE).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(UserError, match=r"index\.sqlite is damaged \(.+\)\. .*snakemake"):
        run(tmp_path / "out", data, "--join-index", index)
    assert not (tmp_path / "out").exists()
