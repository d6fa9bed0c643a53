"""A benchmark that fails does not throw away the results of the others."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from support.project import ENVIRONMENT, Project

CONFIG = {
    "datasets": {"made": {"demo": {}}},
    "mixtures": {"m": {"datasets": {"made": 1.0}}},
    "models": {"x": {"path": "owner/name"}},
    "benchmarks": {"good": {"demo": {}}, "bad": {"demo": {"seed": 2}}},
    "runs": {"r": {"mixture": "m", "model": "x"}, "s": {"mixture": "m", "model": "x", "benchmarks": ["good", "bad"]}},
}


def test_results_that_did_not_fail_are_shown(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    (project.folder / "config" / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    for run, benchmark in (("r", "eval"), ("s", "eval"), ("s", "good"), ("s", "bad")):
        folder = project.folder / "results" / "evals" / run / benchmark
        folder.mkdir(parents=True)
        value = {"run": run, "mixture": "m", "model": "x", "seed": 0, "benchmark": benchmark, "n": 7}
        (folder / "metrics.json").write_text(json.dumps({**value, "accuracy": 0.75}))
    project.pretend()
    for name in ("metrics.json", "scores.parquet"):
        (project.folder / "results" / "evals" / "s" / "bad" / name).unlink()
    done = project.run("--cores", "2", check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    shown = done.stdout[done.stdout.index("run  benchmark") :].splitlines()
    assert [line.split()[:2] for line in shown[1:4]] == [["r", "eval"], ["s", "eval"], ["s", "good"]]
    assert not shown[4].startswith("s ")
    place = shown.index("failed  evaluate s bad; see results/logs/evaluate/s/bad.log")
    assert shown[place + 1].startswith("  results/models/s/run.json is damaged")
    assert shown[place + 2] == "The same command resumes where this one stopped."
    (failed,) = [line for line in shown if line.startswith("failed")]
    assert failed == "failed  evaluate s bad; see results/logs/evaluate/s/bad.log"


def test_a_full_or_missing_folder_for_temporary_files_is_said_and_an_edited_rule_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path / "project")
    target = "results/data/made/manifest.json"
    (project.folder / "config" / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    monkeypatch.setitem(ENVIRONMENT, "TMPDIR", str(tmp_path / "none"))
    text = project.run("--cores", "1", "--dry-run", target).stdout
    assert f"{tmp_path}/none takes no temporary files; they go to /tmp." in text and "Generating made" in text
    rule = project.folder / "rules" / "download.smk"
    rule.write_text(rule.read_text().replace('"Generating {', '"Making {'))
    assert "Making made" in project.run("--cores", "1", "--dry-run", target).stdout


def test_a_home_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path / "project")
    (project.folder / "config" / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    monkeypatch.setitem(ENVIRONMENT, "HOME", "/proc/none")
    assert "generate_demo" in project.run("--cores", "1", "--dry-run", "results/data/made/manifest.json").stdout


def test_a_terminal_without_unicode_shows_mistakes_with_escapes(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    overlay = project.overlay(
        {"datasets": {"x": {"files": ["d\u00e9j\u00e0.jsonl"]}}, "mixtures": {"demo": {"datasets": {"x": 1}}}}
    )
    command = ["snakemake", "--cores", "1", "--dry-run", "--configfile", str(overlay)]
    ascii_only = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        command, cwd=project.folder, env=ascii_only, stdout=-1, stderr=-2, text=True, check=False, timeout=60
    )
    assert "datasets.x.files: d\\xe9j\\xe0.jsonl does not exist" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_second_ctrl_c_leaves_the_jobs_time_to_end(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    overlay = project.overlay({**CONFIG, "datasets": {"made": {"demo": {"pairs": 3_000_000}}}})
    target = "results/data/made/manifest.json"
    command = ["snakemake", target, "--cores", "1", "--configfile", str(overlay)]
    with subprocess.Popen(
        command, cwd=project.folder, env=ENVIRONMENT, stdout=-1, stderr=-2, text=True, start_new_session=True
    ) as process:
        log = project.folder / "results/logs/generate_demo/made.log"
        deadline = time.monotonic() + 60
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        text, _ = process.communicate(timeout=60)
    assert re.search(r"stopped .* generate_demo  Generating made", text), text
    assert "waiting for the jobs to end; Ctrl-C once more leaves at once" in text
    assert text.count("stopped on request\nThe same command resumes where this one stopped.") == 1
    assert not re.search(r"failed|Traceback|Error", text), text


def test_a_lack_of_memory_that_snakemake_would_not_survive_is_one_message(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    command = ["bash", "-c", "ulimit -v 700000 && exec snakemake --cores 1 --dry-run"]
    done = subprocess.run(
        command, cwd=project.folder, env=ENVIRONMENT, stdout=-1, stderr=-2, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("the address space of a process is limited to 683 MiB")
    assert "Traceback" not in done.stdout


def test_what_a_failed_job_took_away_is_made_again(tmp_path: Path) -> None:
    """Not taken for something that nobody needs, as long as what was made of it before is there."""
    project = Project(tmp_path / "project")
    (project.folder / "config" / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    project.pretend()
    for path, rule in (
        ("data/made", "generate_demo"),
        ("shards/candidates/bad/all", "convert_rows"),
        ("base/x", "base_model"),
    ):
        lost = project.folder / "results" / path / "manifest.json"
        content = lost.read_bytes()
        lost.unlink()
        assert rule in project.planned()
        lost.write_bytes(content)
