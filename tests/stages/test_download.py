import gzip
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import download
import download_file
import generate_demo
from rewardline.core.errors import UserError
from rewardline.core.hashing import file_xxh3
from rewardline.data.sources import dataset, store
from rewardline.data.sources.rows import Row, as_row
from rewardline.data.sources.store import Input, write_rows

SCRIPTS = Path(download.__file__).parent


def program(settings: dict[str, Any], output: Path, log: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / "download.py"), "--name", "mine", "--settings", json.dumps(settings)]
    command += ["--output", str(output), *(["--log", str(log)] if log else [])]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def run(settings: dict[str, Any], output: Path, *more: str) -> dict[str, Any]:
    assert download.main(["--name", "mine", "--settings", json.dumps(settings), "--output", str(output), *more]) == 0
    manifest: dict[str, Any] = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
    return manifest


def rows(output: Path) -> list[dict[str, Any]]:
    return [row for part in sorted(output.glob("*.parquet")) for row in pq.read_table(part).to_pylist()]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    return tmp_path


def test_rows_and_manifest_tell_all_that_was_read(here: Path) -> None:
    (here / "data/b.jsonl").write_text('{"a": "é", "n": 1}\n{"a": \n\n{"n": 0.5, "x": null}\n', encoding="utf-8")
    (here / "data/a.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n1\n"))
    settings = {"files": ["data/b.jsonl", "data/*.gz", "data/b.jsonl"]}
    manifest = run(settings, here / "results/data/mine")
    found = rows(here / "results/data/mine")
    assert [(row["file"], row["row"], row["record"]) for row in found] == [
        ("data/b.jsonl", 1, '{"a":"é","n":1}'),
        ("data/b.jsonl", 2, None),
        ("data/b.jsonl", 4, '{"n":0.5,"x":null}'),
        ("data/a.csv.gz", 1, '{"a":"1","b":"2"}'),
        ("data/a.csv.gz", 2, None),
    ]
    assert [row["error"] is None for row in found] == [row["record"] is not None for row in found]
    part = here / "results/data/mine/part-00000.parquet"
    characters = sum(len(row["record"] or "") for row in found)
    assert {key: value for key, value in manifest.items() if key != "manifest_hash"} == {
        "name": "mine",
        "source": settings,
        "revision": None,
        "rows": 5,
        "unreadable": 2,
        "parts": [{"file": part.name, "rows": 5, "characters": characters, "sha256": sha256(part)}],
        "inputs": [
            {"file": "data/b.jsonl", "rows": 3, "unreadable": 1, "sha256": sha256(here / "data/b.jsonl")},
            {"file": "data/a.csv.gz", "rows": 2, "unreadable": 1, "sha256": sha256(here / "data/a.csv.gz")},
        ],
        "schema": {"a": ["string"], "b": ["string"], "n": ["integer", "number"], "x": ["null"]},
        "xxh3": {part.name: file_xxh3(part)},
        "manifest_path": "data/mine/manifest.json",
    }


