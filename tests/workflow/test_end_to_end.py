"""The whole pipeline: the default configuration twice, own files, kills at any moment, and a second instance."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from project import ENVIRONMENT, Project
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from conftest import ROOT
from rewardline.pairs import read_pairs
from rewardline.tokenization import SPEAKERS

Json = dict[str, Any]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """The default run in a fresh copy, and what it said."""
    project = Project(tmp_path_factory.mktemp("default") / "project")
    return project, project.run("--cores", "all").stdout


def small(name: str = "small", **training: Any) -> Json:
    """A configuration whose run takes seconds once torch is imported."""
    tokenizer = {"mixture": name, "vocab_size": 400}
    model = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    init = {"config": {**model, "num_attention_heads": 2}, "tokenizer": tokenizer}
    defaults = {"learning_rate": 1e-2, "pairs_per_step": 8, "max_steps": 30, "checkpoint_every": 5, "eval_every": 10}
    return {
        "datasets": {name: {"demo": {"pairs": 200, "seed": 3}}},
        "mixtures": {name: {"datasets": {name: 1.0}, "eval_fraction": 0.2}},
        "models": {name: {"max_length": 160, "init": init}},
        "runs": {name: {"mixture": name, "model": name, "training": {**defaults, **training}}},
    }


def test_default_learns_and_says_where_everything_is(finished: tuple[Project, str]) -> None:
    project, text = finished
    summary = pd.read_csv(project.folder / "results" / "summary.tsv", sep="\t")
    expected = "run mixture model seed benchmark n accuracy accuracy_low accuracy_high chosen_mean rejected_mean"
    assert list(summary.columns)[:11] == expected.split()
    assert list(summary.run) == ["demo-seed0", "demo-seed1"]
    assert (summary.accuracy_low > 0.6).all()
    assert (summary.length_accuracy - 0.5).abs().max() < 0.06
    metrics = json.loads((project.folder / "results/evals/demo-seed0/eval/metrics.json").read_text())
    assert {"wrong_number", "refusal", "broken_off", "rude", "off_question"} <= set(metrics["by_subset"])
    for part in ("demo, 2 seeds", "wrong_number", "results/report.html", "results/models/demo-seed0"):
        assert part in text
    page = (project.folder / "results" / "report.html").read_text()
    assert "http://" not in page
    assert "https://" not in page


def test_running_again_does_nothing(finished: tuple[Project, str]) -> None:
    project, _ = finished
    begin = time.monotonic()
    assert "Nothing to be done" in project.run("--cores", "all").stdout
    assert time.monotonic() - begin < 30
    for path in (
        *project.folder.rglob("scripts/**/*.py"),
        *project.folder.glob("rules/*"),
        project.folder / "Snakefile",
    ):
        os.utime(path)
    assert "Nothing to be done" in project.run("--cores", "all").stdout


def test_model_alone_gives_the_scores_that_were_written(finished: tuple[Project, str]) -> None:
    project, _ = finished
    results = project.folder / "results"
    scores = pd.read_parquet(results / "evals" / "demo-seed0" / "eval" / "scores.parquet").set_index("pair_id")
    model = AutoModelForSequenceClassification.from_pretrained(results / "models" / "demo-seed0").eval()
    tokenizer = AutoTokenizer.from_pretrained(results / "models" / "demo-seed0")
    rows: list[Any] = list(read_pairs(results / "pairs" / "demo" / "eval"))[:40]
    for side in ("chosen", "rejected"):
        texts = []
        for row in rows:
            turns = [f"{SPEAKERS[turn['role']]}: {turn['content']}" for turn in row["prompt"]]
            texts.append("\n\n".join([*turns, f"Assistant: {row[side]}"]) + tokenizer.eos_token)
        with torch.no_grad():
            logits = model(**tokenizer(texts, return_tensors="pt", padding=True)).logits[:, 0]
        written = torch.tensor([scores.loc[row["pair_id"], f"{side}_score"] for row in rows])
        assert (logits - written).abs().max() < 1e-4


def test_rows_and_pairs_add_up(finished: tuple[Project, str]) -> None:
    project, _ = finished
    stats = json.loads((project.folder / "results" / "pairs" / "demo" / "stats.json").read_text())
    assert stats["rows_in"] == 6000 == stats["pairs_out"] + sum(stats["rejects"].values())
    assert stats["pairs_out"] == stats["train"] + stats["eval"]
    rejects = pd.read_parquet(project.folder / "results" / "pairs" / "demo" / "rejects.parquet")
    assert rejects.reason.value_counts().to_dict() == stats["rejects"]
    sides = {
        split: {row["prompt_id"] for row in read_pairs(project.folder / f"results/pairs/demo/{split}", ["prompt_id"])}
        for split in ("train", "eval")
    }
    assert not sides["train"] & sides["eval"]


def test_score_prints_a_table_of_query_answer_and_score(finished: tuple[Project, str]) -> None:
    project, _ = finished
    question = "Explain the moon landing to a 6 year old in a few sentences."
    good, bad = "People flew to the Moon in a rocket and walked on it.", "I will not talk about that."
    command = [sys.executable, "scripts/score.py", "--model", "results/models/demo-seed0", "--prompt", question]
    command += ["--answer", bad, "--answer", good]
    done = subprocess.run(command, cwd=project.folder, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0].split() == ["query", "answer", "score"]
    flat = " ".join(done.stdout.split())
    assert "Explain the moon landing" in flat
    numbers = [float(word) for word in flat.split() if word.lstrip("-").replace(".", "", 1).isdigit() and "." in word]
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) == 2


def test_score_of_a_file_equals_the_evaluation_and_keeps_bad_rows(
    finished: tuple[Project, str], tmp_path: Path
) -> None:
    project, _ = finished
    results = project.folder / "results"
    scores = pd.read_parquet(results / "evals" / "demo-seed0" / "eval" / "scores.parquet").set_index("pair_id")
    rows: list[Any] = list(read_pairs(results / "pairs" / "demo" / "eval"))[:30]
    lines = [json.dumps({key: row[key] for key in ("pair_id", "prompt", "chosen", "rejected")}) for row in rows]
    (tmp_path / "in.jsonl").write_text("\n".join([lines[0], "{", '{"prompt": 3}', *lines[1:]]))
    command = [sys.executable, "scripts/score.py", "--model", "results/models/demo-seed0"]
    command += ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    subprocess.run(command, cwd=project.folder, env=ENVIRONMENT, check=True)
    scored = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert ["error" in row for row in scored] == [False, True, True] + [False] * 29
    for row in scored:
        if "error" not in row:
            expected = scores.loc[row["pair_id"]]
            assert abs(row["chosen_score"] - expected.chosen_score) < 1e-5
            assert abs(row["rejected_score"] - expected.rejected_score) < 1e-5


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
    trained = {str(row["prompt"]) for row in read_pairs(project.folder / "results/pairs/mine/train", ["prompt"])}
    assert not [prompt for prompt in trained for k in range(40, 50) if f"What is {k} plus one?" in prompt]
    metrics = json.loads((project.folder / "results/evals/mine/held/metrics.json").read_text())
    assert metrics["n"] == 10
    assert project.planned("--configfile", str(overlay)) == {}
    (data / "a.jsonl").write_text("\n".join(lines))
    assert "download" in project.planned("--configfile", str(overlay))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", ["data/a.jsonl", "empty"]),
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
    """What must not depend on how often a run was interrupted: weights, scores and the summary."""
    results = project.folder / "results"
    files = [*results.glob("models/*/model.safetensors"), *results.glob("evals/*/*/*"), results / "summary.tsv"]
    files += [*results.glob("pairs/*/*/part-*"), *results.glob("tokens/*/*/*"), *results.glob("data/*/*")]
    return {str(path.relative_to(results)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    project = Project(tmp_path_factory.mktemp("undisturbed") / "project")
    project.run("--cores", "2", "--configfile", str(project.overlay(small())))
    return outcome(project)


@pytest.mark.parametrize("everything", [True, False], ids=["all processes", "snakemake alone"])
def test_killed_at_random_moments_the_same_command_gives_the_same_results(
    tmp_path: Path, undisturbed: dict[str, bytes], everything: bool
) -> None:
    project = Project(tmp_path / "project")
    arguments = ["--cores", "2", "--configfile", str(project.overlay(small()))]
    moments = random.Random(str(everything))
    for _ in range(3):
        process = project.start(*arguments)
        time.sleep(moments.uniform(3, 22))
        if everything:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
    project.run(*arguments)
    found = outcome(project)
    assert found.keys() == undisturbed.keys()
    assert [name for name in found if found[name] != undisturbed[name]] == []


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


def test_lint_finds_nothing() -> None:
    done = subprocess.run(
        ["snakemake", "--lint"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
