"""Actions of all processes: what one returns or raises, all do."""

import subprocess
import sys

import pytest

from rewardline.core.runtime import free_port
from rewardline.training.processes.collectives import all_agree, run_on_all

from support.paths import SCRIPTS

PROGRAM = """
import torch
import torch.distributed as dist
from rewardline.core.runtime import rank
from rewardline.training.processes.collectives import all_agree, on_any, run_on_all, sum_over_processes

class BrokenError(Exception): pass

def fail(error, where):
    def action():
        if rank() == where:
            raise error
        return rank()
    try:
        return run_on_all(action, BrokenError)
    except (OSError, BrokenError) as raised:
        return repr(raised)

dist.init_process_group("gloo")
print(
    run_on_all(rank), fail(OSError(28, "full", "/x"), 1), fail(BrokenError("broken"), 0), all_agree(lambda: not rank()),
    on_any(rank() == 1, False, device=torch.device("cpu")), sum_over_processes(torch.tensor([rank() + 1.0])).tolist(),
)
"""


def test_two_processes_come_to_the_same() -> None:
    environment = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**environment, "RANK": str(rank), "PYTHONPATH": str(SCRIPTS)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    expected = "[0, 1] OSError('full') BrokenError('broken') False [True, False] [3.0]\n"
    assert [process.communicate(timeout=120)[0] for process in processes] == [expected, expected]


def test_a_lone_process_needs_no_other() -> None:
    assert run_on_all(lambda: 3) == [3]
    assert all_agree(lambda: True)
    with pytest.raises(ZeroDivisionError):
        run_on_all(lambda: 1 // 0, ValueError)
