"""Starts the processes of a training, on one machine or on every machine of a Slurm step, and ends them as one.

When a process fails, the others are ended, and what is shown is its message or traceback alone, not what the others met
when it was gone. None outlives the launcher, however that ends.
"""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewardline.core.errors import UserError, explain
from rewardline.core.files import write_json
from rewardline.core.progress import terminal_of_children
from rewardline.core.runtime import WORKER, free_port
from rewardline.training.signals import INTERRUPTED, PREEMPTED, die_with_parent, on_stop

log = logging.getLogger(__name__)

Json = dict[str, Any]
ERRORS = "REWARDLINE_ERRORS"
"""The folder in which a process that fails says why."""
SETTLE_SECONDS = 0.5
"""How long to wait after a failure for the process that caused it, where that is another one."""
LEAVE_SECONDS = 60
"""How long processes may take to end after the first of them has ended on a SIGTERM."""
MEET_SECONDS = 900
TERM = -signal.SIGTERM
"""Exit code of a process that a SIGTERM ended before it could do anything."""


@dataclass(frozen=True)
class Nodes:
    """This machine's number among those that train together; `job` tells one attempt from another."""

    index: int = 0
    count: int = 1
    job: str = ""


@dataclass(frozen=True)
class Meeting:
    """Where the processes of all machines meet."""

    host: str
    port: int


