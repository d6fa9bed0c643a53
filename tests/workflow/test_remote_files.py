"""A dataset whose files are elsewhere, from its address to its rows, and what is noticed at the next start."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from support import project as support
from support.file_server import FileServer, serving
from support.project import Project, small


def lines(first: int, count: int) -> bytes:
    rows = ({"prompt": f"Say {n}", "chosen": f"It is {n}.", "rejected": "no"} for n in range(first, first + count))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setitem(support.ENVIRONMENT, "HF_HUB_OFFLINE", "0")
    with serving() as server:
        server.files = {"/a.jsonl": lines(0, 100), "/b.jsonl": lines(100, 100)}
        yield server


def config(server: FileServer, **keys: Any) -> dict[str, Any]:
    config = small("mine")
    config["datasets"]["mine"] = {"files": [server.address + name for name in server.files], **keys}
    return config


def test_files_of_a_server(server: FileServer, tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    (project.folder / "config" / "config.yaml").write_text(yaml.safe_dump(config(server)))
    target = "results/data/mine/manifest.json"
    project.run("--cores", "2", target)
    parts = sorted((project.folder / "results" / "data" / "mine").glob("*.parquet"))
    assert [(row["file"], row["row"]) for part in parts for row in pq.read_table(part).to_pylist()] == [
        (server.address + name, row) for name in server.files for row in range(1, 101)
    ]

    server.status = {"/a.jsonl": 404}
    failed = project.run("--cores", "2", "--dry-run", target, check=False)
    message = f"datasets.mine.files: {server.address}/a.jsonl is not there"
    assert failed.returncode and message in failed.stdout and "sha256" in failed.stdout

    server.shutdown()
    server.server_close()
    done = project.run("--cores", "2", "--dry-run", target)
    assert "Nothing to be done" in done.stdout and "cannot be reached" in done.stdout and "is used" in done.stdout
    # Without network, an edit of the reader reads the copy.
    reader = project.folder / "scripts" / "rewardline" / "data" / "sources" / "readers.py"
    reader.write_text(reader.read_text() + "# edited\n")
    manifest = next((project.folder / "results" / "remote" / "mine").glob("a*/manifest.json"))
    manifest.unlink()
    project.run("--cores", "2", target, str(manifest.relative_to(project.folder)))
    assert json.loads((project.folder / target).read_text())["rows"] == 200


@pytest.mark.slow
def test_a_changed_file_is_fetched_and_read_again(server: FileServer, tmp_path: Path) -> None:
    project, target = Project(tmp_path / "project"), "results/data/mine/manifest.json"
    overlay = str(project.overlay(config(server)))
    project.run("--cores", "2", "--configfile", overlay, "--", target)
    assert project.planned("--configfile", overlay, "--", target) == {}
    server.files["/b.jsonl"] = lines(200, 50)
    planned = project.planned("--configfile", overlay, "--", target)
    assert planned == {"fetch_file": 1, "download_file": 1, "download": 1}
    server.requests.clear()
    project.run("--cores", "2", "--configfile", overlay, "--", target)
    assert [request for request in server.requests if request.startswith("GET")] == ["GET /b.jsonl"]
    assert json.loads((project.folder / target).read_text())["rows"] == 150


@pytest.mark.slow
def test_pins_are_checked(server: FileServer, tmp_path: Path) -> None:
    project, target = Project(tmp_path / "project"), "results/data/mine/manifest.json"
    good = {server.address + name: hashlib.sha256(content).hexdigest() for name, content in server.files.items()}
    overlay = project.overlay(config(server, sha256={**good, f"{server.address}/b.jsonl": "0" * 64}))
    failed = project.run("--cores", "2", "--configfile", str(overlay), "--", target, check=False)
    assert failed.returncode and f"not {'0' * 64} as `sha256` of mine says" in failed.stdout
    assert not list((project.folder / "results" / "remote" / "mine").glob("b*"))
    overlay = project.overlay(config(server, sha256=good))
    project.run("--cores", "2", "--configfile", str(overlay), "--", target)
    server.requests.clear()
    assert project.planned("--configfile", str(overlay), "--", target) == {} and not server.requests
    overlay = project.overlay(config(server, sha256={f"{server.address}/c.jsonl": "0" * 64}))
    failed = project.run("--cores", "2", "--dry-run", "--configfile", str(overlay), check=False)
    assert f"sha256 names {server.address}/c.jsonl, which is none of them; did you mean" in failed.stdout