def test_parts_hold_50_000_rows_and_a_second_run_gives_the_same_bytes(here: Path) -> None:
    lines = [json.dumps({"n": index, "text": "x" * (index % 50)}) for index in range(120_001)]
    (here / "data/a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    manifest = run({"files": ["data/a.jsonl"], "sizes": [1]}, here / "first/data/mine")
    assert [part["rows"] for part in manifest["parts"]] == [50_000, 50_000, 20_001]
    assert manifest["source"] == {"files": ["data/a.jsonl"]}
    assert [row["row"] for row in rows(here / "first/data/mine")] == list(range(1, 120_002))
    lengths = [len(row["record"]) for row in rows(here / "first/data/mine")]
    expected = [sum(lengths[start : start + 50_000]) for start in (0, 50_000, 100_000)]
    assert [part["characters"] for part in manifest["parts"]] == expected
    os.utime(here / "data/a.jsonl", (0, 0))
    run({"sizes": [2], "files": ["data/a.jsonl"]}, here / "second/data/mine")
    assert contents(here / "first/data/mine") == contents(here / "second/data/mine")
    assert pq.ParquetFile(here / "first/data/mine/part-00000.parquet").metadata.row_group(0).num_rows <= 5_000


def test_large_rows_are_written_in_small_batches(here: Path) -> None:
    line = json.dumps({"text": "x" * 9_000_000})
    (here / "data/a.jsonl").write_text("\n".join([line] * 9), encoding="utf-8")
    run({"files": ["data/a.jsonl"]}, here / "out")
    assert pq.ParquetFile(here / "out/part-00000.parquet").num_row_groups == 3


def test_a_literal_path_may_look_like_a_glob(here: Path) -> None:
    (here / "data/[a].jsonl").write_text('{"a": 1}', encoding="utf-8")
    assert run({"files": ["data/[a].jsonl"]}, here / "out")["rows"] == 1


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"files": ["data/good.jsonl", "data/none.jsonl"]}, "data/none.jsonl does not exist"),
        ({"files": ["data/*.csv"]}, r"data/\*.csv matches no file"),
        ({"files": ["data"]}, "data is a folder"),
        ({"files": ["data/good.jsonl", "data/bad.jsonl"]}, "data/bad.jsonl: none of its 1 rows"),
        ({"files": ["data/good.jsonl", "data/empty.jsonl"]}, "data/empty.jsonl has no rows"),
        ({"files": ["data/good.jsonl", "data/a.xlsx"]}, "data/a.xlsx: unknown format"),
        ({"files": []}, "files: List should have at least 1 item"),
        ({}, "exactly one of files, hub"),
        ({"files": ["data/good.jsonl"], "hub": "owner/name"}, "exactly one of files, hub"),
        ({"files": ["data/good.jsonl"], "splits": "train"}, "splits: Extra inputs are not permitted"),
    ],
)
def test_after_a_failure_there_is_no_output_or_the_earlier_one(
    here: Path, settings: dict[str, Any], reason: str
) -> None:
    for name, text in [("good.jsonl", '{"a": 1}\n'), ("bad.jsonl", "{\n"), ("empty.jsonl", ""), ("a.xlsx", "")]:
        (here / "data" / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=reason):
        run(settings, here / "out")
    assert not (here / "out").exists()
    run({"files": ["data/good.jsonl"]}, here / "out")
    before = contents(here / "out")
    with pytest.raises(UserError, match=reason):
        run(settings, here / "out")
    assert contents(here / "out") == before
    assert {path.name for path in here.iterdir()} == {"data", "out", ".out.lock"}


def test_a_file_that_changes_while_it_is_read_is_refused(here: Path) -> None:
    path = here / "data/a.jsonl"
    path.write_text('{"a": 1}\n', encoding="utf-8")

    def growing() -> Iterator[Row]:
        yield as_row(1, {"a": 1})
        with path.open("a", encoding="utf-8") as stream:
            stream.write('{"a": 2}\n')

    with pytest.raises(UserError, match=r"data/a\.jsonl changed while it was read"):
        write_rows("mine", [Input("data/a.jsonl", growing(), path)], here / "data")


def test_a_file_that_vanishes_while_it_is_read_stops_the_stage(here: Path) -> None:
    path = here / "data/a.jsonl"
    path.write_text('{"a": 1}\n', encoding="utf-8")

    def going() -> Iterator[Row]:
        yield as_row(1, {"a": 1})
        path.unlink()

    with pytest.raises(UserError, match=r"data/a\.jsonl no longer exists"):
        write_rows("mine", [Input("data/a.jsonl", going(), path)], here / "data")
    with pytest.raises(UserError, match=r"data/b\.jsonl no longer exists"):
        write_rows("mine", [Input("data/b.jsonl", iter(()), here / "data/b.jsonl")], here / "data")


def test_tables_whose_columns_the_settings_name(here: Path) -> None:
    (here / "data/a.csv").write_text("1,2\n3,4\n", encoding="utf-8")
    manifest = run({"files": ["data/a.csv"], "columns": ["winner", "loser"]}, here / "out")
    assert [json.loads(row["record"]) for row in rows(here / "out")] == [
        {"winner": "1", "loser": "2"},
        {"winner": "3", "loser": "4"},
    ]
    assert manifest["source"]["columns"] == ["winner", "loser"]
    (here / "data/b.jsonl").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="columns"):
        run({"files": ["data/a.csv", "data/b.jsonl"], "columns": ["winner", "loser"]}, here / "out2")


def test_keys_without_end_do_not_fill_the_manifest(here: Path) -> None:
    text = "\n".join(json.dumps({f"key{index}": 1}) for index in range(3000))
    (here / "data/a.jsonl").write_text(text, encoding="utf-8")
    assert len(run({"files": ["data/a.jsonl"]}, here / "out")["schema"]) == 1000


def test_the_command_logs_what_it_read_and_why_not(here: Path) -> None:
    (here / "data/a.jsonl").write_text('{"a": 1}\n' + "{\n" * 5, encoding="utf-8")
    done = program({"files": ["data/a.jsonl"]}, here / "out", here / "logs/a.log")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    log = (here / "logs/a.log").read_text(encoding="utf-8")
    assert "read data/a.jsonl: 6 rows, 5 unreadable" in log
    assert [f"row {number} of data/a.jsonl: not JSON" in log for number in range(2, 7)] == [True] * 3 + [False] * 2


