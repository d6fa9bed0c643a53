"""Runs that are not as planned: own files with bad rows, models that are not there, kills, a second instance."""

import gzip
import json
import os
import random
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rewardline.data.parquet import read_rows

from support.project import Project, small

Json = dict[str, Any]


def own_rows(count: int) -> list[Json]:
    return [
        {"prompt": f"What is {k} plus one?", "chosen": f"It is {k + 1}.", "rejected": f"It is {k + 3}, friend."}
        for k in range(count)
    ]


def test_own_files_with_a_benchmark_and_bad_rows(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    data = project.folder / "data"
    data.mkdir()
    rows = own_rows(120)
    lines = [json.dumps(row) for row in rows[:60]]
    (data / "a.jsonl").write_text("\n".join([*lines, "{broken", json.dumps({"prompt": "x", "chosen": "y"}), lines[0]]))
    with gzip.open(data / "b.csv.gz", "wt") as stream:
        pd.DataFrame(rows[60:]).to_csv(stream, index=False)
    pd.DataFrame(rows[40:50]).to_parquet(data / "bench.parquet")
    config = small("mine", max_steps=4)
    config["datasets"]["mine"] = {"files": ["data/a.jsonl", "data/*.csv.gz"]}
    config["benchmarks"] = {"held": {"files": ["data/bench.parquet"]}}
    config["runs"]["mine"]["benchmarks"] = ["held"]
    overlay = project.overlay(config)
    text = project.run("--cores", "all", "--configfile", str(overlay)).stdout
    assert "held" in text
    stats = json.loads((project.folder / "results" / "pairs" / "mine" / "stats.json").read_text())
    rejects = pd.read_parquet(project.folder / "results" / "pairs" / "mine" / "rejects.parquet")
    assert stats["rows_in"] == 123 == stats["pairs_out"] + sum(stats["rejects"].values())
    assert stats["rejects"]["duplicate"] == 1
    bad = rejects[~rejects.reason.isin(["duplicate", "in_benchmark"])]
    assert sorted(bad.row) == [61, 62]
    assert (bad.file == "data/a.jsonl").all()
    trained = {str(row["prompt"]) for row in read_rows(project.folder / "results/pairs/mine/train", ["prompt"])}
    assert not [prompt for prompt in trained for k in range(40, 50) if f"What is {k} plus one?" in prompt]
    metrics = json.loads((project.folder / "results/evals/mine/held/metrics.json").read_text())
    assert metrics["n"] == 10
    assert project.planned("--configfile", str(overlay)) == {}
    (data / "a.jsonl").write_text("\n".join(lines))
    assert "download" in project.planned("--configfile", str(overlay))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", ["data/a.jsonl has no rows"]),
        ('{"text": "no pair"}\n' * 30, ["format is not clear", "data/a.jsonl:1", "text", "fields"]),
        (
            '{"prompt": "p", "chosen": "same", "rejected": "same"}\n' * 30,
            ["unusable", "identical 30", "data/a.jsonl:1"],
        ),
        ("{\n" * 30, ["data/a.jsonl"]),
    ],
)
def test_bad_file_ends_with_one_message_and_no_output(tmp_path: Path, content: str, expected: list[str]) -> None:
    project = Project(tmp_path / "project")
    (project.folder / "data").mkdir()
    (project.folder / "data" / "a.jsonl").write_text(content)
    config = small("mine")
    config["datasets"]["mine"] = {"files": ["data/a.jsonl"]}
    done = project.run("--cores", "2", "--configfile", str(project.overlay(config)), check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    for part in expected:
        assert part in done.stdout
    assert not list((project.folder / "results").glob("pairs/*/stats.json"))


def test_model_that_cannot_be_had_ends_with_one_message(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    config = small("mine")
    config["models"]["mine"] = {"path": "nobody/nothing", "revision": "main"}
    done = project.run("--cores", "2", "--configfile", str(project.overlay(config)), check=False, timeout=120)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    assert "nobody/nothing" in done.stdout


def outcome(project: Project) -> dict[str, bytes]:
    """What must not depend on how often a run was interrupted, in the order in which it is made."""
    results = project.folder / "results"
    patterns = ("data/*/*", "pairs/*/*/part-*", "base/*/*", "tokens/*/*/*", "models/*/model.safetensors", "evals/*/*/*")
    files = [path for pattern in patterns for path in sorted(results.glob(pattern))]
    return {str(path.relative_to(results)): path.read_bytes() for path in [*files, results / "summary.tsv"]}


def training(project: Project) -> str:
    """How the training went, for the message of a test that fails."""
    folder = project.folder / "results/models/small"
    facts = json.loads((folder / "run.json").read_text())
    found = {name: facts[name] for name in ("threads", "world_size", "steps", "continued", "key")}
    return f"{found}\n{(folder / 'log.jsonl').read_text()}"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, float]:
    """A project whose run has ended, and how many seconds that took."""
    project = Project(tmp_path_factory.mktemp("undisturbed") / "project")
    begin = time.monotonic()
    project.run("--cores", "2", "--configfile", str(project.overlay(small())))
    return project, time.monotonic() - begin


@pytest.mark.parametrize("everything", [True, False], ids=["all processes", "snakemake alone"])
def test_killed_at_random_moments_the_same_command_gives_the_same_results(
    tmp_path: Path, undisturbed: tuple[Project, float], everything: bool
) -> None:
    project = Project(tmp_path / "project")
    arguments = ["--cores", "2", "--configfile", str(project.overlay(small()))]
    moments = random.Random(str(everything))
    for _ in range(3):
        process = project.start(*arguments)
        time.sleep(moments.uniform(0.1, 0.6) * undisturbed[1])
        if everything:
            with suppress(ProcessLookupError):  # it has ended
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
    project.run(*arguments)
    found, expected = outcome(project), outcome(undisturbed[0])
    assert found.keys() == expected.keys()
    different = [name for name in found if found[name] != expected[name]]
    assert not different, f"{different}\n{training(project)}\n{training(undisturbed[0])}"


def test_scoring_that_is_killed_goes_on_after_its_last_part(tmp_path: Path, undisturbed: tuple[Project, float]) -> None:
    shutil.copytree(undisturbed[0].folder, tmp_path / "project", symlinks=True)
    project = Project.at(tmp_path / "project")
    results = project.folder / "results"
    texts = [" ".join(str(n) for n in range(k % 40)) for k in range(12 * 256)]
    rows = [{"prompt": f"What is {k}?", "answers": [text, f"It is {k}.", "No."]} for k, text in enumerate(texts)]
    (project.folder / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scoring = {"c": {"files": ["c.jsonl"], "run": "small", "shards": 2, "pairs": {}}}
    overlay = project.overlay({**small(), "scoring": scoring})
    target = "results/scores/c/manifest.json"
    arguments = ["--cores", "2", target, "--configfile", str(overlay)]

    def scores() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (results / "scores/c").iterdir() if path.is_file()}

    project.run(*arguments)
    expected = scores()
    for folder in ("scores", "shards/scored"):
        shutil.rmtree(results / folder)
    process = project.start(*arguments)
    deadline = time.monotonic() + 60
    while len(parts := [*results.glob("shards/scored/c/parts/*/*.scores")]) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in results.glob("shards/scored/c/parts/*/*.scores")}
    assert len(parts) <= len(kept) < 12 and not (results / "scores/c").exists()
    project.run(*arguments)
    assert scores() == expected
    assert kept == {path: path.stat().st_mtime_ns for path in kept}, "no finished part is computed again"


def test_second_instance_is_refused(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    arguments = ["--cores", "2", "--configfile", str(project.overlay(small()))]
    first = project.start(*arguments)
    try:
        lock = project.folder / "results" / ".instance.lock"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (lock.exists() and lock.read_text()):
            time.sleep(0.1)
        second = project.run(*arguments, check=False)
        assert second.returncode != 0
        assert "already working on" in second.stdout
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()


def test_runs_that_share_mixture_and_model_share_tokens(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    config = small()
    config["runs"]["other"] = {**config["runs"]["small"], "seeds": [1, 2]}
    jobs = project.planned("--configfile", str(project.overlay(config)))
    assert (jobs["tokenize"], jobs["train"], jobs["build_pairs"]) == (1, 3, 1)
