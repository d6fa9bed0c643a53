"""Python programs in forks of a server that has their libraries imported, which takes most of their time.

A fork is as the same command in an interpreter of its own: arguments, folder, environment, search path, output and exit
code. What libraries read when they are imported stays as it is in the server (see `SERVER`), so that a program with
a GPU, another number of threads or a `PYTHONPATH` of its own needs a real process.
"""

import atexit
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing import connection, forkserver, get_context
from pathlib import Path
from threading import Lock
from unittest import mock

from support.paths import ROOT, SCRIPTS

TESTS = ROOT / "tests"
SERVER = {
    **{"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""},
    **{"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(TESTS)},
}
"""The environment in which the server imports libraries; as in `rewardline.core.runtime.prepare`."""

_LOCK = Lock()
"""Starting a process asks all others for their exit codes, each of which can be read once."""


class Fork:
    """A Python program in the background, with what tests use of `subprocess.Popen`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        output: Path | None = None,
        session: bool = False,
        python: Path | None = None,
    ) -> None:
        """Start a command; its stdout and stderr go to the file `output`, or where the server's go.

        With `session` it and what it starts are a session and process group of their own. `python` is what it takes for
        the Python that runs it.
        """
        variables = dict(os.environ if env is None else env)
        path = shutil.which(command[0], path=variables.get("PATH"))
        assert path is not None, f"there is no program {command[0]}"
        program = [*command[1:]] if path == sys.executable else [path, *command[1:]]
        arguments = (program, cwd or Path.cwd(), variables, output, session, str(python or sys.executable))
        self._process = get_context("forkserver").Process(target=_become, args=arguments)
        with _LOCK:
            _start_server()
            self._process.start()
        self.sentinel = self._process.sentinel
        atexit.register(self.kill)  # else the tests would wait for what a failed one has left
        self.pid = self._process.pid or 0

    def poll(self) -> int | None:
        """The exit code; None while the program runs."""
        with _LOCK:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once the program has ended."""
        connection.wait([self.sentinel], timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the program has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End the program at once."""
        self.send_signal(signal.SIGKILL)


Program = Fork | subprocess.Popen[bytes]


def run(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    python: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a Python program to its end, with stdout and stderr together."""
    with tempfile.NamedTemporaryFile("r", errors="replace") as output:
        process = Fork(command, cwd=cwd, env=env, output=Path(output.name), python=python)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess([*command], code, output.read())


@cache
def _start_server() -> None:
    with mock.patch.dict(os.environ, SERVER):
        forkserver.set_forkserver_preload(["support.processes.preloaded"])
        forkserver.ensure_running()


def _become(
    program: list[str], folder: Path, environment: dict[str, str], output: Path | None, session: bool, python: str
) -> None:
    """In the fork: run a program, which is a file and its arguments."""
    sys.executable = python
    if session:
        os.setsid()
    if output is not None:
        descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # it is found anew in that environment
    of_tests = {"", str(ROOT), str(SCRIPTS), str(TESTS)}
    file = Path(program[0]).absolute()
    sys.path[:] = [str(file.parent), *(place for place in sys.path if place not in of_tests)]
    sys.argv[:] = program
    try:
        runpy.run_path(str(file), run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out
