"""Programs compute the same in every process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rewardline.core.runtime import quiet

from support.paths import ROOT, SCRIPTS
from support.training_runs import ENVIRONMENT, command, training

WATCHED = """
import json, sys
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from rewardline.model.threads import VECTOR_FUNCTIONS

DTYPES = (torch.float32, torch.float64)
called = set()

class Watch(TorchDispatchMode):
    embedded = False

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        name = operation._overloadpacket.__name__
        if name == "embedding":
            assert called >= {(name, dtype) for name in VECTOR_FUNCTIONS for dtype in DTYPES}, "the model comes first"
            self.embedded = True
        elif name in VECTOR_FUNCTIONS and (name, arguments[0].dtype) not in called:
            assert torch.get_num_threads() == 1, f"{name} is first called by several threads"
            called.add((name, arguments[0].dtype))
        return operation(*arguments, **(options or {}))

for program, *arguments in json.load(sys.stdin):
    called.clear()
    with Watch() as watch:
        assert __import__(program).main(arguments) == 0
    assert watch.embedded, program
"""


def test_programs_call_vector_functions_by_one_thread_before_the_model_computes(
    tmp_path: Path, tokens: Path, base: Path
) -> None:
    model = tmp_path / "out"
    train = command(tmp_path, tokens, base, training(max_steps=1, eval_every=0, threads=2))[2:]
    identity = {"run": "r", "name": "r", "mixture": "m", "model": "x", "seed": 1, "benchmark": "eval", "threads": 2}
    folders = ["--model", str(model), "--tokens", str(tokens), "--output", str(tmp_path / "evaluation")]
    evaluate = ["--settings", json.dumps(identity), *folders]
    score = ["--model", str(model), "--prompt", "p", "--answer", "a", "--threads", "2"]
    programs = [["train", *train], ["evaluate", *evaluate], ["score", *score]]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED],
        input=json.dumps(programs),
        env={**ENVIRONMENT, "PYTHONPATH": str(SCRIPTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("chosen", "spins"),
    [
        ({}, "300"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "active"}, None),
        ({"OMP_WAIT_POLICY": ""}, "300"),
    ],
)
def test_waiting_threads_sleep_soon_unless_the_user_chooses(
    monkeypatch: pytest.MonkeyPatch, chosen: dict[str, str], spins: str | None
) -> None:
    monkeypatch.setattr(os, "environ", chosen)
    quiet(2)
    assert os.environ.get("GOMP_SPINCOUNT") == spins
    assert os.environ["OMP_NUM_THREADS"] == "2"


def test_the_first_forward_pass_of_a_process_is_that_of_every_other() -> None:
    program = [sys.executable, str(ROOT / "benchmarks" / "first_passes.py"), "--processes", "4"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "first forward pass different: 0" in done.stdout