def test_the_command_fails_with_one_message(here: Path) -> None:
    done = program({"files": ["data/none.jsonl"]}, here / "out")
    assert done.returncode == 1
    assert "error: data/none.jsonl does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def fails(*_: object) -> None:
    raise AssertionError("rows are read again")


def test_a_restart_finds_its_work_done(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = here / "data/a.jsonl"
    path.write_text('{"a": 1}\n', encoding="utf-8")
    settings = {"files": ["data/a.jsonl"], "sizes": [9]}
    run(settings, here / "out")
    before = contents(here / "out")
    (here / "out/manifest.json").unlink()
    os.utime(path, (0, 0))
    with monkeypatch.context() as patched:
        patched.setattr(dataset, "write_rows", fails)
        run({"files": ["data/a.jsonl"], "sizes": [10]}, here / "out")
        assert contents(here / "out") == before
        with pytest.raises(AssertionError):
            run({"files": ["data/*.jsonl"]}, here / "out")
        path.write_text('{"a": 2}\n', encoding="utf-8")
        with pytest.raises(AssertionError):
            run(settings, here / "out")
    assert contents(here / "out") == before
    run(settings, here / "out")
    assert json.loads(rows(here / "out")[0]["record"]) == {"a": 2}


def test_a_damaged_part_is_read_again(here: Path) -> None:
    (here / "data/a.jsonl").write_text('{"a": 1}\n', encoding="utf-8")
    run({"files": ["data/a.jsonl"]}, here / "out")
    before = contents(here / "out")
    (here / "out/part-00000.parquet").write_bytes(b"damage")
    run({"files": ["data/a.jsonl"]}, here / "out")
    assert contents(here / "out") == before


def test_files_that_were_read_apart_become_one_dataset(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("a", '{"a": 1}\n{"a": "x"}\n'), ("b", '{"b": 1}\n{\n')):
        (here / f"data/{name}.jsonl").write_text(text, encoding="utf-8")
        options = ["--name", "mine", "--settings", json.dumps({"files": [f"data/{name}.jsonl"], "sizes": [1]})]
        assert download_file.main([*options, "--output", str(here / "parts" / name)]) == 0
    settings = {"files": ["data/a.jsonl", "data/b.jsonl"]}
    parts = ["--parts", *(str(here / "parts" / name / "manifest.json") for name in ("a", "b"))]
    joined = run(settings, here / "joined", *parts)
    complete = run(settings, here / "complete")
    assert rows(here / "joined") == rows(here / "complete")
    assert [part["file"] for part in joined["parts"]] == ["part-00000.parquet", "part-00001.parquet"]
    same = ("name", "source", "revision", "rows", "unreadable", "inputs", "schema")
    assert {key: joined[key] for key in same} == {key: complete[key] for key in same}
    (here / "joined/manifest.json").unlink()
    monkeypatch.setattr(dataset, "join_datasets", fails)
    assert run(settings, here / "joined", *parts) == joined


def generate(settings: dict[str, Any], output: Path) -> dict[str, Any]:
    options = ["--name", "mine", "--settings", json.dumps(settings), "--output", str(output)]
    assert generate_demo.main(options) == 0
    manifest: dict[str, Any] = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
    return manifest


def test_the_demo_is_a_dataset_like_any_other(here: Path) -> None:
    manifest = generate({"pairs": 300, "seed": 1}, here / "first/data/mine")
    generate({"pairs": 300, "seed": 1}, here / "second/data/mine")
    assert contents(here / "first/data/mine") == contents(here / "second/data/mine")
    assert manifest["source"] == {"demo": {"pairs": 300, "seed": 1}}
    assert (manifest["name"], manifest["revision"], manifest["unreadable"]) == ("mine", None, 0)
    assert manifest["rows"] == len(rows(here / "first/data/mine")) == 300
    assert manifest["inputs"] == []
    assert rows(here / "first/data/mine")[0]["file"] == "demo"
    generate({"pairs": 300, "seed": 2}, here / "three")
    assert rows(here / "first/data/mine") != rows(here / "three")
    with pytest.raises(UserError, match="seeds: Extra inputs are not permitted"):
        generate({"seeds": 1}, here / "four")


def test_a_restart_generates_no_demo_again(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = generate({"pairs": 100, "seed": 1}, here / "out")
    (here / "out/manifest.json").unlink()
    monkeypatch.setattr(store, "write_rows", fails)
    assert generate({"pairs": 100, "seed": 1}, here / "out") == manifest
    with pytest.raises(AssertionError):
        generate({"pairs": 100, "seed": 2}, here / "out")
