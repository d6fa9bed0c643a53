"""The whole pipeline on the default configuration, twice, and what a person does with its results."""

import base64
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rewardline.data.demo.generator import generate
from rewardline.data.parquet import read_rows
from rewardline.data.turns import SPEAKERS
from rewardline.scoring.text_scorer import Scorer

from support.damage import Damage, Kind, is_noticed
from support.paths import ROOT
from support.processes import forks
from support.project import ENVIRONMENT, Project

Json = dict[str, Any]
JUDGED = {"evaluate", "evaluation_card", "track", "compare", "summarize", "plot"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """The default run in a fresh copy, and what it said."""
    project = Project(tmp_path_factory.mktemp("default") / "project")
    return project, project.run("--cores", "all").stdout


def test_default_learns_and_says_where_everything_is(finished: tuple[Project, str]) -> None:
    project, text = finished
    summary = pd.read_csv(project.folder / "results" / "summary.tsv", sep="\t")
    expected = "run mixture model seed benchmark n accuracy accuracy_low accuracy_high chosen_mean rejected_mean"
    assert list(summary.columns)[:11] == expected.split()
    assert sorted(zip(summary.benchmark, summary.run, strict=True)) == [
        (benchmark, run) for benchmark in ("eval", "probes") for run in ("demo-seed0", "demo-seed1")
    ]
    held_out = summary[summary.benchmark == "eval"]
    assert (held_out.accuracy_low > 0.6).all()
    assert (held_out.length_accuracy - 0.5).abs().max() < 0.06
    metrics = json.loads((project.folder / "results/evals/demo-seed0/eval/metrics.json").read_text())
    assert {"wrong_number", "refusal", "broken_off", "rude", "off_question"} <= set(metrics["by_subset"])
    shown = (ROOT / "README.md").read_text().partition("\ndemo: 10,000 rows")[2].partition("\n```")[0]
    for part in ("demo, 2 seeds", "wrong_number", shown, "results/report.html", "results/models/demo-seed0"):
        assert part in text
    jobs = re.findall(r"^\d\d:\d\d:\d\d +(\d+)/(\d+) .*? s  (\w+ +\S.*?)(?:; \w+ [^;]* left)?$", text, re.MULTILINE)
    assert [int(done) for done, *_ in jobs] == list(range(1, int(jobs[0][1]) + 1)), "a line for each finished job"
    assert {"train            Training demo-seed0", "plot             Writing the report"} <= {job for *_, job in jobs}
    assert not re.search(r"[^\n -~\u00a0-\uffff]|^ +input: ", text, re.MULTILINE), "suits a log file"
    assert len(text[text.index("\nrun  ") :].splitlines()) <= 50, "a screen"
    page = (project.folder / "results" / "report.html").read_text()
    assert "http://" not in page
    assert "https://" not in page


def test_running_again_does_nothing(finished: tuple[Project, str]) -> None:
    project, _ = finished
    begin = time.monotonic()
    text = project.run("--cores", "all").stdout
    assert "Nothing to be done" in text and "demo, 2 seeds" in text
    assert time.monotonic() - begin < 30
    for path in (
        *project.folder.rglob("scripts/**/*.py"),
        *project.folder.glob("rules/*"),
        project.folder / "Snakefile",
    ):
        os.utime(path)
    assert "Nothing to be done" in project.run("--cores", "all").stdout


def test_show_prints_what_is_up_to_date_and_runs_nothing(finished: tuple[Project, str]) -> None:
    project, _ = finished
    assert "demo, 2 seeds" in project.run("show").stdout
    changed = project.overlay({"runs": {"demo": {"training": {"learning_rate": 0.5}}}})
    text = project.run("show", "--configfile", str(changed)).stdout
    assert "no evaluation is up to date" in text and "demo: 10,000 rows" in text
    assert "results/report.html" not in text.splitlines()[-3:]
    changed.unlink()


def test_an_average_of_the_seeds_is_one_of_the_models(finished: tuple[Project, str]) -> None:
    project, _ = finished
    added = project.overlay({"runs": {"both": {"average": ["demo"]}}})
    text = project.run("--cores", "2", "--configfile", str(added), "--", "results/models/both/run.json").stdout
    assert re.search(r"^models  .*results/models/both$", text, re.MULTILINE)
    weights = [
        load_file(project.folder / f"results/models/{n}/model.safetensors") for n in ("demo-seed0", "demo-seed1")
    ]
    for name, mean in load_file(project.folder / "results/models/both/model.safetensors").items():
        torch.testing.assert_close(mean, (weights[0][name].double() + weights[1][name]).div(2).float(), rtol=0, atol=0)
    added.unlink()
    shutil.rmtree(project.folder / "results/models/both")


def test_pairs_to_label_are_those_that_the_seeds_disagree_about(finished: tuple[Project, str]) -> None:
    project, _ = finished
    rows = [{"prompt": row["prompt"], "answers": [row["rejected"], row["chosen"]]} for row in generate(150, 9)]
    (project.folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    added = project.overlay({"to_label": {"next": {"files": ["pool.jsonl"], "runs": "demo", "number": 20}}})
    text = project.run("--cores", "2", "--configfile", str(added), "--", "results/to_label/next.jsonl").stdout
    assert re.search(r"^next: 20 of \d+ pairs .* are to be labeled, by disagreement of 2 models", text, re.MULTILINE)
    lines = [json.loads(line) for line in (project.folder / "results/to_label/next.jsonl").read_text().splitlines()]
    assert len(lines) == 20 and sorted((line["acquisition"] for line in lines), reverse=True) == [
        line["acquisition"] for line in lines
    ]
    for seed in ("demo-seed0", "demo-seed1"):
        scorer = Scorer(str(project.folder / "results" / "models" / seed))
        scores = scorer.score(
            [line["prompt"] for line in lines], [[line["answer_a"], line["answer_b"]] for line in lines]
        )
        for line, pair in zip(lines, scores, strict=True):
            assert isinstance(pair, list)
            first, second = pair
            assert line["probabilities"][seed] == pytest.approx(1 / (1 + math.exp(second - first)), abs=1e-5)
    added.unlink()
    for name in ("to_label", "data/next", "shards/scored", "shards/data/next"):
        shutil.rmtree(project.folder / "results" / name)


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        ("models/demo-seed0/model.safetensors", {"train", *JUDGED}),
        ("evals/demo-seed1", JUDGED),
        ("report.html", {"plot"}),
        ("summary.tsv", {"summarize", "plot"}),
    ],
)
def test_what_is_lost_is_made_again(
    finished: tuple[Project, str], tmp_path: Path, lost: str, expected: set[str]
) -> None:
    project, _ = finished
    path, aside = project.folder / "results" / lost, tmp_path / "aside"
    path.rename(aside)
    try:
        assert set(project.planned()) == expected
    finally:
        aside.rename(path)


