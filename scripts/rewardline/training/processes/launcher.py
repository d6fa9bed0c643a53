"""Starts the processes of a training run, on this node or on every node of a Slurm step, and ends them together.

When a process fails, the others are ended, and its message or traceback alone is shown, not the errors that the others
ran into when it was gone. No process outlives the launcher, however that ends.

By hand, as torch's elastic agent (torchrun of torch 2.13) was tried and cannot do this: after a SIGTERM it ends with
code 1 and a traceback of its own, whatever the exit codes of its processes, so that a run that has saved looks like one
that has failed; killed itself, it leaves its processes behind; and importing it takes seconds and 220 MB in a program
that may find nothing to do.
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
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from rewardline.core.errors import UserError, explain
from rewardline.core.files import write_json
from rewardline.core.progress import terminal_of_children
from rewardline.core.runtime import WORKER, end_with, free_port
from rewardline.training.processes.signals import INTERRUPTED, PREEMPTED, on_stop

log = logging.getLogger(__name__)

REPORTS = "REWARDLINE_REPORTS"
"""Environment variable with the folder in which a process that fails leaves its `ExitReport`."""
SETTLE_SECONDS = 0.5
"""How long to wait after a failure for reports of other processes, which may have caused it."""
LEAVE_SECONDS = 60
"""How long processes may take to end after the first of them has ended on a SIGTERM."""
RENDEZVOUS_SECONDS = 900


@dataclass(frozen=True)
class Nodes:
    """The index of this node among those that train together, their count, and an id of this attempt of the job."""

    index: int = 0
    count: int = 1
    job: str = ""


@dataclass(frozen=True)
class Rendezvous:
    """The address at which the processes of all nodes connect."""

    host: str
    port: int


def slurm_nodes() -> Nodes:
    """The nodes of this Slurm step, if it has a task on each of several; else this node alone."""
    count = os.environ.get("SLURM_STEP_NUM_NODES", "1")
    if count == "1" or os.environ.get("SLURM_STEP_NUM_TASKS") != count:
        return Nodes()
    parts = (os.environ.get(name, "0") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"))
    return Nodes(int(os.environ["SLURM_NODEID"]), int(count), ".".join(parts))


def announce(nodes: Nodes, path: Path, needed: bool = True) -> Rendezvous:
    """Choose a free port of this node, the first, and write it to the file `path` for the others.

    `needed`: whether there is anything to train. A file on the shared file system, which holds all that is read and
    written anyway: Slurm passes no address to the other nodes, and a port cannot be agreed on beforehand.
    """
    host = "127.0.0.1" if nodes.count == 1 else os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    rendezvous = Rendezvous(host, free_port())
    if nodes.count > 1:
        write_json(path, {"job": nodes.job, "needed": needed, **asdict(rendezvous)})
    return rendezvous


def join(nodes: Nodes, path: Path) -> Rendezvous | None:
    """Wait for the first node's announcement; None if there is nothing to train.

    Raises:
        UserError: it did not come.
    """
    deadline = time.monotonic() + RENDEZVOUS_SECONDS
    while time.monotonic() < deadline:
        try:
            announced = json.loads(path.read_text(encoding="utf-8"))
            if announced["job"] == nodes.job:
                return Rendezvous(announced["host"], announced["port"]) if announced["needed"] else None
        except (OSError, ValueError, KeyError):
            pass
        time.sleep(0.5)
    raise UserError(
        f"the first node announced nothing in {path} for {RENDEZVOUS_SECONDS} s; is the folder shared by all nodes?"
    )


def launch(program: Path, arguments: Sequence[str], processes: int, nodes: Nodes, rendezvous: Rendezvous) -> int:
    """Run a program in several processes on this node and wait for them.

    Returns 0; after a SIGTERM `PREEMPTED`, after a Ctrl-C `INTERRUPTED`. A second Ctrl-C ends them at once.

    Raises:
        UserError: a process failed.
    """
    with tempfile.TemporaryDirectory(prefix="rewardline-") as reports:
        children: list[subprocess.Popen[bytes]] = []
        stopped_by: list[int] = []

        def forward(number: int, _: object) -> None:
            stopped_by.append(number)
            if stopped_by.count(signal.SIGINT) > 1:
                raise KeyboardInterrupt
            for child in children:
                child.send_signal(signal.SIGTERM)  # does nothing if it has ended

        bind = partial(end_with, os.getpid())
        command = [sys.executable, str(program), *arguments]
        previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        on_stop(forward)
        first = nodes.index * processes
        try:
            for local in range(processes):
                environment = {
                    **os.environ,
                    "RANK": str(first + local),
                    "LOCAL_RANK": str(local),
                    "WORLD_SIZE": str(nodes.count * processes),
                    "LOCAL_WORLD_SIZE": str(processes),
                    "MASTER_ADDR": rendezvous.host,
                    "MASTER_PORT": str(rendezvous.port),
                    **terminal_of_children(),
                    WORKER: "1",
                    REPORTS: reports,
                }
                children.append(subprocess.Popen(command, env=environment, preexec_fn=bind, process_group=0))
            if stopped_by:  # while some were not yet started
                forward(signal.SIGTERM, None)
            codes = _wait(children)
        finally:
            for child in children:
                child.kill()
                child.wait()
            for number, handler in previous.items():
                signal.signal(number, handler)
        code = _outcome(dict(enumerate(codes, first)), bool(stopped_by), Path(reports))
        return INTERRUPTED if code == PREEMPTED and signal.SIGINT in stopped_by else code


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


@dataclass(frozen=True)
class ExitReport:
    """Why a process ended: an error with its traceback and, where a person can fix it, a message; else on request.

    `time` is that of the node's monotonic clock.
    """

    time: float
    traceback: str | None = None
    message: str | None = None


def _outcome(codes: dict[int, int | None], terminated: bool, folder: Path) -> int:
    """The exit code of the launcher, from the exit codes of its processes by rank and from their reports in `folder`.

    Raises:
        UserError: a process failed.
    """
    if all(code == 0 for code in codes.values()):
        return 0
    reports = {int(path.stem): ExitReport(**json.loads(path.read_text("utf-8"))) for path in folder.glob("*.json")}
    failures = {rank: report for rank, report in reports.items() if report.traceback is not None}
    # A SIGTERM may end a process before it can do anything.
    left = {rank for rank, code in codes.items() if code == PREEMPTED or (terminated and code == -signal.SIGTERM)}
    failed = {rank: code for rank, code in codes.items() if code and rank not in left}
    killed = {rank: -code for rank, code in failed.items() if code < 0}
    silent = failed.keys() - killed.keys() - reports.keys()
    # A process that leaves on request may make others fail; one that failed before that has failed all the same.
    left_at = min((reports[rank].time if rank in reports else 0.0 for rank in left), default=float("inf"))
    if left and not killed and not silent and all(left_at < report.time for report in failures.values()):
        return PREEMPTED
    if killed:  # then the others failed because it was gone
        rank, number = next(iter(killed.items()))
        hint = "; was there too little memory?" if number == signal.SIGKILL else ""
        raise UserError(f"training process {rank} was ended by {signal.Signals(number).name}{hint}")
    if not failures:
        rank = min(silent)
        raise UserError(f"training process {rank} ended with code {codes[rank]} and without a message")
    rank, first = min(failures.items(), key=lambda item: item[1].time)
    if first.message is not None:
        raise UserError(first.message)
    log.error("%s", (first.traceback or "").rstrip())
    raise UserError(f"training process {rank} failed; its traceback is above")


@contextmanager
def reporting() -> Iterator[None]:
    """In a process that the launcher started: leave errors to the launcher to show, and end at once."""
    path = Path(os.environ[REPORTS]) / f"{os.environ['RANK']}.json"
    try:
        yield
    except SystemExit as leaving:
        if leaving.code == PREEMPTED:
            write_json(path, asdict(ExitReport(time.monotonic())))
        raise
    except BaseException as error:
        # Written before the others can notice that this process is gone, so that the cause has the earliest time.
        write_json(path, asdict(ExitReport(time.monotonic(), traceback.format_exc(), explain(error))))
        os._exit(1)
