"""Sweeps under Snakemake: killed in the middle, and with cells that diverge. They take minutes: `pytest -m slow`."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from rewardline.evaluation.choices import ChosenRun

from support.project import Project, small, sweep, sweep_results, wait_for

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("grid", "moments"),
    [
        ({}, ["models/s-lr=*/run.json", "evals/s-lr=*/eval/metrics.json"]),
        ({"halving": {"factor": 2, "min_steps": 4}}, ["rungs/s/0.json", "rungs/s/1/*.json", "models/s-lr=*/run.json"]),
    ],
    ids=["plain", "halving"],
)
def test_a_killed_sweep_ends_as_one_that_was_not_disturbed(
    tmp_path: Path, grid: dict[str, Any], moments: list[str]
) -> None:
    """It is killed when a file of each pattern appears: of halving, in the first rung, in the second and after it."""
    outcomes = []
    for name in ("undisturbed", "killed"):
        project = Project(tmp_path / name)
        arguments = ["--cores", "2", "--configfile", str(project.overlay(sweep(grid)))]
        for pattern in moments if name == "killed" else ():
            process = project.start(*arguments)
            wait_for(project, pattern, process)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        project.run(*arguments)
        assert project.planned(*arguments[2:]) == {}
        outcomes.append(sweep_results(project))
    expected, found = outcomes
    assert found.keys() == expected.keys() and len(expected) > 20
    assert [name for name in found if found[name] != expected[name]] == []


def test_cells_are_added_and_diverge_and_the_others_go_on(tmp_path: Path) -> None:
    """With 1e30, two of six cells diverge; then two are added, and all is as if they had been there from the start."""
    grid: dict[str, Any] = {"training.learning_rate": [1e-3, 1e-2, 1e30], "halving": {"factor": 2, "min_steps": 4}}
    project = Project(tmp_path / "grown")
    project.run("--cores", "2", "--configfile", str(project.overlay(sweep(grid))))
    table = [line.split("\t") for line in (project.folder / "results/runs.tsv").read_text().splitlines()]
    reasons = {row[0]: row[table[0].index("diverged")] for row in table[1:]}
    assert {run for run, reason in reasons.items() if "not finite at step" in reason} == {
        f"s-lr=1e+30_loss={loss}" for loss in ("kwise", "pairwise")
    }
    found = ChosenRun.read(project.folder / "results/models/best/selection.json")
    assert found.diverged.keys() == {run for run, reason in reasons.items() if reason}
    rung = json.loads((project.folder / "results/rungs/s/0.json").read_text())
    assert sum(cell["goes_on"] for cell in rung["cells"]) == 3
    benchmark = project.folder / "results/evals"
    eliminated = [path for path in benchmark.glob("*/p/metrics.json") if json.loads(path.read_text())["n"] == 0]
    assert len(eliminated) == len(reasons) - 1, "on the benchmark the survivor alone is evaluated"
    grid["training.learning_rate"].append(3e-3)
    text = project.run("--cores", "2", "--configfile", str(project.overlay(sweep(grid)))).stdout
    new = Project(tmp_path / "at once")
    new.run("--cores", "2", "--configfile", str(new.overlay(sweep(grid))))
    expected, now = sweep_results(new), sweep_results(project)
    assert now.keys() == expected.keys()
    assert [name for name in now if now[name] != expected[name]] == []
    assert "s-lr=1e+30_loss=kwise to rung 0" not in text, "cells that were there are not trained again"


def test_a_run_that_is_no_cell_fails_where_it_diverges(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    config = small(learning_rate=1e30, clip=0, warmup=0)
    done = project.run("--cores", "2", "--configfile", str(project.overlay(config)), check=False)
    assert done.returncode == 1 and "is not finite at step" in done.stdout
