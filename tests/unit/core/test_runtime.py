"""Programs compute the same in every process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rewardline.core import runtime

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
    ("chosen", "running", "threads", "spins"),
    [
        ({}, 1, 2, "3000"),
        ({}, 2, 2, "300"),
        ({"OMP_WAIT_POLICY": ""}, 5, 2, "300"),
        ({}, 5, 1, None),
        ({"GOMP_SPINCOUNT": "7"}, 5, 2, "7"),
        ({"OMP_WAIT_POLICY": "active"}, 5, 2, None),
    ],
)
def test_threads_that_wait_sleep_soon_where_others_need_the_cores_unless_the_user_chooses(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    chosen: dict[str, str],
    running: int,
    threads: int,
    spins: str | None,
) -> None:
    (tmp_path / "loadavg").write_text(f"0.10 0.20 0.30 {running}/321 4567\n")
    monkeypatch.setattr(runtime, "_LOAD", tmp_path / "loadavg")
    monkeypatch.setattr(os, "environ", chosen)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    runtime.quiet(threads)
    assert os.environ.get("GOMP_SPINCOUNT") == spins
    assert os.environ["OMP_NUM_THREADS"] == str(threads)


def test_freed_memory_between_blocks_in_use_is_given_back() -> None:
    program = """
import re, sys
from pathlib import Path
from rewardline.core import runtime

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10

runtime.prepare(0, 1)
blocks = [bytearray(b"x") * (1 << 20) for _ in range(200)]
kept = blocks[::10]
full = resident()
del blocks
freed = resident()
runtime.release_memory()
print(full - freed, freed - resident())
"""
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
    at_once, when_asked = map(int, done.stdout.split())
    assert at_once < 20, "the next step gets it without a page fault"
    assert when_asked > 150


def test_threads_that_run_elsewhere_are_counted() -> None:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        assert runtime.running_elsewhere(200) > 1
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def test_the_first_forward_pass_of_a_process_is_that_of_every_other() -> None:
    program = [sys.executable, str(ROOT / "benchmarks" / "first_passes.py"), "--processes", "4"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "first forward pass different: 0" in done.stdout
