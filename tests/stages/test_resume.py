"""Training runs that are killed, stopped, moved or short of disk space: no work is lost, and the end is the same."""

import json
import os
import random
import resource
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rewardline.data.pairs.identity import chooses
from rewardline.data.schema import hash_texts
from rewardline.tokens.store import TokenDataset

from support.processes.forks import Fork
from support.tokens import write_tokens
from support.training_runs import (
    ENVIRONMENT,
    SHORT,
    TWO,
    Result,
    command,
    finish,
    largest_difference,
    start,
    stop_at_step,
    training,
    wait_for_step,
)

Json = dict[str, Any]
MOVED = 1e-5
"""How far a weight may be from that of an undisturbed run, after 40 steps at a rate of 0.001, where processes or ZeRO
stage changed on the way: sums are then taken in another order."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tokens: Path, base: Path) -> Result:
    return finish(tmp_path_factory.mktemp("undisturbed") / "run", tokens, base)


def log_of(folder: Path) -> str:
    return (folder / "log").read_text()


def curve(lines: list[Json]) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def test_killed_at_random_moments_the_same_command_ends_bit_equal(
    tmp_path: Path, tokens: Path, base: Path, undisturbed: Result
) -> None:
    folder, moments = tmp_path / "killed", random.Random(4)
    for _ in range(3):
        process = start(folder, tokens, base)
        wait_for_step(process, folder, moments.randrange(1, 8))
        time.sleep(moments.uniform(0, 0.5))
        process.kill()
        process.wait()
    weights, lines = finish(folder, tokens, base)
    assert largest_difference(weights, undisturbed[0]) == 0.0
    assert curve(lines) == curve(undisturbed[1])
    assert [path.name for path in (folder / "checkpoints").glob("*/*")] == ["model"]


def test_two_processes_stopped_and_killed_on_the_way_end_bit_equal(tmp_path: Path, tokens: Path, base: Path) -> None:
    options = {"zero_stage": 3, "dropout": 0.1, "max_steps": 16, "length_control": True}
    expected, expected_lines = finish(tmp_path / "complete", tokens, base, *TWO, **options)
    folder = tmp_path / "stopped"
    assert stop_at_step(start(folder, tokens, base, *TWO, **options), folder, 5, signal.SIGTERM) == 75
    assert log_of(folder).count("checkpoint saved") == 1
    stop_at_step(start(folder, tokens, base, *TWO, **options), folder, 11, signal.SIGKILL)
    assert not (folder / "out").exists()
    weights, lines = finish(folder, tokens, base, *TWO, **options)
    assert log_of(folder).count("continuing after step") == 1
    assert largest_difference(weights, expected) == 0.0
    assert curve(lines) == curve(expected_lines)
    slopes, expected_slopes = (
        [line["length_slope"] for line in one if "loss" in line] for one in (lines, expected_lines)
    )
    assert slopes == expected_slopes and any(slopes)


def test_training_resumes_with_other_processes_and_another_zero_stage(
    tmp_path: Path, tokens: Path, base: Path, undisturbed: Result
) -> None:
    folder = tmp_path / "moved"
    one: Json = {"zero_stage": 2, "offload": "optimizer", "gradient_checkpointing": True}
    stop_at_step(start(folder, tokens, base, *TWO, zero_stage=1), folder, 6, signal.SIGKILL)
    assert stop_at_step(start(folder, tokens, base, **one), folder, 14, signal.SIGINT) == 130
    assert "checkpoint saved" in log_of(folder)
    assert "it was saved by 2 process(es) with ZeRO 1" in log_of(folder)
    weights, lines = finish(folder, tokens, base, *TWO, zero_stage=3)
    assert largest_difference(weights, undisturbed[0]) <= MOVED
    assert [line["step"] for line in lines] == list(range(1, 41))
    assert [loss for _, loss in curve(lines)] == pytest.approx([loss for _, loss in curve(undisturbed[1])], abs=1e-6)
    facts = json.loads((folder / "out" / "run.json").read_text())
    assert [(part["world_size"], part["zero_stage"]) for part in facts["continued"]] == [(1, 2), (2, 3)]


def test_damaged_checkpoint_and_full_disk_do_not_end_a_run(
    tmp_path: Path, tokens: Path, base: Path, undisturbed: Result
) -> None:
    folder = tmp_path / "damaged"
    stop_at_step(start(folder, tokens, base), folder, 14, signal.SIGKILL)
    saved = sorted((folder / "checkpoints").glob("*/step-*"))
    assert len(saved) == 2
    for path in saved[-1].glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def small_disk() -> None:
        size = path.stat().st_size  # half of a checkpoint, which holds three times the weights
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    options = training(**SHORT, eval_every=0, checkpoint_every=4)
    run = command(folder, tokens, base, options)
    subprocess.run(run, env=ENVIRONMENT, preexec_fn=small_disk, check=True)
    text = log_of(folder)
    assert "trying the one before" in text
    assert "no checkpoint could be saved after step 16" in text
    assert largest_difference(finish(folder, tokens, base)[0], undisturbed[0]) == 0.0


def test_minutes_alone_bring_checkpoints(tmp_path: Path, tokens: Path, base: Path) -> None:
    options = {"checkpoint_every": 0, "checkpoint_minutes": 0.0001, "max_steps": 400, "epochs": 100}
    process = start(tmp_path, tokens, base, **options)
    stop_at_step(process, tmp_path, 5, signal.SIGKILL)
    assert len(list((tmp_path / "checkpoints").glob("*/step-*"))) >= 2


def children_of(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_death_of_one_process_ends_the_run_and_leaves_none(tmp_path: Path, tokens: Path, base: Path) -> None:
    options = training(**{**SHORT, "max_steps": 4000, "epochs": 1000, "eval_every": 0, "checkpoint_every": 0})
    process = subprocess.Popen(command(tmp_path, tokens, base, options, *TWO), env=ENVIRONMENT)  # real ones, no forks
    wait_for_step(process, tmp_path, 3)
    children = children_of(process.pid)
    assert len(children) == 2
    os.kill(max(children), signal.SIGKILL)
    assert process.wait(timeout=60) == 1
    text = log_of(tmp_path)
    assert text.count("error:") == 1
    assert "was ended by SIGKILL; was there too little memory?" in text
    assert "Traceback" not in text
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def test_best_weights_are_exported_and_stopping_early_survives_a_kill(tmp_path: Path, tokens: Path, base: Path) -> None:
    options: Json = {"keep_best": True, "early_stopping": {"patience": 3}, "eval_every": 2, "checkpoint_every": 3}
    options |= {"warmup": 0, "schedule": "constant", "max_steps": 200, "epochs": 50, "learning_rate": 1e-2}
    weights, lines = finish(tmp_path / "complete", tokens, base, **options)
    evals = {line["step"]: line["eval_loss"] for line in lines if "eval_loss" in line}
    best, last = min(evals, key=lambda step: evals[step]), max(evals)
    assert last == best + 3 * 2 < 200, "it stopped when three evaluations in a row were no better"
    data = TokenDataset(tokens, "eval")
    choosing = data.pair_counts[chooses(hash_texts(data.prompt_ids), 0.5)]
    assert {line["eval_pairs"] for line in lines if "eval_loss" in line} == {choosing.sum()} != {data.pairs}
    facts = json.loads((tmp_path / "complete" / "out" / "run.json").read_text())
    assert (facts["exported_step"], facts["steps"], facts["final"]["eval_loss"]) == (best, last, evals[best])
    assert f"the weights of step {best}" in log_of(tmp_path / "complete")
    until_best, _ = finish(tmp_path / "best", tokens, base, **{**options, "max_steps": best, "keep_best": False})
    assert largest_difference(weights, until_best) == 0.0
    stop_at_step(start(tmp_path / "killed", tokens, base, **options), tmp_path / "killed", best + 2, signal.SIGKILL)
    again, again_lines = finish(tmp_path / "killed", tokens, base, **options)
    assert "continuing after step" in log_of(tmp_path / "killed")
    assert largest_difference(again, weights) == 0.0
    assert curve(again_lines) == curve(lines)


def test_another_evaluation_set_ends_a_run_and_chooses_its_weights(tmp_path: Path, tokens: Path, base: Path) -> None:
    """The set is the same pairs with chosen and rejected swapped: it gets worse as the run learns."""
    swapped = tmp_path / "tokens" / "swapped" / "x"
    data = TokenDataset(tokens, "eval")
    held_out = [data[index] for index in range(len(data))]
    pairs = [[replace(one, chosen=one.rejected, rejected=one.chosen) for one in row.pairs] for row in held_out]
    write_tokens(swapped, [], [replace(row, pairs=one) for row, one in zip(held_out, pairs, strict=True)])
    sets = ("--eval-tokens", f"swapped={swapped}")
    options: Json = {"keep_best": "swapped", "early_stopping": {"patience": 3, "eval_set": "swapped"}}
    options |= {"eval_sets": {"swapped": 8, "eval": 9}, "eval_every": 2, "checkpoint_every": 3, "max_steps": 200}
    options |= {"warmup": 0, "schedule": "constant", "epochs": 50, "learning_rate": 1e-2}
    weights, lines = finish(tmp_path / "complete", tokens, base, *sets, **options)
    found = {line["step"]: line for line in lines if "eval_sets" in line}
    loss = {step: line["eval_sets"]["swapped"]["loss"] for step, line in found.items()}
    best, last = min(loss, key=lambda step: loss[step]), max(loss)
    assert last == best + 3 * 2 < 200
    assert all(8 <= line["eval_sets"]["swapped"]["pairs"] <= 11 for line in found.values())
    assert all(9 <= line["eval_pairs"] <= 12 for line in found.values())
    assert loss[last] > loss[best] and found[last]["eval_loss"] < found[best]["eval_loss"]
    facts = json.loads((tmp_path / "complete" / "out" / "run.json").read_text())
    assert (facts["exported_step"], facts["final"]["eval/swapped/loss"]) == (best, loss[best])
    assert "chosen by pairs of swapped" in (tmp_path / "complete" / "out" / "README.md").read_text()
    folder = tmp_path / "killed"
    stop_at_step(start(folder, tokens, base, *sets, **options), folder, best + 4, signal.SIGKILL)
    again, again_lines = finish(folder, tokens, base, *sets, **options)
    assert "continuing after step" in log_of(folder)
    assert largest_difference(again, weights) == 0.0
    assert [line.get("eval_sets") for line in again_lines] == [line.get("eval_sets") for line in lines]


def test_a_disk_that_is_full_after_the_last_step_loses_nothing(
    tmp_path: Path, tokens: Path, base: Path, undisturbed: Result
) -> None:
    settings = training(**{**SHORT, "eval_every": 0, "checkpoint_every": 400})
    python, program, *options = command(tmp_path, tokens, base, settings)
    broken = tmp_path / "broken.py"
    broken.write_text(f"""
import sys
sys.path.insert(0, {str(Path(program).parent)!r})
sys.argv = {[program, *options]!r}
import train as program
from rewardline.core import cli
from rewardline.training import export, loop
from safetensors import SafetensorError

def full(*_, **__):
    raise SafetensorError("No space left on device")

loop.UNSAVED_SECONDS, export.save_reward_model = 0, full
cli.run(program.main)
""")
    assert Fork([python, str(broken)], env=ENVIRONMENT).wait() == 1
    assert "error: the model cannot be written below" in log_of(tmp_path)
    assert "Traceback" not in log_of(tmp_path)
    weights, lines = finish(tmp_path, tokens, base, checkpoint_every=400)
    assert "step 40" in log_of(tmp_path)
    assert curve(lines) == curve(undisturbed[1])
    assert all(torch.equal(weights[name], undisturbed[0][name]) for name in weights)


def test_a_change_that_matters_to_no_weight_trains_nothing_again(tmp_path: Path, tokens: Path, base: Path) -> None:
    finish(tmp_path, tokens, base, max_steps=8)
    made = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    finish(tmp_path, tokens, base, max_steps=8, checkpoint_every=3)
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == made
