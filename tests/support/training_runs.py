"""Real trainings of a tiny model, each a program of its own."""

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

from rewardline.training.settings import TrainingSettings

from support.paths import ROOT
from support.tokens import random_comparison, write_tokens

Json = dict[str, Any]
Result = tuple[dict[str, torch.Tensor], list[Json]]
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1"}
TWO = ("--processes", "2", "--threads", "2")


def training_settings(**changes: Any) -> TrainingSettings:
    """The settings of a training run, with their defaults."""
    return TrainingSettings.model_validate(changes)


def training(**changes: Any) -> Json:
    """The same as JSON."""
    return training_settings(**changes).as_json()


def command(folder: Path, tokens: Path, base: Path, options: Json, *more: str) -> list[str]:
    settings = {"run": "r", "mixture": "m", "model": "x", "seed": 1, "trust_remote_code": False, "training": options}
    places = {"--tokens": tokens, "--base": base, "--output": folder / "out", "--checkpoints": folder / "checkpoints"}
    parts = [str(part) for place in places.items() for part in place]
    program = [sys.executable, str(ROOT / "scripts" / "train.py"), "--settings", json.dumps(settings)]
    return [*program, *parts, "--log", str(folder / "log"), *more]


def train(
    folder: Path, tokens: Path, base: Path, *more: str, **options: Any
) -> tuple[dict[str, torch.Tensor], list[Json]]:
    defaults = {"max_steps": 6, "pairs_per_step": 8, "tokens_per_micro_batch": 60, "learning_rate": 1e-2}
    options = {**defaults, "eval_every": 3, "checkpoint_every": 2, **options}
    done = subprocess.run(command(folder, tokens, base, training(**options), *more), env=ENVIRONMENT, check=False)
    assert done.returncode == 0, (folder / "log").read_text()
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
"""A training of 40 steps, for kills on the way."""


def start(folder: Path, tokens: Path, base: Path, *more: str, **options: Any) -> subprocess.Popen[bytes]:
    """A training of `SHORT`, with checkpoints every 4 steps, in the background."""
    folder.mkdir(exist_ok=True)
    settings = training(**{**SHORT, "eval_every": 0, "checkpoint_every": 4, **options})
    return subprocess.Popen(command(folder, tokens, base, settings, *more), env=ENVIRONMENT)


def finish(folder: Path, tokens: Path, base: Path, *more: str, **options: Any) -> Result:
    """The same to its end."""
    code = start(folder, tokens, base, *more, **options).wait()
    assert code == 0, (folder / "log").read_text()
    return result(folder)


def wait_for_step(process: subprocess.Popen[bytes], folder: Path, step: int) -> None:
    """Until a training has logged a step, or has ended."""
    deadline = time.monotonic() + 300
    while process.poll() is None:
        assert time.monotonic() < deadline, f"step {step} was not reached"
        logs = list((folder / "checkpoints").glob("*/log.jsonl"))
        if logs and f'"step": {step},' in logs[0].read_text():
            return
        time.sleep(0.005)


def stop_at_step(process: subprocess.Popen[bytes], folder: Path, step: int, number: int) -> int:
    """Send a signal to a training when it has logged a step; its exit code."""
    wait_for_step(process, folder, step)
    process.send_signal(number)
    return process.wait()


def write_small_tokens(folder: Path) -> None:
    """Comparisons with something to learn: good answers end in one token, bad ones in another."""
    rng = np.random.default_rng(0)
    shapes = [(int(rng.integers(0, 20)), [int(n) for n in rng.integers(1, 12, rng.integers(2, 4))]) for _ in range(60)]
    rows = [random_comparison(rng, prefix, tails, vocabulary=250) for prefix, tails in shapes]
    for row in rows:
        for index, tail in enumerate(row.tails):
            tail[-1] = 10 + (index > 0)
    write_tokens(folder, rows[:48], rows[48:])
