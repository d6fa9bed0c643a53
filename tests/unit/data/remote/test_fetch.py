"""Copies of files: complete, of one version, what is pinned, and asked for no more than needed."""

import hashlib
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewardline.core.artifacts import read_manifest
from rewardline.core.errors import UserError
from rewardline.data.remote.addresses import check_address, file_name
from rewardline.data.remote.fetch import fetch
from rewardline.data.remote.fetched import FetchSettings, read_fetched
from rewardline.data.remote.record import update
from rewardline.data.remote.stores import look_up

from support.file_server import FileServer, serving

CONTENT = b"".join(b'{"chosen": "answer %d", "rejected": "no"}\n' % number for number in range(60_000))
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as server:
        server.files["/a.jsonl"] = CONTENT
        yield server


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def get(server: FileServer, folder: Path, sha256: str | None = None, pinned: bool = False) -> bytes:
    address = f"{server.address}/a.jsonl"
    version = None if pinned else look_up(address)
    server.requests.clear()
    fetch("mine", FetchSettings(address=address, version=version, sha256=sha256), folder)
    found, path = read_fetched(folder / "manifest.json")
    assert found == address and path.name == "a.jsonl"
    return path.read_bytes()


def reads(server: FileServer) -> list[str]:
    return [request for request in server.requests if request.startswith("GET")]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("tags", [True, False])
def test_a_file_is_copied_whole_from_any_server(
    server: FileServer, tmp_path: Path, ranges: bool, head: bool, tags: bool
) -> None:
    server.ranges, server.has_head, server.has_tags = ranges, head, tags
    assert get(server, tmp_path / "a") == CONTENT
    manifest = read_manifest(tmp_path / "a" / "manifest.json")
    assert (manifest["size"], manifest["sha256"]) == (len(CONTENT), SHA256)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["a"]


def test_what_is_there_in_this_version_is_not_fetched_again(server: FileServer, tmp_path: Path) -> None:
    get(server, tmp_path / "a")
    (tmp_path / "a" / "manifest.json").unlink()  # as snakemake does before it starts a stage
    get(server, tmp_path / "a")
    assert not server.requests
    server.files["/a.jsonl"] = CONTENT + b"{}\n"
    assert get(server, tmp_path / "a") == CONTENT + b"{}\n"


def test_another_tag_of_the_same_content_changes_no_manifest(server: FileServer, tmp_path: Path) -> None:
    get(server, tmp_path / "a")
    before = (tmp_path / "a" / "manifest.json").read_bytes()
    server.has_tags = False
    server.header["Last-Modified"] = "Mon, 30 Nov 2026 00:00:00 GMT"
    get(server, tmp_path / "a")
    assert reads(server) and (tmp_path / "a" / "manifest.json").read_bytes() == before


def test_a_copy_that_is_damaged_is_fetched_again(server: FileServer, tmp_path: Path) -> None:
    get(server, tmp_path / "a")
    (tmp_path / "a" / "a.jsonl").write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match="damaged"):
        read_fetched(tmp_path / "a" / "manifest.json")
    assert not (tmp_path / "a" / "manifest.json").exists()
    assert get(server, tmp_path / "a") == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_breaks_is_continued(server: FileServer, tmp_path: Path, ranges: bool) -> None:
    server.ranges = ranges
    server.cut = [1_000_000, 300_000] if ranges else [1_000_000, 1_500_000]
    assert get(server, tmp_path / "a") == CONTENT
    assert len(reads(server)) == 3


def interrupted(server: FileServer, folder: Path) -> None:
    server.cut = [1_000_000, 0]
    with pytest.raises(UserError, match="cannot be reached"):
        get(server, folder)
    assert not folder.exists()
    server.cut.clear()


def test_an_interrupted_download_never_counts_and_is_continued(server: FileServer, tmp_path: Path) -> None:
    interrupted(server, tmp_path / "a")
    server.headers.clear()
    assert get(server, tmp_path / "a") == CONTENT
    assert [headers["Range"] for headers in server.headers if "Range" in headers] == ["bytes=1000000-"]


