import gzip
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants, hf_hub_download

import download
from rewardline.core import hub as core_hub
from rewardline.core.cli import log
from rewardline.core.errors import UserError
from rewardline.core.hub import resolve
from rewardline.data.sources import hub

REPO = "someone/preferences"
COMMIT = "c" * 40
TOKEN = "hf_of_the_test"


def lines(*texts: str) -> bytes:
    return "".join(json.dumps({"chosen": text, "rejected": "no"}) + "\n" for text in texts).encode()


FILES = {
    "README.md": b"# Preferences\n",
    "dataset_infos.json": b'{"default": {"description": "", "features": {}}}',
    "preferences.py": b"raise SystemExit('executed')\n",
    "helpful/train.jsonl.gz": gzip.compress(lines("a", "b") + b"{\n"),
    "helpful/test.jsonl.gz": gzip.compress(lines("c")),
    "harmless/train.jsonl.gz": gzip.compress(lines("d")),
}
CARD = b"""---
configs:
- config_name: first
  data_files:
  - {split: train, path: one/*.csv}
  - {split: odd, path: "one/b.csv"}
- config_name: second
  data_files: two.tsv
- config_name: strange
  data_files: one/a.csv
  skiprows: 3
---
"""


class Hub(ThreadingHTTPServer):
    """As much of the hub as a download needs: the files of a revision, and those files."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = dict(FILES)
        self.gated = False
        self.cut: int | None = None  # bytes after which an answer breaks off, once
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.requests.append(f"{self.command} {self.path} {wanted}".strip())
        api, resolve = f"/api/datasets/{REPO}/revision/", f"/datasets/{REPO}/resolve/"
        tree = f"/api/datasets/{REPO}/tree/"
        if not self.path.startswith((api, resolve, tree)):
            self.refuse(401, "RepoNotFound")
        elif re.split("[/?]", self.path.removeprefix(api).removeprefix(resolve).removeprefix(tree))[0] not in (
            "main",
            COMMIT,
        ):
            self.refuse(404, "RevisionNotFound")
        elif self.path.startswith(tree):
            listing = [{"type": "file", "path": name, "size": 1, "oid": name} for name in self.server.files]
            self.answer(200, json.dumps(listing).encode())
        elif self.path.startswith(api):
            siblings = [{"rfilename": name} for name in self.server.files]
            self.answer(200, json.dumps({"id": REPO, "sha": COMMIT, "siblings": siblings}).encode())
        elif self.server.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.refuse(401, "GatedRepo")
        elif (name := self.path.removeprefix(resolve).partition("/")[2]) not in self.server.files:
            self.refuse(404, "EntryNotFound")
        else:
            data = self.server.files[name]
            start = int(wanted.removeprefix("bytes=").removesuffix("-") or 0)
            tag = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            if start:
                tag["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.answer(206 if start else 200, data[start:], tag)

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            cut, self.server.cut = (self.server.cut, None) if len(body) > 100_000 else (None, self.server.cut)
            self.wfile.write(body[:cut])


@pytest.fixture
def server() -> Iterator[Hub]:
    with Hub() as result:
        thread = threading.Thread(target=result.serve_forever, args=(0.05,))
        thread.start()
        yield result
        result.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, server: Hub, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache of this test's own; the settings are those that the environment gives at start."""
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return tmp_path


def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")


def test_a_split_is_all_its_files_in_order_and_only_those_are_fetched(server: Hub) -> None:
    files = hub.fetch(REPO, COMMIT)
    prefix = f"hub://{REPO}@{COMMIT}/train/"
    assert list(files) == [prefix + "harmless/train.jsonl.gz", prefix + "helpful/train.jsonl.gz"]
    assert [path.read_bytes() for path in files.values()] == [
        FILES["harmless/train.jsonl.gz"],
        FILES["helpful/train.jsonl.gz"],
    ]
    assert not [request for request in server.requests if "test" in request or ".py" in request]


def test_parts_of_a_repository() -> None:
    assert list(hub.fetch(REPO, COMMIT, split="test")) == [f"hub://{REPO}@{COMMIT}/test/helpful/test.jsonl.gz"]
    expected = [f"hub://{REPO}@{COMMIT}/train/helpful/train.jsonl.gz"]
    assert list(hub.fetch(REPO, COMMIT, data_dir="helpful")) == expected
    assert list(hub.fetch(REPO, COMMIT, data_files=["helpful/tr*"])) == expected


def test_the_card_says_what_the_configs_are(server: Hub) -> None:
    server.files = {"README.md": CARD, "one/a.csv": b"a\n1\n", "one/b.csv": b"a\n2\n", "two.tsv": b"a\tb\n1\t2\n"}
    assert [Path(name).name for name in list(hub.fetch(REPO, COMMIT, "first"))] == ["a.csv", "b.csv"]
    assert [Path(name).name for name in list(hub.fetch(REPO, COMMIT, "first", "odd"))] == ["b.csv"]
    assert [Path(name).name for name in list(hub.fetch(REPO, COMMIT, "second"))] == ["two.tsv"]
    for config, reason in [
        (None, r"Config name is missing.*'first', 'second', 'strange'\]\. Set `config:`"),
        ("third", r"'third' not found.*'first', 'second'"),
        ("strange", "its card asks to read its files with {'skiprows': 3}"),
    ]:
        with pytest.raises(UserError, match=reason) as error:
            hub.fetch(REPO, COMMIT, config)
        assert "/tmp" not in str(error.value)


def test_a_branch_is_resolved_and_the_log_asks_to_pin_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "propagate", True)
    assert resolve("dataset", REPO, "main") == COMMIT
    assert f"{REPO} is not pinned: main resolved to {COMMIT}" in caplog.text
    caplog.clear()
    assert resolve("dataset", REPO, COMMIT) == COMMIT
    assert "pinned" not in caplog.text


