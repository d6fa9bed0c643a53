"""Real training runs of a tiny model, each a program of its own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from rewardline.core.hashing import file_sha256
from rewardline.tokens.templates import export_plain
from rewardline.training.records.log_file import StepLine
from rewardline.training.records.run_facts import RunFacts
from rewardline.training.settings import TrainingSettings

from support.paths import SCRIPTS
from support.processes import jobs
from support.processes.forks import Fork, Program
from support.tokens import random_comparison, write_tokens

Json = dict[str, Any]
Result = tuple[dict[str, torch.Tensor], list[Json]]
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1"}
TWO = ("--processes", "2")
STEP_LINE = StepLine(1, 0.5, 0.25, 1.0, 0.5, -0.5, 0.5, 1e-3, None, 8, 400, 300, 1000.0)
"""A line of a log, to be changed where a test needs it."""


def training_settings(**changes: Any) -> TrainingSettings:
    """The settings of a training run, with their defaults."""
    return TrainingSettings.model_validate(changes)


def training(**changes: Any) -> Json:
    """The same as JSON."""
    return training_settings(**changes).as_json()


def command(folder: Path, tokens: Path, base: Path, options: Json, *more: str, scripts: Path = SCRIPTS) -> list[str]:
    settings = {"run": "r", "mixture": "m", "model": "x", "seed": 1, "trust_remote_code": False, "training": options}
    settings["choosing"] = dict.fromkeys(training_settings(**options).deciding_sets, 0.5)
    folders = {"--tokens": tokens, "--base": base, "--output": folder / "out", "--checkpoints": folder / "checkpoints"}
    parts = [str(part) for option in folders.items() for part in option]
    program = [sys.executable, str(scripts / "train.py"), "--settings", json.dumps(settings)]
    return [*program, *parts, "--log", str(folder / "log"), *more]


SIX_STEPS: Json = {
    **{"max_steps": 6, "pairs_per_step": 8, "tokens_per_micro_batch": 60, "learning_rate": 1e-2},
    **{"eval_every": 3, "checkpoint_every": 2},
}


def background(program: list[str]) -> Program:
    """Start a training run, in a fork if it needs no GPU, and so its processes."""
    if "--gpus" in program:
        return subprocess.Popen(program, env=ENVIRONMENT)
    return Fork(program, env=ENVIRONMENT, python=jobs.python())


def train(
    folder: Path, tokens: Path, base: Path, *more: str, **options: Any
) -> tuple[dict[str, torch.Tensor], list[Json]]:
    code = background(command(folder, tokens, base, training(**{**SIX_STEPS, **options}), *more)).wait()
    assert code == 0, (folder / "log").read_text()
    return result(folder)


def result(folder: Path) -> Result:
    lines = [json.loads(line) for line in (folder / "out" / "log.jsonl").read_text().splitlines()]
    weights = load_file(folder / "out" / "model.safetensors")
    return {name: tensor.clone() for name, tensor in weights.items()}, lines  # the file is only mapped


def losses(lines: list[Json]) -> list[float]:
    return [line["loss"] for line in lines if "loss" in line]


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys()
    return max((first[name].float() - second[name].float()).abs().max().item() for name in first)


SHORT = {"pairs_per_step": 8, "tokens_per_micro_batch": 60, "learning_rate": 1e-3, "max_steps": 40, "epochs": 10}
"""Options of a training run of 40 steps, for kills on the way."""


def start(folder: Path, tokens: Path, base: Path, *more: str, **options: Any) -> Program:
    """A training run of `SHORT`, with checkpoints every 4 steps, in the background."""
    folder.mkdir(exist_ok=True)
    settings = training(**{**SHORT, "eval_every": 0, "checkpoint_every": 4, **options})
    return background(command(folder, tokens, base, settings, *more))


def finish(folder: Path, tokens: Path, base: Path, *more: str, **options: Any) -> Result:
    """The same to its end."""
    code = start(folder, tokens, base, *more, **options).wait()
    assert code == 0, (folder / "log").read_text()
    return result(folder)


def wait_for_step(process: Program, folder: Path, step: int) -> None:
    """Wait until a training run has logged a step, or has ended."""
    deadline = time.monotonic() + 300
    while process.poll() is None:
        assert time.monotonic() < deadline, f"step {step} was not reached"
        logs = list((folder / "checkpoints").glob("*/log.jsonl"))
        if logs and f'"step": {step},' in logs[0].read_text():
            return
        time.sleep(0.005)


def stop_at_step(process: Program, folder: Path, step: int, number: int) -> int:
    """Send a signal to a training run when it has logged a step; its exit code."""
    wait_for_step(process, folder, step)
    process.send_signal(number)
    return process.wait()


def run_facts(weights: Path | None = None, **changes: Any) -> RunFacts:
    """The facts of a training run, as in its run.json; those of `weights` are the model's."""
    numbers = dict.fromkeys(
        [
            *("seed", "parameters", "trained_parameters", "train_pairs", "steps", "exported_step", "pairs", "tokens"),
            *("seconds", "tokens_per_second", "world_size", "threads", "computed_tokens", "shared_share"),
            *("padding_share", "model_flops", "flops_per_second", "peak_flops_per_second", "utilisation"),
        ],
        1,
    )
    texts = dict.fromkeys(["batching", "attention", "device", "finished", "key", "peak_source", "weights_sha256"], "t")
    values = {
        **{**numbers, **texts, "run": "r", "mixture": "m", "model": "x", "continued": [], "final": {}},
        **{"training": training_settings(), "data": {}, "hardware": {}, "base": [], "normalization": None},
        "tokenization": {
            "template": "plain",
            "end_token": "<|end|>",
            "max_length": 64,
            "chat_template": export_plain("", "<|end|>"),
        },
        "versions": {"torch": "1", "deepspeed": "2", "transformers": "3"},
        "git": {"commit": None, "dirty": None},
        **({} if weights is None else {"weights_sha256": file_sha256(weights)}),
        **changes,
    }
    return RunFacts.model_validate(values)


def write_small_tokens(folder: Path, **options: str) -> None:
    """Comparisons with something to learn: good answers end in one token, bad ones in another."""
    rng = np.random.default_rng(0)
    shapes = [(int(rng.integers(0, 20)), [int(n) for n in rng.integers(1, 12, rng.integers(2, 4))]) for _ in range(60)]
    rows = [random_comparison(rng, prefix, tails, vocabulary=250) for prefix, tails in shapes]
    for row in rows:
        for index, tail in enumerate(row.tails):
            tail[-1] = 10 + (index > 0)
    write_tokens(folder, rows[:48], rows[48:], **options)