def test_a_kill_after_the_last_byte_of_a_file_of_unknown_length(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.has_length = False

    def killed(_: Path) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(f"{fetch.__module__}.file_sha256", killed)
        get(server, tmp_path / "a")
    assert get(server, tmp_path / "a") == CONTENT


def test_after_an_interruption_a_file_that_changed_starts_again(server: FileServer, tmp_path: Path) -> None:
    interrupted(server, tmp_path / "a")
    server.files["/a.jsonl"] = CONTENT.upper()
    server.headers.clear()
    assert get(server, tmp_path / "a") == CONTENT.upper()
    assert not any("Range" in headers for headers in server.headers)


def test_bytes_of_a_server_without_versions_are_not_put_together(server: FileServer, tmp_path: Path) -> None:
    server.has_tags = False
    interrupted(server, tmp_path / "a")
    server.files["/a.jsonl"] = CONTENT.upper()
    assert get(server, tmp_path / "a") == CONTENT.upper()


def test_a_pinned_file_is_what_is_pinned_or_an_error(server: FileServer, tmp_path: Path) -> None:
    assert get(server, tmp_path / "a", SHA256, pinned=True) == CONTENT
    (tmp_path / "a" / "manifest.json").unlink()
    get(server, tmp_path / "a", SHA256, pinned=True)
    assert not server.requests
    with pytest.raises(UserError, match=f"SHA-256 {SHA256}, not {'0' * 64} as `sha256` of mine says. Correct"):
        get(server, tmp_path / "b", "0" * 64, pinned=True)
    assert not (tmp_path / "b").exists()
    with pytest.raises(UserError, match="SHA-256"):
        get(server, tmp_path / "b", "0" * 64, pinned=True)


@pytest.mark.parametrize(
    ("status", "message"),
    [(404, "is not there"), (410, "is not there"), (403, "refused .HTTP 403.*netrc"), (503, "HTTP 503; try again")],
)
def test_what_a_server_refuses_is_one_message(server: FileServer, tmp_path: Path, status: int, message: str) -> None:
    server.status["/a.jsonl"] = status
    with pytest.raises(UserError, match=rf"^{server.address}/a.jsonl.*{message}"):
        get(server, tmp_path / "a")


def test_no_network_is_one_message() -> None:
    with pytest.raises(UserError, match=r"http://127.0.0.1:9/a.jsonl cannot be reached: .*refused.*copy the file here"):
        look_up("http://127.0.0.1:9/a.jsonl")


def test_credentials_are_of_the_environment_and_in_no_message(
    server: FileServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.login = "me:swordfish"
    with pytest.raises(UserError, match=r"refused .HTTP 401"):
        get(server, tmp_path / "a")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password swordfish\n")
    monkeypatch.setattr(logging.getLogger("rewardline"), "propagate", True)
    with caplog.at_level(logging.DEBUG):
        get(server, tmp_path / "a")
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file() and path.name != "netrc"]
    assert not any("swordfish" in text for text in [caplog.text, *written])
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me swordfish\n")
    with pytest.raises(UserError, match=r"netrc cannot be read: line \d+\. Correct it$"):
        get(server, tmp_path / "a")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://host/a.jsonl", "ftp:// is not known; expected https, http, s3 or gs"),
        ("gcs://bucket/a.jsonl", "write gs://"),
        ("file:///data/a.jsonl", "write the path"),
        ("hf://datasets/owner/name/a.jsonl", "`hub:`"),
        ("https://me:swordfish@host/a.jsonl", "a user name or password"),
        ("https://host/a.jsonl?X-Amz-Signature=swordfish", "the parameter X-Amz-Signature"),
        ("https://host/a.jsonl?x=1&sig=swordfish", "the parameter sig"),
        ("https://host/a.jsonl?access_token=swordfish", "the parameter access_token"),
        ("https://host/*.jsonl", "name each file"),
        ("https://host/data/", "names no file"),
        ("s3://bucket", "names no file"),
    ],
)
def test_an_address_that_cannot_be_is_explained_without_its_secrets(address: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        check_address(address)
    assert message in str(error.value) and "swordfish" not in str(error.value)


def test_names_of_files() -> None:
    check_address("https://host/download/a%20b.jsonl.gz?version=2")
    assert file_name("https://host/download/a%20b.jsonl.gz?version=2") == "a b.jsonl.gz"
    assert file_name("s3://bucket/x/y?.parquet") == "y?.parquet"


def test_the_record_is_asked_at_each_start_and_serves_without_network(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, address = tmp_path / "files.json", f"{server.address}/a.jsonl"
    first, warning = update(path, [address, "local.jsonl"], {})
    assert list(first.versions) == [address] and first.versions[address].size == len(CONTENT) and warning is None
    assert json.loads(path.read_text())["versions"][address]["etag"] == first.versions[address].etag
    server.files["/a.jsonl"] = CONTENT * 2
    assert update(path, [address], {}, ask=False)[0] == first
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert update(path, [address], {})[0] == first
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set, and http.*/b.jsonl was not fetched before"):
        update(path, [f"{server.address}/b.jsonl"], {})
    monkeypatch.delenv("HF_HUB_OFFLINE")
    second, _ = update(path, [address], {})
    assert second.versions[address].size == 2 * len(CONTENT)
    server.status["/a.jsonl"] = 503
    found, warning = update(path, [address], {})
    assert found == second and warning is not None and "HTTP 503" in warning and "copy" in warning
    server.status["/a.jsonl"] = 404
    with pytest.raises(UserError, match=r"is not there.*pin it with `sha256`"):
        update(path, [address], {})
    server.requests.clear()
    assert update(path, [address], {address: "0" * 64})[0] == second and not server.requests
    path.write_text("{")
    with pytest.raises(UserError, match="is not there"):
        update(path, [address], {})


def test_a_server_that_does_not_answer_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, asked = tmp_path / "files.json", []
    with serving() as server:
        server.files = {f"/{number}.jsonl": b"{}\n" for number in range(40)}
        addresses = [server.address + name for name in server.files]
        update(path, addresses, {})

    def refuse(address: str) -> None:
        asked.append(address)
        return look_up(address)  # type: ignore[return-value]

    monkeypatch.setattr("rewardline.data.remote.record.look_up", refuse)
    assert len(update(path, addresses, {})[0].versions) == 40
    assert len(asked) <= 8


def test_a_store_whose_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, package in {"s3://bucket/a.jsonl": "s3fs", "gs://bucket/a.jsonl": "gcsfs"}.items():
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UserError, match=rf"^{name} needs the package {package}.*pip install {package} fsspec=="):
            look_up(name)