def slurm_nodes() -> Nodes:
    """The machines of this Slurm step, if it has a task on each of several; else this one alone."""
    count = os.environ.get("SLURM_STEP_NUM_NODES", "1")
    if count == "1" or os.environ.get("SLURM_STEP_NUM_TASKS") != count:
        return Nodes()
    parts = (os.environ.get(name, "0") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"))
    return Nodes(int(os.environ["SLURM_NODEID"]), int(count), ".".join(parts))


def call_meeting(nodes: Nodes, path: Path, needed: bool = True) -> Meeting:
    """Choose a free port of this machine, the first, and tell the others through the file `path`."""
    if nodes.count == 1:
        return Meeting("127.0.0.1", free_port())
    meeting = Meeting(os.environ.get("SLURMD_NODENAME") or socket.gethostname(), free_port())
    write_json(path, {"job": nodes.job, "needed": needed, **vars(meeting)})
    return meeting


def join_meeting(nodes: Nodes, path: Path) -> Meeting | None:
    """Wait for what the first machine says; None if there is nothing to do.

    Raises:
        UserError: the first machine said nothing.
    """
    deadline = time.monotonic() + MEET_SECONDS
    while time.monotonic() < deadline:
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            if said["job"] == nodes.job:
                return Meeting(said["host"], said["port"]) if said["needed"] else None
        except (OSError, ValueError, KeyError):
            pass
        time.sleep(0.5)
    raise UserError(f"the first machine said nothing in {path} for {MEET_SECONDS} s; is the folder shared by all?")


def launch(program: Path, arguments: Sequence[str], processes: int, nodes: Nodes, meeting: Meeting) -> int:
    """Run a program in several processes on this machine and wait for them.

    Returns 0; after a SIGTERM `PREEMPTED`, after a Ctrl-C `INTERRUPTED`. A second Ctrl-C ends them at once.

    Raises:
        UserError: a process failed.
    """
    with tempfile.TemporaryDirectory(prefix="rewardline-") as errors:
        children: list[subprocess.Popen[bytes]] = []
        stopped_by: list[int] = []

        def forward(number: int, _: object) -> None:
            stopped_by.append(number)
            if stopped_by.count(signal.SIGINT) > 1:
                raise KeyboardInterrupt
            for child in children:
                if child.poll() is None:
                    child.send_signal(signal.SIGTERM)

        previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        on_stop(forward)
        try:
            for local in range(processes):
                rank = nodes.index * processes + local
                place: Json = {"RANK": rank, "LOCAL_RANK": local, "WORLD_SIZE": nodes.count * processes}
                place |= {"LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": meeting.host, "MASTER_PORT": meeting.port}
                environment = {
                    **os.environ,
                    **{key: str(value) for key, value in place.items()},
                    **terminal_of_children(),
                }
                environment |= {WORKER: "1", ERRORS: errors}
                children.append(_start([sys.executable, str(program), *arguments], environment))
            if stopped_by:  # while some were not yet started
                forward(signal.SIGTERM, None)
            codes = _wait(children)
        finally:
            for child in children:
                child.kill()
                child.wait()
            for number, handler in previous.items():
                signal.signal(number, handler)
        first = nodes.index * processes
        code = _judge(codes, bool(stopped_by), [first + k for k in range(processes)], Path(errors))
        return INTERRUPTED if code == PREEMPTED and signal.SIGINT in stopped_by else code


def _start(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def bind() -> None:
        die_with_parent()
        if os.getppid() != parent:  # it ended before the kernel was told
            os._exit(1)

    return subprocess.Popen(command, env=environment, preexec_fn=bind, process_group=0)


def _wait(children: list[subprocess.Popen[bytes]]) -> list[int | None]:
    """Exit codes when all have ended or one has failed; None for those that are still running then."""
    deadline = float("inf")
    while True:
        codes = [child.poll() for child in children]
        if all(code is not None for code in codes) or time.monotonic() > deadline:
            return codes
        ended = {code for code in codes if code is not None}
        if ended - {0, PREEMPTED}:
            deadline = min(deadline, time.monotonic() + SETTLE_SECONDS)
        elif PREEMPTED in ended:
            deadline = min(deadline, time.monotonic() + LEAVE_SECONDS)
        time.sleep(0.05)


def _judge(codes: list[int | None], terminated: bool, ranks: list[int], errors: Path) -> int:
    """What the whole came to, from the exit codes of its processes and from what they said."""
    if all(code == 0 for code in codes):
        return 0
    killed = [(rank, -code) for rank, code in zip(ranks, codes, strict=True) if code is not None and code < 0]
    if terminated:
        killed = [(rank, number) for rank, number in killed if number != -TERM]
    reports: list[Any] = [json.loads(path.read_text(encoding="utf-8")) for path in errors.glob("*.json")]
    failures = [report for report in reports if not report["left"]]
    silent = {rank for rank, code in zip(ranks, codes, strict=True) if code is not None and code > 0}
    silent -= {report["rank"] for report in reports}
    leaving = {
        rank for rank, code in zip(ranks, codes, strict=True) if code == PREEMPTED or (terminated and code == TERM)
    }
    times = {report["rank"]: report["time"] for report in reports if report["left"]}
    # Who leaves on request may make others fail; who failed before that has failed all the same.
    left = min((times.get(rank, 0.0) for rank in leaving), default=float("inf"))
    if leaving and not killed and not silent - leaving and all(left < report["time"] for report in failures):
        return PREEMPTED
    if killed:  # then the others failed because it was gone
        rank, number = killed[0]
        hint = "; was there too little memory?" if number == signal.SIGKILL else ""
        raise UserError(f"training process {rank} was ended by {signal.Signals(number).name}{hint}")
    if not failures:
        failed = [(rank, code) for rank, code in zip(ranks, codes, strict=True) if rank in silent - leaving]
        raise UserError(f"training process {failed[0][0]} ended with code {failed[0][1]} and said nothing")
    first = min(failures, key=lambda report: report["time"])
    if first["message"] is not None:
        raise UserError(first["message"])
    log.error("%s", first["traceback"].rstrip())
    raise UserError(f"training process {first['rank']} failed; its traceback stands above")


@contextmanager
def reporting() -> Iterator[None]:
    """In a process that the launcher started: leave it to the launcher to show what goes wrong, and end at once."""
    try:
        yield
    except SystemExit as leaving:
        if leaving.code == PREEMPTED:
            _report(left=True)
        raise
    except BaseException as error:
        # Written before the others can notice that this process is gone, so that the cause has the earliest time.
        _report(message=explain(error), traceback=traceback.format_exc())
        os._exit(1)


def _report(**facts: Any) -> None:
    rank = int(os.environ["RANK"])
    report = {"time": time.monotonic(), "rank": rank, "left": False, **facts}
    write_json(Path(os.environ[ERRORS]) / f"{rank}.json", report)
