"""Objects in S3, as moto serves it, and in Google Cloud Storage, as far as its JSON API is written here."""

import base64
import hashlib
import json
import logging
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import boto3
import pytest
from moto.server import ThreadedMotoServer

from rewardline.core.errors import UserError
from rewardline.data.remote import object_stores
from rewardline.data.remote.fetch import fetch
from rewardline.data.remote.fetched import FetchSettings, read_fetched
from rewardline.data.remote.object_stores import expand
from rewardline.data.remote.record import update
from rewardline.data.remote.stores import look_up

CONTENT = b'{"chosen": "yes", "rejected": "no"}\n' * 30_000
FILES = {"data/a.jsonl": CONTENT, "data/b.jsonl": CONTENT.upper(), "data/deep/c.jsonl": b"{}\n", "other.txt": b"x"}


class GoogleStore(BaseHTTPRequestHandler):
    """Metadata, lists and content of objects."""

    files: dict[str, bytes]

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).partition("/b/bucket")[2]
        name = path.removeprefix("/o").lstrip("/")
        start = dict(parse_qsl(urlsplit(self.path).query)).get("prefix", "")
        facts = [self.facts(key) for key in self.files if name in ("", key) and key.startswith(start)]
        if "alt=media" in self.path:
            content, found = self.files[name], self.headers["Range"]
            begin, end = map(int, found.removeprefix("bytes=").split("-")) if found else (0, len(content) - 1)
            self.answer(206 if found else 200, content[begin : end + 1])
        elif name:
            self.answer(200 if facts else 404, json.dumps(facts[0] if facts else {"error": {"code": 404}}).encode())
        else:
            self.answer(200, json.dumps({"kind": "storage#objects", "items": facts}).encode())

    def facts(self, name: str) -> dict[str, str]:
        digest = base64.b64encode(hashlib.md5(self.files[name]).digest()).decode()
        size = str(len(self.files[name]))
        return {"bucket": "bucket", "name": name, "size": size, "md5Hash": digest, "etag": "of the metadata"}

    def answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    object_stores._is_anonymous.cache_clear()


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    server = ThreadedMotoServer(port=0)
    server.start()
    yield f"http://127.0.0.1:{server._server.server_address[1]}"
    server.stop()


@pytest.fixture(params=["s3", "gs"])
def scheme(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, s3_server: str) -> Iterator[str]:
    if request.param == "gs":
        GoogleStore.files = dict(FILES)
        server = ThreadingHTTPServer(("127.0.0.1", 0), GoogleStore)
        Thread(target=server.serve_forever, args=(0.05,)).start()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_address[1]}")
        yield "gs"
        server.shutdown()
        server.server_close()
        return
    for key, value in (("ACCESS_KEY_ID", "me"), ("SECRET_ACCESS_KEY", "swordfish"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{key}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    for name, content in FILES.items():
        client.put_object(Bucket="bucket", Key=name, Body=content)
    yield "s3"


def write(scheme: str, name: str, content: bytes) -> None:
    if scheme == "s3":
        boto3.client("s3").put_object(Bucket="bucket", Key=name, Body=content)
    else:
        GoogleStore.files[name] = content


def test_objects_are_copied_and_a_changed_one_is_noticed(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("rewardline"), "propagate", True)
    monkeypatch.setattr(object_stores, "_BLOCK", 100_000)
    address = f"{scheme}://bucket/data/a.jsonl"
    with caplog.at_level(logging.DEBUG, logger="rewardline"):
        version = look_up(address)
        assert version.size == len(CONTENT) and version.is_exact
        fetch("mine", FetchSettings(address=address, version=version), tmp_path / "a")
    found, path = read_fetched(tmp_path / "a" / "manifest.json")
    assert found == address and path.read_bytes() == CONTENT and "swordfish" not in caplog.text
    write(scheme, "data/a.jsonl", CONTENT)
    assert look_up(address) == version
    write(scheme, "data/a.jsonl", CONTENT.replace(b"yes", b"YES"))
    assert look_up(address) != version


def test_a_pattern_names_the_objects_that_match(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = f"{scheme}://bucket/data/*.jsonl"
    assert expand(pattern) == [f"{scheme}://bucket/data/{name}.jsonl" for name in "ab"]
    assert len(expand(f"{scheme}://bucket/**/*.jsonl")) == 3
    record, _ = update(tmp_path / "files.json", [pattern], {})
    assert list(record.versions) == record.patterns[pattern] == expand(pattern)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert update(tmp_path / "files.json", [pattern], {})[0] == record
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(UserError, match="matches no object"):
        expand(f"{scheme}://bucket/data/*.csv")


def test_what_is_wrong_with_an_object_is_one_message(scheme: str) -> None:
    with pytest.raises(UserError, match=rf"^{scheme}://bucket/data/z.jsonl is not there; correct"):
        look_up(f"{scheme}://bucket/data/z.jsonl")
    with pytest.raises(UserError, match=rf"^{scheme}://bucket/data is a folder; name its files"):
        look_up(f"{scheme}://bucket/data")


def test_a_store_that_does_not_answer_is_one_message(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(object_stores, "_TIMEOUTS", {"connect_timeout": 1, "retries": {"max_attempts": 0}})
    if scheme == "s3":
        with pytest.raises(UserError, match=r"^s3://bucket/a.jsonl cannot be reached .*network"):
            look_up("s3://bucket/a.jsonl")


def test_without_credentials_a_public_object_is_read_and_another_is_refused(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if scheme == "gs":
        return
    boto3.client("s3").put_object(Bucket="bucket", Key="public.jsonl", Body=b"{}\n", ACL="public-read")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert look_up("s3://bucket/public.jsonl").size == 3
    with pytest.raises(UserError, match=r"access is refused .*AWS_ACCESS_KEY_ID"):
        look_up("s3://bucket/data/a.jsonl")
