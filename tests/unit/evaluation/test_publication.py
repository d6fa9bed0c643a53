"""A model on the hub: complete or not at all, after any interruption, with a card that has what is known."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, constants
from huggingface_hub.repocard_data import model_index_to_eval_results
from transformers import AutoModelForSequenceClassification

import publish
from rewardline.core.artifacts import verify_model, write_sealed
from rewardline.core.errors import UserError
from rewardline.evaluation.choices import ChosenRun
from rewardline.training.records.model_card import model_card

from support.paths import SCRIPTS
from support.results_folder import Results
from support.reward_models import reward_model
from support.training_runs import run_facts

Json = dict[str, Any]
TOKENS = {"hf_writer": "write", "hf_reader": "read"}


class ModelHub(ThreadingHTTPServer):
    """As much of the hub as publishing needs; `repos` has the files of each repository, `commits` their number."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.stored: dict[str, bytes] = {}  # large files by SHA-256
        self.commits = 0
        self.refuse_from: int | None = None  # the number of the large file from which on uploads fail
        self.paused = threading.Event()  # set when an upload waits for ever in place of failing
        self.pause = False
        self.base_license: str | None = None
        self.refusals: list[int] = []  # the statuses of the next commits, before one is made

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: ModelHub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/api/whoami-v2":
            role = TOKENS.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
            user = {"type": "user", "name": "me", "orgs": [], "auth": {"accessToken": {"role": role}}}
            return self.answer(user) if role else self.refuse(401, "Invalid username or password.")
        name = re.match("/api/models/([^/]+/[^/?]+)", self.path)
        assert name is not None, self.path
        if name[1] == "big/base" and self.server.base_license:
            return self.answer({"id": name[1], "sha": "b" * 40, "cardData": {"license": self.server.base_license}})
        if name[1] not in self.server.repos:
            return self.refuse(404, "RepoNotFound")
        files = [{"rfilename": file} for file in self.server.repos[name[1]]]
        return self.answer(
            {"id": name[1], "sha": self.commit, "private": self.server.private[name[1]], "siblings": files}
        )

    @property
    def commit(self) -> str:
        return f"{self.server.commits:040x}"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.partition("?")[0]
        if path == "/api/validate-yaml":
            try:
                check_card(json.loads(body)["content"])
            except (ValueError, KeyError) as error:
                return self.answer({"errors": [{"message": str(error)}]}, 400)
            return self.answer({"warnings": []})
        if path == "/api/repos/create":
            wanted = json.loads(body)
            if wanted["organization"] != "me":
                return self.refuse(403, f"You don't have the rights to create a model under {wanted['organization']}")
            repo = f"me/{wanted['name']}"
            self.server.repos[repo] = {".gitattributes": b""}
            self.server.private[repo] = wanted.get("visibility") == "private" or bool(wanted.get("private"))
            return self.answer({"url": f"{self.server.url}/{repo}"})
        if found := re.fullmatch("/api/models/(.*)/preupload/main", path):
            return self.answer(
                {
                    "files": [
                        {
                            **{"path": file["path"], "shouldIgnore": False},
                            "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                        }
                        for file in json.loads(body)["files"]
                    ]
                }
            )
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            for one in objects:
                if one["oid"] not in self.server.stored:
                    one["actions"] = {"upload": {"href": f"{self.server.url}/store/{one['oid']}"}}
            return self.answer({"transfer": "basic", "objects": objects})
        found = re.fullmatch("/api/models/(.*)/commit/main", path)
        assert found is not None, path
        return self.make_commit(found[1], [json.loads(line) for line in body.splitlines()])

    def make_commit(self, repo: str, lines: list[Json]) -> None:
        header, *operations = lines
        if self.server.refusals:
            return self.refuse(self.server.refusals.pop(0), "Refused once.")
        if header["value"].get("parentCommit", self.commit) != self.commit:
            return self.refuse(412, "A commit has happened since.")
        files = dict(self.server.repos[repo])
        for one in operations:
            value = one["value"]
            if one["key"] == "deletedFile":
                del files[value["path"]]
            elif one["key"] == "lfsFile":
                files[value["path"]] = self.server.stored[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        self.server.repos[repo] = files
        self.server.commits += 1
        return self.answer({"commitUrl": f"{self.server.url}/{repo}/commit/{self.commit}", "commitOid": self.commit})

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refuse_from is not None and len(self.server.stored) >= self.server.refuse_from:
            if self.server.pause:
                self.server.paused.set()
                threading.Event().wait()
            return self.refuse(507, "the disk is full")
        self.server.stored[hashlib.sha256(data).hexdigest()] = data
        return self.answer({})

    def refuse(self, status: int, message: str) -> None:
        self.answer({"error": message}, status, {"X-Error-Code": message, "X-Error-Message": message})

    def answer(self, value: Json, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for key, text in {"Content-Length": str(len(body)), "ETag": '"x"', **(headers or {})}.items():
            self.send_header(key, text)
        self.end_headers()
        self.wfile.write(body)


def check_card(text: str) -> None:
    """What the hub asks of a card's metadata; a ValueError or KeyError where it is not met."""
    metadata = ModelCard(text, ignore_metadata_errors=False).data.to_dict()
    if not re.fullmatch("[a-z0-9.-]+", metadata["license"]):
        raise ValueError('"license" must be one of ...')
    for key in ("tags", "datasets"):
        if not all(isinstance(one, str) for one in metadata.get(key, [])):
            raise ValueError(f'"{key}" must be an array of strings')
    if index := metadata.get("model-index"):
        for one in model_index_to_eval_results(index)[1]:
            if not isinstance(one.metric_value, int | float):
                raise ValueError("a figure is no number")


@contextmanager
def running() -> Iterator[ModelHub]:
    """A hub as long as the block lasts."""
    with ModelHub() as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


SHARDS = "30KB"
HUB_ROWS = {"hub": "big/preferences", "split": "test", "config": "harmless"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, base_models: Callable[..., Path]) -> Path:
    """A folder of results with a trained model, its evaluations, and where its data and base model come from."""
    root = tmp_path_factory.mktemp("published") / "results"
    results = Results(root)
    results.eval("r", mixture="m", seed=1)
    results.eval("r", "harmless", mixture="m", seed=1)
    results.pairs("m", by_dataset={"own": {}, "theirs": {}})
    folder = root / "models" / "r"
    reward_model(base_models("llama"), folder)
    facts = run_facts(model="tiny", seed=1, weights=folder / "model.safetensors")
    (folder / "README.md").write_text(model_card(facts))
    (folder / "EVALUATION.md").write_text("# r\n")
    (folder / ".hidden").write_text("")
    write_sealed(folder / "run.json", facts.as_json(), ["model.safetensors", "config.json"])
    manifests = {
        "base/tiny": {"source": {"path": "big/base"}, "revision": "b" * 40},
        "data/own": {"source": {"files": ["a.jsonl"]}, "revision": None},
        "data/theirs": {"source": HUB_ROWS, "revision": "d" * 40},
        "data/harmless": {"source": HUB_ROWS, "revision": "d" * 40},
    }
    for place, manifest in manifests.items():
        (root / place).mkdir(parents=True)
        (root / place / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained.parents[1], tmp_path / "results")
    return tmp_path / "results" / "models" / "r"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHub]:
    with running() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_writer")
        yield hub


def call(model: Path, *more: str, repo: str = "me/judge") -> int:
    return publish.main(["--model", str(model), "--repo", repo, "--max-shard-size", SHARDS, *more])


def download(hub: ModelHub, folder: Path, repo: str = "me/judge") -> Path:
    for name, content in hub.repos[repo].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_what_is_published_gives_the_same_scores_and_passes_its_own_check(
    model: Path, hub: ModelHub, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in model.iterdir()}
    assert call(model) == 0
    folder = download(hub, tmp_path / "copy")
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(shards) > 2
    assert verify_model(folder, repair=False)
    first, second = (AutoModelForSequenceClassification.from_pretrained(one).state_dict() for one in (model, folder))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert {path: path.read_bytes() for path in model.iterdir()} == before
    assert not list(model.parent.glob(".r.publish"))
    assert ".hidden" not in hub.repos["me/judge"]
    assert (hub.commits, hub.private["me/judge"]) == (1, False)


def test_the_metadata_of_the_card_has_what_the_results_know(model: Path, hub: ModelHub) -> None:
    hub.base_license = "mit"
    call(model, "--private")
    assert hub.private["me/judge"]
    card = ModelCard(hub.repos["me/judge"]["README.md"].decode())
    data = card.data
    assert (data.base_model, data.datasets, data.license) == ("big/base", ["big/preferences"], "mit")
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-classification")
    assert {"reward-model", "rewardline"} <= set(data.tags)
    assert 'AutoTokenizer.from_pretrained("me/judge")' in card.text
    figures = {(one.dataset_name, one.metric_type): one for one in data.eval_results}
    for title, benchmark in (("held-out split of m", "eval"), ("harmless", "harmless")):
        metrics = json.loads((model.parents[1] / "evals" / "r" / benchmark / "metrics.json").read_text())
        for kind in ("accuracy", "accuracy_low", "accuracy_high"):
            assert figures[title, kind].metric_value == pytest.approx(metrics[kind], abs=1e-6)
    one = figures["harmless", "accuracy"]
    expected = ("big/preferences", "harmless", "test", "d" * 40)
    assert (one.dataset_type, one.dataset_config, one.dataset_split, one.dataset_revision) == expected


def test_what_a_person_states_wins_and_a_chosen_model_is_found_under_the_name_of_its_run(
    model: Path, hub: ModelHub
) -> None:
    chosen = model.rename(model.with_name("best"))
    call(chosen, "--license", "apache-2.0", "--base-model", "a/b", "--datasets", "c/d", "e/f")
    data = ModelCard(hub.repos["me/judge"]["README.md"].decode()).data
    assert (data.license, data.base_model, data.datasets) == ("apache-2.0", "a/b", ["c/d", "e/f"])
    assert data.eval_results


def test_a_chosen_model_is_published_with_its_accuracy_on_the_pairs_that_did_not_choose_it(
    model: Path, hub: ModelHub
) -> None:
    first, second = ({"n": 9, "accuracy": a, "accuracy_low": a - 0.1, "accuracy_high": a + 0.1} for a in (0.8, 0.6))
    names = {"name": "best", "benchmark": "eval", "mixture": "m", "best": "r", "run": "r"}
    choice = ChosenRun.model_validate({**names, "chosen_on": first, "reported_on": second, "standings": []})
    choice.write(model / "selection.json")
    call(model)
    data = ModelCard(hub.repos["me/judge"]["README.md"].decode()).data
    figures = {(one.dataset_name, one.metric_type): one.metric_value for one in data.eval_results}
    title = "held-out split of m, pairs that did not choose the model"
    assert [figures[title, f"accuracy{end}"] for end in ("", "_low", "_high")] == [0.6, 0.5, 0.7]
    assert ("harmless", "accuracy") in figures and ("held-out split of m", "accuracy") not in figures


def test_a_model_without_its_results_is_published_with_a_card_that_claims_none(
    model: Path, hub: ModelHub, tmp_path: Path
) -> None:
    alone = model.rename(tmp_path / "alone")
    call(alone)
    metadata = ModelCard(hub.repos["me/judge"]["README.md"].decode()).data.to_dict()
    assert metadata["license"] == "unknown"
    assert not {"model-index", "base_model", "datasets"} & metadata.keys()


def test_an_upload_that_failed_is_not_seen_and_continues_where_it_stopped(
    model: Path, hub: ModelHub, tmp_path: Path
) -> None:
    hub.refuse_from = 1
    with pytest.raises(UserError, match=r"did not complete .*nothing of it is published.*The same command"):
        call(model)
    assert (hub.commits, set(hub.repos["me/judge"])) == (0, {".gitattributes"})
    first = dict(hub.stored)
    assert first
    hub.refuse_from = None
    sent: list[str] = []
    hub.stored = Recording(first, sent)
    call(model)
    assert hub.commits == 1
    assert sent
    assert not set(sent) & set(first)
    assert verify_model(download(hub, tmp_path / "copy"), repair=False)


class Recording(dict[str, bytes]):
    """Large files that are stored, with a list of those that were sent."""

    def __init__(self, values: dict[str, bytes], sent: list[str]) -> None:
        super().__init__(values)
        self.sent = sent

    def __setitem__(self, key: str, value: bytes) -> None:
        self.sent.append(key)
        super().__setitem__(key, value)


def test_a_kill_in_the_middle_leaves_the_earlier_version_as_it_was(model: Path, hub: ModelHub, tmp_path: Path) -> None:
    call(model, "--max-shard-size", "1GB")
    earlier = dict(hub.repos["me/judge"])
    assert "model.safetensors" in earlier
    hub.refuse_from, hub.pause = len(hub.stored) + 1, True
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, str(SCRIPTS / "publish.py"), "--model", str(model), "--repo", "me/judge"]
    process = subprocess.Popen([*command, "--max-shard-size", SHARDS], env=environment)
    assert hub.paused.wait(120)
    process.kill()
    process.wait()
    assert hub.repos["me/judge"] == earlier
    hub.refuse_from = None
    call(model)
    now = hub.repos["me/judge"]
    assert hub.commits == 2
    assert "model.safetensors" not in now, "from_pretrained would read the old weights"
    assert verify_model(download(hub, tmp_path / "copy"), repair=False)
    assert {path.name for path in model.parent.iterdir() if path.is_dir()} == {"r"}


def test_a_dry_run_shows_the_card_and_the_files_and_needs_no_hub(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert call(model, "--dry-run") == 0
    shown = capsys.readouterr()
    assert "model-00001-of-" in shown.out
    assert "base_model: big/base" in shown.out
    assert "would not be published" in shown.err


@pytest.mark.parametrize(
    ("token", "repo", "options", "message"),
    [
        ("hf_reader", "me/judge", (), "may only read.*HF_TOKEN"),
        ("hf_other", "me/judge", (), "does not accept the token.*HF_TOKEN"),
        ("hf_writer", "you/judge", (), "no right to write there.*HF_TOKEN"),
        *[("hf_writer", name, (), "expected owner/name") for name in ("judge", "", "a/b/c", "https://hub.co/me/judge")],
        *[("hf_writer", name, (), "cannot be the name|expected owner/name") for name in ("me/", "/judge", "me/..")],
        ("hf_writer", "me/a b", (), "cannot be the name"),
        ("hf_writer", "me/public", ("--private",), "is a public repository"),
        *[("hf_writer", "me/judge", ("--max-shard-size", size), "expected a size") for size in ("big", "0", "0.1", "")],
        ("hf_writer", "me/judge", ("--license", "What I like"), "license"),
    ],
)
def test_what_cannot_be_published_is_one_message_and_changes_nothing(
    model: Path,
    hub: ModelHub,
    monkeypatch: pytest.MonkeyPatch,
    token: str,
    repo: str,
    options: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    hub.repos["me/public"], hub.private["me/public"] = {}, False
    with pytest.raises(UserError, match=message):
        call(model, *options, repo=repo)
    assert (hub.commits, hub.stored) == (0, {})


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "does not accept the token.*HF_TOKEN"),
        (403, "no right to write there.*HF_TOKEN"),
        (409, "did not complete .*The same command continues"),
        (412, "was changed during the upload.*same command again"),
        *[(status, "did not complete .*The same command continues") for status in (429, 500, 502, 503, 504)],
    ],
)
def test_a_commit_that_is_refused_once_is_made_by_the_same_command(
    model: Path, hub: ModelHub, status: int, message: str
) -> None:
    hub.repos["me/judge"], hub.private["me/judge"] = {"notes.md": b"mine", "pytorch_model.bin": b"old"}, False
    before = dict(hub.repos["me/judge"])
    hub.refusals = [status]
    with pytest.raises(UserError, match=message):
        call(model)
    assert (hub.commits, hub.repos["me/judge"]) == (0, before)
    sent: list[str] = []
    hub.stored = Recording(dict(hub.stored), sent)
    call(model)
    assert (hub.commits, sent) == (1, [])
    now = hub.repos["me/judge"]
    assert now["notes.md"] == b"mine" and "pytorch_model.bin" not in now and "README.md" in now


def test_shards_may_be_smaller_than_a_tensor(model: Path, hub: ModelHub, tmp_path: Path) -> None:
    call(model, "--max-shard-size", "1")
    copy = download(hub, tmp_path / "copy")
    weights = json.loads((copy / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(weights.values())) == len(weights) == len(list(copy.glob("model-*.safetensors")))
    assert verify_model(copy, repair=False)
    assert AutoModelForSequenceClassification.from_pretrained(copy).num_labels == 1


@pytest.mark.usefixtures("hub")
def test_without_a_token_the_message_says_where_to_get_one(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"there is none.*HF_TOKEN.*/settings/tokens"):
        call(model)


def damage(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"x")


def lose_record(model: Path) -> None:
    (model / "run.json").unlink()


@pytest.mark.parametrize(
    ("harm", "message"),
    [(damage, "is damaged"), (lose_record, "has no run.json"), (shutil.rmtree, "has no config.json")],
)
def test_a_model_that_is_not_whole_is_not_published(
    model: Path, hub: ModelHub, harm: Callable[[Path], Any], message: str
) -> None:
    harm(model)
    with pytest.raises(UserError, match=message):
        call(model)
    assert not hub.repos