def test_damage_is_noticed_by_whoever_reads_it(
    finished: tuple[Project, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`benchmarks/damage.py` does the same a thousand times."""
    project, _ = finished
    monkeypatch.chdir(project.folder)
    damage, chance = Damage(project, tmp_path), random.Random(0)
    kinds: tuple[Kind, ...] = ("byte", "byte", "byte", "byte", "byte", "byte", "cut", "lost", "swapped")
    outcomes = [damage.change(chance, kind, again) for kind in kinds for again in (False, False, False, True)]
    damage.restore()
    assert [one for one in outcomes if not is_noticed(*one)] == []


def test_what_is_damaged_is_made_again_by_the_same_command(finished: tuple[Project, str]) -> None:
    """Candidates that a job reads; and pairs, of which a probe reads one of two links."""
    project, _ = finished
    results = project.folder / "results"
    flipped = [results / "shards/candidates/demo/all/candidates.arrow", results / "pairs/demo/eval/part-00000.parquet"]
    wanted = [results / "shards/pairs/demo/0/manifest.json", results / "pairs/probes/stats.json"]
    before = {path: path.read_bytes() for path in [*flipped, *wanted]}
    for path, target in zip(flipped, wanted, strict=True):
        with path.open("r+b") as file:  # not by another file of that name, so that all its links change
            file.seek(1000)
            file.write(bytes([before[path][1000] ^ 1]))
        target.unlink()
        target.with_name(f".{target.name}").unlink()  # else it would be restored, and nothing read
        arguments = ["--cores", "2", str(target.relative_to(project.folder))]
        text = project.run(*arguments, check=False).stdout
        assert f"{path.relative_to(project.folder)} is damaged (it has changed since it was written)" in text
        assert "Traceback" not in text
        project.run(*arguments)
    assert {path: path.read_bytes() for path in before} == before


def test_snakemake_report_holds_the_page_the_table_and_the_cards(finished: tuple[Project, str]) -> None:
    project, _ = finished
    project.run("--report", "report.html")
    text = (project.folder / "report.html").read_text()
    for part in ("report for people", "table of runs and benchmarks", "Evaluation cards", "demo-seed1", "95% interval"):
        assert part in text
    for name in ("report.html", "summary.tsv", "models/demo-seed0/EVALUATION.md"):
        assert base64.b64encode((project.folder / "results" / name).read_bytes()).decode() in text
    assert not re.search(r"""<(?:script|link|img)[^>]+(?:src|href)=["']https?:""", text)


def test_model_alone_gives_the_scores_that_were_written(finished: tuple[Project, str]) -> None:
    project, _ = finished
    results = project.folder / "results"
    scores = pd.read_parquet(results / "evals" / "demo-seed0" / "eval" / "scores.parquet").set_index("pair_id")
    model = AutoModelForSequenceClassification.from_pretrained(results / "models" / "demo-seed0").eval()
    tokenizer = AutoTokenizer.from_pretrained(results / "models" / "demo-seed0")
    rows: list[Any] = list(read_rows(results / "pairs" / "demo" / "eval"))[:40]
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
    assert stats["rows_in"] == 10_000 == stats["pairs_out"] + sum(stats["rejects"].values())
    assert stats["pairs_out"] == stats["train"] + stats["eval"]
    rejects = pd.read_parquet(project.folder / "results" / "pairs" / "demo" / "rejects.parquet")
    assert rejects.reason.value_counts().to_dict() == stats["rejects"]
    sides = {
        split: {row["prompt_id"] for row in read_rows(project.folder / f"results/pairs/demo/{split}", ["prompt_id"])}
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
    rows: list[Any] = list(read_rows(results / "pairs" / "demo" / "eval"))[:30]
    lines = [json.dumps({key: row[key] for key in ("pair_id", "prompt", "chosen", "rejected")}) for row in rows]
    (tmp_path / "in.jsonl").write_text("\n".join([lines[0], "{", '{"prompt": 3}', *lines[1:]]))
    command = [sys.executable, "scripts/score.py", "--model", "results/models/demo-seed0"]
    command += ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    assert forks.run(command, cwd=project.folder, env=ENVIRONMENT).returncode == 1
    scored = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert ["error" in row for row in scored] == [False, True, True] + [False] * 29
    for row in scored:
        if "error" not in row:
            expected = scores.loc[row["pair_id"]]
            assert abs(row["chosen_score"] - expected.chosen_score) < 1e-5
            assert abs(row["rejected_score"] - expected.rejected_score) < 1e-5


def test_lint_finds_nothing() -> None:
    done = Project.at(ROOT).run("--lint", check=False)
    assert done.returncode == 0, done.stdout