def test_a_pinned_dataset_that_was_fetched_needs_no_hub(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = hub.fetch(REPO, COMMIT)
    server.requests.clear()
    assert hub.fetch(REPO, COMMIT) == first
    assert not server.requests
    unreachable(monkeypatch)
    assert hub.fetch(REPO, COMMIT) == first
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.fetch(REPO, COMMIT) == first
    for revision, split in [("main", "train"), (COMMIT, "test"), ("d" * 40, "train")]:
        with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set.*is not complete in the cache.*`files:`"):
            hub.fetch(REPO, resolve("dataset", REPO, revision), None, split)


def test_a_cache_that_another_program_filled_serves_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FILES:
        hf_hub_download(REPO, name, repo_type="dataset", revision=COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert len(hub.fetch(REPO, COMMIT)) == 2


def test_a_download_that_breaks_off_is_taken_up_again(server: Hub) -> None:
    data = lines(*(f"{index * 7919**5:x}" for index in range(20_000)))
    server.files = {"train.jsonl": data}
    server.cut = 300_000
    assert [path.read_bytes() for path in hub.fetch(REPO, COMMIT).values()] == [data]
    assert [request.split("/")[0] for request in server.requests[-3:]] == ["HEAD ", "GET ", "GET "]


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (
            ("someone/else", COMMIT),
            "someone/else is not at http.*Correct its name in `hub:`; if it is private, set HF_TOKEN",
        ),
        (("no/such/name", COMMIT), "'no/such/name' cannot be the name of a hub dataset.*Correct `hub:`"),
        ((REPO, "v2"), "has no revision 'v2'"),
        ((REPO, "d" * 40), "has no revision 'dddd"),
        ((REPO, COMMIT, None, "validation"), "has no split 'validation'. Its splits: train, test. Set `split:`"),
        ((REPO, COMMIT, None, "train", ["none/*.csv"]), "data files found.*Set `config:` or `data_files:`"),
        ((REPO, COMMIT, None, "train", [__file__]), "cannot find the files to read"),
    ],
)
def test_what_does_not_exist_is_named(arguments: tuple[Any, ...], reason: str) -> None:
    repo, revision, *more = arguments
    with pytest.raises(UserError, match=reason):
        hub.fetch(repo, resolve("dataset", repo, revision), *more)


def test_a_repository_of_scripts_or_of_foreign_formats_is_refused(server: Hub) -> None:
    server.files = {"preferences.py": b"raise SystemExit('executed')\n"}
    with pytest.raises(UserError, match="cannot find the files to read"):
        hub.fetch(REPO, COMMIT)


def test_a_listing_cannot_reach_outside(server: Hub) -> None:
    server.files = {"../../train.jsonl": b"{}"}
    with pytest.raises(UserError, match="lists a file outside of itself"):
        hub.fetch(REPO, COMMIT)


def test_a_gated_dataset_needs_a_token(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.gated = True
    with pytest.raises(
        UserError, match=r"is gated\. Accept its conditions at http.* and set HF_TOKEN in the environment"
    ):
        hub.fetch(REPO, COMMIT)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert len(hub.fetch(REPO, COMMIT)) == 2


def test_a_hub_that_cannot_be_reached_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.monotonic()
    unreachable(monkeypatch)
    with pytest.raises(UserError, match=r"the hub at http.* cannot be reached for .*`files:`"):
        hub.fetch(REPO, COMMIT)
    assert time.monotonic() - start < 5


def test_a_hub_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_hub, "TIMEOUT", 0.5)
    hub.fetch(REPO, COMMIT)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(UserError, match="cannot be reached"):
            hub.fetch(REPO, COMMIT, None, "test")  # known, but not in the cache
        assert time.monotonic() - start < 5


def test_the_stage_reads_a_hub_dataset(server: Hub, tmp_path: Path) -> None:
    settings = {"hub": REPO, "revision": COMMIT, "split": "train", "config": None, "data_dir": None}
    command = [sys.executable, download.__file__, "--name", "hh", "--settings", json.dumps(settings)]
    command += ["--output", str(tmp_path / "out"), "--log", str(tmp_path / "log")]
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN}
    server.gated = True
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert done.returncode == 0, log
    assert TOKEN not in log + done.stderr + done.stdout
    manifest = json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))
    assert (manifest["revision"], manifest["rows"], manifest["unreadable"]) == (COMMIT, 4, 1)
    prefix = f"hub://{REPO}@{COMMIT}/train/"
    assert manifest["inputs"][0]["sha256"] == hashlib.sha256(FILES["harmless/train.jsonl.gz"]).hexdigest()
    table = pq.read_table(tmp_path / "out/part-00000.parquet").to_pylist()
    assert [(row["file"].removeprefix(prefix), row["row"], row["error"] is None) for row in table] == [
        ("harmless/train.jsonl.gz", 1, True),
        ("helpful/train.jsonl.gz", 1, True),
        ("helpful/train.jsonl.gz", 2, True),
        ("helpful/train.jsonl.gz", 3, False),
    ]


def test_a_restart_of_a_pinned_dataset_asks_and_reads_nothing(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = json.dumps({"hub": REPO, "revision": COMMIT, "split": "train"})
    options = ["--name", "hh", "--settings", settings, "--output", str(tmp_path / "out")]
    assert download.main(options) == 0
    before = (tmp_path / "out/manifest.json").read_bytes()
    (tmp_path / "out/manifest.json").unlink()
    server.requests.clear()
    monkeypatch.setattr(hub, "fetch", None)
    assert download.main(options) == 0
    assert (tmp_path / "out/manifest.json").read_bytes() == before
    assert not server.requests
