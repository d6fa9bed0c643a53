"""A `python` that runs each program in a fork of the server of `forks`: for jobs of a workflow, and for processes that
a program starts.

It is a short script, which asks the process of the tests to start the program, passes signals on to it, and ends as the
program does. If it is killed, so is the program.
"""

import atexit
import json
import shutil
import socket
import sys
import tempfile
from functools import cache
from multiprocessing import connection
from pathlib import Path
from threading import Thread

from support.processes.forks import Fork

SCRIPT = """#!{python} -IS
import json, os, signal, socket, sys

if len(sys.argv) == 1 or sys.argv[1].startswith("-"):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
asked = socket.socket(socket.AF_UNIX)
asked.connect({address!r})
job = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ), os.getpid()])
asked.sendall(job.encode() + b"\\n")
for number in (signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, lambda number, _: asked.sendall(bytes([number])))
code = int(asked.recv(16))
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@cache
def python() -> Path:
    """The file of that `python`, alone in its folder; it works as long as this process runs."""
    folder = Path(tempfile.mkdtemp(prefix="jobs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    address, script = folder / "socket", folder / "python"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(address))
    listening.listen(64)
    script.write_text(SCRIPT.format(python=sys.executable, address=str(address)))
    script.chmod(0o755)
    Thread(target=_listen, args=(listening,), daemon=True).start()
    return script


def _listen(listening: socket.socket) -> None:
    while True:
        Thread(target=_serve, args=(listening.accept()[0],), daemon=True).start()


def _serve(asking: socket.socket) -> None:
    """Run the program of a job, with its output where that of the asking process goes."""
    with asking:
        received = b""
        while b"\n" not in received:
            if not (part := asking.recv(1 << 16)):  # it was killed
                return
            received += part
        job, _, signals = received.partition(b"\n")
        program, cwd, environment, process = json.loads(job)
        output = Path(f"/proc/{process}/fd/1")
        fork = Fork([sys.executable, *program], cwd=Path(cwd), env=environment, output=output, python=python())
        while (code := fork.poll()) is None:
            for number in signals:
                fork.send_signal(number)
            if asking in connection.wait([asking, fork.sentinel]) and not (signals := asking.recv(16)):
                fork.kill()
                return
        asking.sendall(str(code).encode())
