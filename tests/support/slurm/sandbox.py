"""A sandbox that leaves nothing behind: own mounts, network, host name and processes, all of which end with it.

What runs inside sees the machine's files, and above them Debian packages that are not installed outside, its own
/etc/hosts and /run, and a network without a way out. Its first process is `python sandbox.py`; when that ends, the
kernel ends all others, unmounts what was mounted and removes the network.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAMESPACES = ["--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
PACKAGES_SECONDS = 120
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class UnavailableError(Exception):
    """Why there can be no sandbox, or no cluster in it, on this machine."""


def die_with_parent() -> None:
    """Have the kernel end this process when the one that started it ends, however it ends."""
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)


def fetch_packages(names: Sequence[str], folder: Path) -> None:
    """Download Debian packages, with all that they need and this machine lacks, into a folder; install nothing.

    Raises:
        UnavailableError: with what apt said.
    """
    if not shutil.which("apt-get"):
        raise UnavailableError("there is no apt-get, with which Slurm is fetched")
    (folder / "partial").mkdir(parents=True)
    get = ["apt-get", "--yes", "--quiet", "--no-install-recommends", "--download-only", "--reinstall"]
    get += [f"--option=Dir::Cache::archives={folder}", "--option=APT::Sandbox::User=root"]
    get += ["--option=Debug::NoLocking=true", "install", *names]  # nothing is installed, and others may do the same
    for command in (get, ["apt-get", "--quiet", "update"], get):
        done = _run(command)
        if command is get and done.returncode == 0:
            return
    raise UnavailableError(f"apt-get cannot fetch {' '.join(names)}: {done.stdout.strip()[-500:]}")


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    out = subprocess.PIPE
    return subprocess.run(
        command, stdout=out, stderr=subprocess.STDOUT, text=True, timeout=PACKAGES_SECONDS, check=False
    )


class Sandbox:
    """A place of its own for daemons; use it in a `with` block."""

    def __init__(self, hostname: str, packages: Path) -> None:
        """Start the sandbox with the Debian packages of a folder unpacked above the machine's files.

        Raises:
            UnavailableError: the machine does not allow it.
        """
        if os.geteuid() != 0:
            raise UnavailableError("namespaces with a network of their own need root")
        command = ["unshare", *NAMESPACES, sys.executable, "-S", __file__, hostname, str(packages)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline().strip()
        if said != "ready":
            self._process.wait()
            raise UnavailableError(f"no namespaces of its own on this machine: {said or 'unshare failed'}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        self.pid = int(children.split()[0])

    def inside(self, command: Sequence[str], folder: Path | str = "/") -> list[str]:
        """The command that runs `command` in the sandbox."""
        return _enter(self.pid, command, folder)

    def run(
        self, *command: str, folder: Path | str = "/", check: bool = True, timeout: float = 60, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the sandbox, with stdout and stderr together."""
        done = subprocess.run(
            self.inside(command, folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
            **options,
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
        return done

    def start(self, *command: str, folder: Path | str = "/", **options: Any) -> subprocess.Popen[bytes]:
        """Start a command in the sandbox."""
        return subprocess.Popen(self.inside(command, folder), preexec_fn=die_with_parent, **options)

    def path(self, inside: str) -> Path:
        """A file of the sandbox, as this process can open it."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def close(self) -> None:
        """End everything that runs in the sandbox, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        end = time.monotonic() + 10
        while Path(f"/proc/{self.pid}").exists() and time.monotonic() < end:
            time.sleep(0.02)

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _enter(pid: int, command: Sequence[str], folder: Path | str) -> list[str]:
    spaces = ["--mount", "--net", "--uts", "--ipc", "--pid"]
    return ["nsenter", f"--target={pid}", *spaces, f"--wdns={folder}", "--", *command]


def inner_pid(process: subprocess.Popen[bytes]) -> int:
    """The process that `Sandbox.start` started, by its number out here: the child of nsenter."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (found := children.read_text().split()):
        time.sleep(0.01)
    return int(found[0])


# Inside, as the first process.


def mount(*arguments: str) -> None:
    """Mount something in this namespace alone."""
    subprocess.run(["mount", *arguments], check=True, stdout=subprocess.DEVNULL)


def prepare(hostname: str, packages: Path) -> None:
    """Set the namespaces up: packages over /usr, own /proc, /run, /etc/hosts and /etc/slurm."""
    mount("--make-rprivate", "/")
    mount("-t", "proc", "proc", "/proc")
    debs = sorted(packages.glob("*.deb"))
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    root = Path("/run/packages")
    root.mkdir()
    for deb in debs:
        subprocess.run(["dpkg-deb", "--extract", str(deb), str(root)], check=True)
    if (root / "lib").is_dir():  # Debian's /lib is a link to /usr/lib
        shutil.copytree(root / "lib", root / "usr" / "lib", dirs_exist_ok=True, symlinks=True)
    for program in (root / "usr" / "sbin").glob("*-wlm"):  # what Debian's alternatives would link
        program.with_name(program.name.removesuffix("-wlm")).symlink_to(program.name)
    shutil.rmtree(root / "etc" / "slurm", ignore_errors=True)
    (root / "etc" / "slurm").symlink_to("/run/cluster")
    (root / "etc" / "hosts").symlink_to("/run/hosts")
    Path("/run/hosts").write_text("127.0.0.1 localhost\n")
    for folder in ("usr", "etc"):
        mount("-t", "overlay", "-o", f"lowerdir={root}/{folder}:/{folder}", "overlay", f"/{folder}")
    subprocess.run(["hostname", hostname], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def main(*arguments: str) -> None:
    """Prepare a sandbox (HOSTNAME PACKAGES) and say so; then take care of processes whose parents have ended."""
    if arguments:
        try:
            prepare(arguments[0], Path(arguments[1]))
        except (OSError, subprocess.CalledProcessError) as error:
            print(error, flush=True)
            sys.exit(1)
        print("ready", flush=True)
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.2)


if __name__ == "__main__":
    main(*sys.argv[1:])
