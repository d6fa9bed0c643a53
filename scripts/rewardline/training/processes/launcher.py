"""Starts the processes of a training run, on this node or on every node of a Slurm step, and ends them as one.

When a process fails, the others are ended, and its message or traceback alone is shown, not the errors that the others
ran into when it was gone. No process outlives the launcher, however that ends.

By hand, as torch's elastic agent (torchrun) was tried and cannot do this: it kills processes 30 s after a SIGTERM, in
the middle of a large checkpoint; its error after a SIGTERM has no exit codes, so that a run that has saved looks like
one that has failed; killed itself, it leaves its processes behind; and importing it takes 1 s and 220 MB in a program
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
from pathlib import Path

from rewardline.core.errors import UserError, explain
from rewardline.core.files import write_json
from rewardline.core.progress import terminal_of_children
from rewardline.core.runtime import WORKER, free_port
from rewardline.training.processes.signals import INTERRUPTED, PREEMPTED, die_with_parent, on_stop

log = logging.getLogger(__name__)

REPORTS = "REWARDLINE_REPORTS"
"""Environment variable with the folder in which a process that fails leaves its `ExitReport`."""
SETTLE_SECONDS = 0.5
"""How long to wait after a failure for the process that caused it, where that is another one."""
LEAVE_SECONDS = 60
"""How long processes may take to end after the first of them has ended on a SIGTERM."""
RENDEZVOUS_SECONDS = 900
TERM = -signal.SIGTERM
"""Exit code of a process that a SIGTERM ended before it could do anything."""


@dataclass(frozen=True)
class Nodes:
    """The index of this node among those that train together, and their count; `job` is that of one attempt."""

    index: int = 0
    count: int = 1
    job: str = ""


@dataclass(frozen=True)
class Rendezvous:
    """Where the processes of all nodes meet."""

    host: str
    port: int


def slurm_nodes() -> Nodes:
    """The nodes of this Slurm step, if it has a task on each of several; else this one alone."""
    count = os.environ.get("SLURM_STEP_NUM_NODES", "1")
    if count == "1" or os.environ.get("SLURM_STEP_NUM_TASKS") != count:
        return Nodes()
    parts = (os.environ.get(name, "0") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"))
    return Nodes(int(os.environ["SLURM_NODEID"]), int(count), ".".join(parts))


def announce(nodes: Nodes, path: Path, needed: bool = True) -> Rendezvous:
    """Choose a free port of this node, the first, and tell the others through the file `path`.

    `needed`: whether there is anything to train. A file on the shared file system, which holds all that is read and
    written anyway: Slurm passes no address to the other nodes, and a port cannot be agreed on beforehand.
    """
    if nodes.count == 1:
        return Rendezvous("127.0.0.1", free_port())
    rendezvous = Rendezvous(os.environ.get("SLURMD_NODENAME") or socket.gethostname(), free_port())
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
                if child.poll() is None:
                    child.send_signal(signal.SIGTERM)

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
        code = _outcome(dict(enumerate(codes, first)), bool(stopped_by), _read_reports(Path(reports)))
        return INTERRUPTED if code == PREEMPTED and signal.SIGINT in stopped_by else code


def _start(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def bind() -> None:
        die_with_parent()
        if os.getppid() != parent:  # it ended before the kernel knew
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


@dataclass(frozen=True)
class ExitReport:
    """Why a process ended: `preempted`, or an error with its traceback and, where a person can fix it, a message.

    `time` is that of the node's monotonic clock.
    """

    rank: int
    time: float
    preempted: bool = False
    message: str | None = None
    traceback: str = ""


def _outcome(codes: dict[int, int | None], terminated: bool, reports: list[ExitReport]) -> int:
    """The exit code of the launcher, from the exit codes of its processes by rank and from their reports.

    Raises:
        UserError: a process failed.
    """
    if all(code == 0 for code in codes.values()):
        return 0
    killed = {rank: -code for rank, code in codes.items() if code is not None and code < 0}
    if terminated:
        killed = {rank: number for rank, number in killed.items() if number != -TERM}
    failures = [report for report in reports if not report.preempted]
    leaving = {rank for rank, code in codes.items() if code == PREEMPTED or (terminated and code == TERM)}
    silent = {rank for rank, code in codes.items() if code is not None and code > 0}
    silent -= {report.rank for report in reports} | leaving
    times = {report.rank: report.time for report in reports if report.preempted}
    # A process that leaves on request may make others fail; one that failed before that has failed all the same.
    left = min((times.get(rank, 0.0) for rank in leaving), default=float("inf"))
    if leaving and not killed and not silent and all(left < report.time for report in failures):
        return PREEMPTED
    if killed:  # then the others failed because it was gone
        rank, number = next(iter(killed.items()))
        hint = "; was there too little memory?" if number == signal.SIGKILL else ""
        raise UserError(f"training process {rank} was ended by {signal.Signals(number).name}{hint}")
    if not failures:
        rank = min(silent)
        raise UserError(f"training process {rank} ended with code {codes[rank]} and without a message")
    first = min(failures, key=lambda report: report.time)
    if first.message is not None:
        raise UserError(first.message)
    log.error("%s", first.traceback.rstrip())
    raise UserError(f"training process {first.rank} failed; its traceback is above")


@contextmanager
def reporting() -> Iterator[None]:
    """In a process that the launcher started: leave errors to the launcher to show, and end at once."""
    try:
        yield
    except SystemExit as leaving:
        if leaving.code == PREEMPTED:
            _report(ExitReport(int(os.environ["RANK"]), time.monotonic(), preempted=True))
        raise
    except BaseException as error:
        # Written before the others can notice that this process is gone, so that the cause has the earliest time.
        rank, now = int(os.environ["RANK"]), time.monotonic()
        _report(ExitReport(rank, now, message=explain(error), traceback=traceback.format_exc()))
        os._exit(1)


def _report(report: ExitReport) -> None:
    write_json(Path(os.environ[REPORTS]) / f"{report.rank}.json", asdict(report))


def _read_reports(folder: Path) -> list[ExitReport]:
    return [ExitReport(**json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("*.json")]
