"""Evaluations that are killed, or find damaged or foreign parts: no finished part is lost, and the end is the same."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rewardline.core.hashing import file_sha256
from rewardline.model.loading import load_base, save_reward_model
from rewardline.tokens.tokenizer import load_tokenizer

from support.paths import ROOT
from support.tokens import random_comparison, write_tokens
from support.training_runs import ENVIRONMENT


def write_model(folder: Path, base: Path, seed: int) -> None:
    tokenizer = load_tokenizer(base)
    save_reward_model(load_base(base, tokenizer, seed=seed), tokenizer, folder)
    facts = {"weights_sha256": file_sha256(folder / "model.safetensors")}
    (folder / "run.json").write_text(json.dumps(facts))


@pytest.fixture
def work(tmp_path: Path, base_models: Callable[..., Path]) -> Path:
    """A folder with a model and tokens of 1,200 comparisons, which make about 40 parts."""
    write_model(tmp_path / "model", base_models("llama"), seed=1)
    rng = np.random.default_rng(0)
    shapes = [
        (int(rng.integers(1, 20)), [int(n) for n in rng.integers(1, 12, rng.integers(2, 4))]) for _ in range(1200)
    ]
    rows = [random_comparison(rng, prefix, tails) for prefix, tails in shapes]
    write_tokens(tmp_path / "tokens", rows[:1], rows)
    return tmp_path


def start(work: Path, output: str) -> subprocess.Popen[bytes]:
    settings = {"run": "r", "name": "r", "mixture": "m", "model": "x", "seed": 1, "benchmark": "eval"}
    places = {"--model": work / "model", "--tokens": work / "tokens", "--output": work / output}
    options = [
        str(part) for option in {**places, "--batch-tokens": 64, "--log": work / "log"}.items() for part in option
    ]
    program = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), "--settings", json.dumps(settings)]
    return subprocess.Popen([*program, *options], env=ENVIRONMENT)


def finish(work: Path, output: str) -> str:
    """Evaluate to the end; what the log says."""
    assert start(work, output).wait() == 0, (work / "log").read_text()
    assert sorted(path.name for path in (work / output).parent.glob("*.parts")) == []
    return (work / "log").read_text()


def parts(work: Path, output: str) -> list[Path]:
    return sorted(work.glob(f".{output}.parts/*/*.scores"))


def killed(work: Path, output: str, after: int) -> list[Path]:
    """Kill an evaluation once some parts are finished; these parts."""
    process = start(work, output)
    deadline = time.monotonic() + 120
    while len(parts(work, output)) < after and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (work / output).exists()
    return parts(work, output)


def test_killed_the_same_command_goes_on_to_bit_equal_scores(work: Path) -> None:
    found = killed(work, "out", 5)
    assert len(found) >= 5
    kept = {path: path.stat().st_mtime_ns for path in found}
    found[2].write_bytes(found[2].read_bytes()[:-40])
    found[1].write_bytes(found[0].read_bytes())  # whole, but another part's
    foreign = work / ".out.parts" / "another-key"
    foreign.mkdir()
    for path in kept:
        (foreign / path.name).write_bytes(b"\0" * 4 * 50)
    log = finish(work, "out")
    assert "1 finished parts are at hand" in log  # before the first that is missing
    assert log.count("is damaged; its part is scored again") == 2
    finish(work, "whole")
    assert pq.read_table(work / "out" / "scores.parquet").equals(pq.read_table(work / "whole" / "scores.parquet"))


def test_parts_of_other_weights_are_not_used(work: Path, base_models: Callable[..., Path]) -> None:
    assert killed(work, "out", 2)
    write_model(work / "model", base_models("llama"), seed=2)
    assert "0 finished parts are at hand" in finish(work, "out")
