"""Trainings as the stage runs them, for tests of what comes out."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from rewardline.config import load_schema, resolve

from conftest import ROOT

Json = dict[str, Any]
Result = tuple[dict[str, torch.Tensor], list[Json]]
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1"}


def training(**changes: Any) -> Json:
    config = {
        "datasets": {"d": {"files": ["x"]}},
        "mixtures": {"m": {"datasets": {"d": 1}}},
        "models": {"x": {"path": "x"}},
        "runs": {"r": {"mixture": "m", "model": "x", "training": changes}},
    }
    resolved: Json = resolve(config, load_schema(ROOT / "config" / "schema.yaml"))["runs"]["r"]["training"]
    return resolved


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
