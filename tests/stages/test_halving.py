"""Rungs of successive halving: cells stop there, continue from there, and end as if they had never stopped."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import evaluate
import halve
from rewardline.core.artifacts import write_sealed
from rewardline.core.errors import UserError
from rewardline.data.pairs.identity import chooses
from rewardline.data.schema import hash_texts
from rewardline.evaluation.results import left_out_lines, read_all_results
from rewardline.scoring.text_scorer import Scorer
from rewardline.tokens.store import TokenDataset
from rewardline.training.halving import HalvingSettings, Rung, RungResult, choose_cells, last_step
from rewardline.training.records.run_facts import RunFacts

from support.processes import forks
from support.processes.forks import Fork
from support.training_runs import (
    ENVIRONMENT,
    SHORT,
    command,
    finish,
    largest_difference,
    result,
    stop_at_step,
    training,
)

Json = dict[str, Any]
STEP = 10


def rung(folder: Path, accuracies: dict[str, float | None], keep: int, step: int = STEP) -> Rung:
    """The choice after a rung between runs with these accuracies, each a cell of its own."""
    for run, accuracy in accuracies.items():
        found = RungResult(run=run, key="k", step=step, pairs=9, accuracy=accuracy)
        write_sealed(folder / "results" / f"{run}.json", found.as_json())
    settings = HalvingSettings(sweep="s", step=step, keep=keep, cells={f"cell {run}": [run] for run in accuracies})
    arguments = ["--settings", settings.canonical_json(), "--results", str(folder / "results")]
    assert halve.main([*arguments, "--output", str(folder / "rung.json")]) == 0
    return Rung.read(folder / "rung.json")


def test_the_best_cells_go_on_and_those_eliminated_before_do_not_count(tmp_path: Path) -> None:
    found = rung(tmp_path, {"a": 0.5, "b": 0.7, "c": None, "d": 0.6, "e": 0.6, "f": 0.1}, keep=2)
    assert [cell.name for cell in found.cells] == ["cell b", "cell d", "cell e", "cell a", "cell f"]
    assert [run for run in "abcdef" if found.goes_on(run)] == ["b", "d"]
    assert "s: 2 of 5 cells went on after step 10, those with an accuracy of 60.0%" in found.sentence()


def test_a_cell_of_which_a_seed_diverged_is_the_worst_and_said_to_be(tmp_path: Path) -> None:
    reason = "the loss is not finite at step 7"
    for run, accuracy in {"a-seed0": 0.9, "a-seed1": None, "b-seed0": 0.6, "b-seed1": 0.5}.items():
        diverged = reason if accuracy is None else None
        found = RungResult(run=run, key="k", step=STEP, pairs=9, accuracy=accuracy, diverged=diverged)
        write_sealed(tmp_path / f"{run}.json", found.as_json())
    cells = {name: [f"{name}-seed0", f"{name}-seed1"] for name in "ab"}
    settings = HalvingSettings(sweep="s", step=STEP, keep=2, cells=cells)
    chosen = choose_cells(settings, tmp_path)
    assert [(cell.name, cell.goes_on) for cell in chosen.cells] == [("b", True), ("a", False)]
    assert f"has diverged: a-seed1 ({reason})" in chosen.sentence() and "1 of 2 cells went on" in chosen.sentence()
    with pytest.raises(UserError, match=r"s: all cells have diverged: a-seed1 \(the loss is not finite at step 7\)"):
        choose_cells(settings.replace(cells={"a": cells["a"]}), tmp_path)


def test_what_stops_a_run_is_read_without_touching_a_damaged_file(tmp_path: Path) -> None:
    rung(tmp_path, {"a": 0.5, "b": 0.7}, keep=1)
    path = tmp_path / "rung.json"
    assert (last_step("a", [path]), last_step("b", [path]), last_step("a", [tmp_path / "no.json"])) == ("10", "", "")
    path.write_text("{")
    assert last_step("a", [path]) == "" and path.read_text() == "{"


def test_a_cell_that_diverges_leaves_what_happened_and_nothing_to_score(
    tmp_path: Path, tokens: Path, base: Path
) -> None:
    def run(output: Path, step: int | None) -> None:
        parts = stage(tmp_path, tokens, base, output, [], step)
        settings = json.loads(parts[3])
        settings |= {"sweep": "s", "training": {**settings["training"], "learning_rate": 1e30, "clip": 0}}
        parts[3] = json.dumps(settings)
        assert forks.run(parts, env=ENVIRONMENT).returncode == 0

    run(tmp_path / "result.json", STEP)
    measured = RungResult.read(tmp_path / "result.json")
    assert measured.accuracy is None and measured.diverged is not None
    assert re.fullmatch(r"the (loss|gradient) is not finite at step \d", measured.diverged)
    out = tmp_path / "out"
    run(out, None)
    assert "is not finite at step" in (tmp_path / "log").read_text(), "a warning, with the pairs of the step"
    facts = RunFacts.read(out / "run.json")
    assert (facts.diverged, load_file(out / "model.safetensors")) == (measured.diverged, {})
    assert "No model" in (out / "README.md").read_text()
    run(out, None)
    assert "is already done" in (tmp_path / "log").read_text()
    with pytest.raises(UserError, match=r"has no weights: its training has diverged"):
        Scorer(str(out))
    settings = {"run": "r", "name": "r", "mixture": "m", "model": "x", "seed": 1, "benchmark": "eval"}
    missing = ["--tokens", "t", "--output", str(tmp_path / "evals" / "r" / "eval")]
    assert evaluate.main(["--settings", json.dumps(settings), "--model", str(out), *missing]) == 0
    measured_on, left_out = read_all_results([tmp_path / "evals" / "r" / "eval" / "metrics.json"])
    assert measured_on == []
    assert left_out_lines(left_out) == [f"r is left out: its training has diverged ({facts.diverged})"]


def test_a_damaged_result_is_not_used(tmp_path: Path) -> None:
    rung(tmp_path, {"a": 0.5, "b": 0.7}, keep=1)
    path = tmp_path / "results" / "a.json"
    path.write_text(path.read_text().replace("0.5", "0.9"))
    with pytest.raises(UserError, match=r"a.json is damaged"):
        halve.main(
            [
                *("--settings", '{"sweep": "s", "step": 9, "keep": 1, "cells": {"a": ["a"]}}'),
                *("--results", str(path.parent), "--output", str(tmp_path / "again.json")),
            ]
        )


def stage(folder: Path, tokens: Path, base: Path, output: Path, rungs: list[Path], step: int | None) -> list[str]:
    """The command of `support.training_runs.start`, to a rung or after some."""
    folder.mkdir(exist_ok=True)
    parts = command(folder, tokens, base, training(**{**SHORT, "eval_every": 0, "checkpoint_every": 4}))
    settings = json.loads(parts[3])
    if step is not None:
        settings["rung"] = {"number": 0, "step": step, "share": 0.5}
    parts[3], parts[parts.index("--output") + 1] = json.dumps(settings), str(output)
    return [*parts, "--rungs", *map(str, rungs)]


def run(program: list[str]) -> None:
    done = forks.run(program, env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout


def test_a_killed_eliminated_and_readmitted_run_ends_as_one_that_was_never_stopped(
    tmp_path: Path, tokens: Path, base: Path
) -> None:
    folder, output = tmp_path / "cell", tmp_path / "cell" / "out"
    to_rung = stage(folder, tokens, base, folder / "result.json", [], STEP)
    stop_at_step(Fork(to_rung, env=ENVIRONMENT), folder, 6, signal.SIGKILL)
    run(to_rung)
    measured = RungResult.read(folder / "result.json")
    held_out = TokenDataset(tokens, "eval")
    chosen = chooses(hash_texts(held_out.prompt_ids), 0.5)
    assert measured.pairs == held_out.pair_counts[chosen].sum() and 0 < measured.pairs < held_out.pairs
    assert measured.accuracy is not None and not output.exists()

    rung(tmp_path / "out", {"r": measured.accuracy, "better": 1.1}, keep=1)
    rungs = [tmp_path / "out" / "rung.json"]
    run(stage(folder, tokens, base, output, rungs, None))
    facts = RunFacts.read(output / "run.json")
    assert (facts.steps, facts.eliminated_at) == (STEP, STEP)
    assert "eliminated by successive halving after step 10" in (output / "README.md").read_text()
    run(stage(folder, tokens, base, folder / "next.json", rungs, 20))
    assert RungResult.read(folder / "next.json").accuracy is None, "it is not trained in the next rung"

    rung(tmp_path / "on", {"r": measured.accuracy, "worse": 0.0}, keep=1)
    rungs = [tmp_path / "on" / "rung.json"]
    run(stage(folder, tokens, base, output, rungs, None))
    assert f"continuing after step {STEP}" in (folder / "log").read_text()
    expected, expected_lines = finish(tmp_path / "undisturbed", tokens, base)
    weights, lines = result(folder)
    assert largest_difference(weights, expected) == 0.0
    assert [(line["step"], line["loss"]) for line in lines] == [(line["step"], line["loss"]) for line in expected_lines]
    facts = RunFacts.read(output / "run.json")
    assert (facts.steps, facts.eliminated_at) == (SHORT["max_steps"], None)
    run(to_rung)
    assert "is already done" in (folder / "log").read_text(), "the result of a rung outlives the training"


def test_a_first_rung_after_the_end_of_training_is_one_message(tmp_path: Path, tokens: Path, base: Path) -> None:
    parts = stage(tmp_path, tokens, base, tmp_path / "result.json", [], 40)
    assert forks.run(parts, env=ENVIRONMENT).returncode == 1
    text = (tmp_path / "log").read_text()
    assert (
        "grid.halving.min_steps: 40 is not below the 40 steps of the training run" in text and "Traceback" not in text
    )
