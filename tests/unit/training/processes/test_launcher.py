"""Processes that fail, die or are asked to stop end as one, with one message, and leave none behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.paths import ROOT

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {scripts!r})
from rewardline.training.processes import launcher
from rewardline.core.errors import UserError
from rewardline.core.cli import run, start_logging
from rewardline.core.runtime import is_worker, rank
from rewardline.training.processes.signals import leave, on_stop

folder = Path({folder!r})

def is_running(file):
    pid = file.read_text() if file.exists() else ""
    return not pid or Path("/proc", pid).exists() and Path("/proc", pid, "stat").read_text().split()[2] != "Z"

class Tidy:
    def __del__(self):  # where Python drops exceptions
        time.sleep(0.01)

def worker(what):
    on_stop(leave)
    (folder / f"{{os.environ['RANK']}} {{os.environ['LOCAL_RANK']}}").write_text(str(os.getpid()))
    if rank() == 1:
        if what == "raises":
            raise ZeroDivisionError("the reason")
        if what == "user error":
            raise UserError("fix this")
        if what == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "ends":
            os._exit(3)
        if what == "fails while the others leave":
            signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGSEGV))
        if what == "fails since the others left":
            signal.signal(signal.SIGTERM, lambda *_: None)
            while is_running(folder / "0 0"):
                time.sleep(0.01)
            raise ConnectionError("the other process is gone")
    if what == "raises" or what == "is killed":
        time.sleep(0.2)
        raise RuntimeError("the other process is gone")
    while what == "tidies up":
        Tidy()
    time.sleep(0 if what == "does well" else 60)

def main(argv):
    start_logging(None)
    if is_worker():
        with launcher.reporting():
            worker(sys.argv[1])
        return 0
    nodes = launcher.slurm_nodes()
    rendezvous = launcher.join(nodes, folder / "r") if nodes.index else launcher.announce(nodes, folder / "r")
    return launcher.launch(Path(sys.argv[0]), sys.argv[1:], 2, nodes, rendezvous)

run(main)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.format(scripts=str(ROOT / "scripts"), folder=str(tmp_path)))
    return path


def start(program: Path, what: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(program), what],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def workers(folder: Path, count: int = 2) -> list[int]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = [path.read_text() for path in folder.glob("? ?")]
        if len(found) == count and all(found):
            return [int(pid) for pid in found]
        time.sleep(0.02)
    raise AssertionError("the processes did not start")


@pytest.mark.parametrize(
    ("what", "expected", "unwanted"),
    [
        ("raises", ["ZeroDivisionError: the reason", "error: training process 1 failed"], ["the other process"]),
        ("user error", ["error: fix this"], ["Traceback"]),
        ("is killed", ["error: training process 1 was ended by SIGKILL; was there too little memory?"], ["Traceback"]),
        ("ends", ["error: training process 1 ended with code 3"], ["Traceback"]),
    ],
)
def test_failure_of_one_process_ends_all_and_is_shown_once(
    program: Path, what: str, expected: list[str], unwanted: list[str]
) -> None:
    process = start(program, what)
    text = process.communicate(timeout=30)[0]
    assert process.returncode == 1
    for part in expected:
        assert text.count(part) == 1, text
    assert text.count("Traceback") <= 1
    assert not [part for part in unwanted if part in text], text
    assert not [pid for pid in workers(program.parent) if is_alive(pid)]


def test_success_of_all_is_success(program: Path) -> None:
    process = start(program, "does well")
    assert process.communicate(timeout=30)[0] == ""
    assert process.returncode == 0


@pytest.mark.parametrize("what", ["waits", "tidies up"])
def test_sigterm_reaches_every_process_and_asks_for_a_retry(program: Path, what: str) -> None:
    process = start(program, what)
    pids = workers(program.parent)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 75
    assert not [pid for pid in pids if is_alive(pid)]


@pytest.mark.parametrize(
    ("what", "number", "code"),
    [
        ("waits", signal.SIGINT, 130),
        ("fails while the others leave", signal.SIGTERM, 1),
        ("fails since the others left", signal.SIGTERM, 75),
    ],
)
def test_what_a_stop_came_to(program: Path, what: str, number: int, code: int) -> None:
    process = start(program, what)
    pids = workers(program.parent)
    time.sleep(0.3)
    process.send_signal(number)
    text = process.communicate(timeout=30)[0]
    assert process.returncode == code, text
    assert "Traceback" not in text
    assert not [pid for pid in pids if is_alive(pid)]


def test_launcher_that_is_killed_leaves_no_process(program: Path) -> None:
    process = start(program, "waits")
    pids = workers(program.parent)
    process.kill()
    process.communicate(timeout=30)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(map(is_alive, pids)):
        time.sleep(0.02)
    assert not [pid for pid in pids if is_alive(pid)]


def test_nodes_of_a_slurm_step_count_their_processes_together(program: Path) -> None:
    step = {"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "3"}
    (program.parent / "r").write_text('{"job": "6.0.0", "host": "an earlier job", "port": 1, "needed": true}')
    second = start(program, "does well", **step, SLURM_NODEID="1", SLURMD_NODENAME="two")
    time.sleep(0.5)
    first = start(program, "does well", **step, SLURM_NODEID="0", SLURMD_NODENAME="one")
    for process in (first, second):
        assert process.communicate(timeout=30)[0] == ""
        assert process.returncode == 0
    assert sorted(path.name for path in program.parent.glob("? ?")) == ["0 0", "1 1", "2 0", "3 1"]
