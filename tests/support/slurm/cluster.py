"""A Slurm cluster of its own in a sandbox: accounting, a controller, and nodes with a network and processes each.

    python tests/support/slurm/cluster.py [COMMAND ...]     run a command, or a shell, on the cluster's login host

The cluster lives as long as the command. A node is a namespace of its own, so that what reaches another node only by
`localhost` fails here as it does on real ones, and a node can lose its power.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from support.slurm.sandbox import Sandbox, UnavailableError, fetch_packages, inner_pid

PACKAGES = ["slurmctld", "slurmd", "slurm-client", "slurmdbd", "munge", "mariadb-server", "iproute2"]
HOME = "/run/cluster"
TEMPORARY = "/run/temporary"
"""Where programs on the cluster leave temporary files, which go with it."""
SMALL_DISK = "/run/small"
"""A file system of 100 MB that all nodes share."""
UNSHARED = "/run/login"
"""A file system of the login host that nodes do not see."""
CONTROL = "10.77.0.1"
NODES = {f"node{k}": f"10.77.0.{10 + k}" for k in (1, 2)}
CPUS, MEMORY, GPUS = 4, 16_000, 2
"""What each node claims to have; the kernel shares the machine's real cores among them."""
READY_SECONDS = 60

SLURM = f"""
ClusterName=test
SlurmctldHost=control({CONTROL})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={HOME}/munge.socket
StateSaveLocation={HOME}/state
SlurmdSpoolDir={HOME}/spool.%n
SlurmctldPidFile={HOME}/slurmctld.pid
SlurmdPidFile={HOME}/slurmd.%n.pid
SlurmctldLogFile={HOME}/slurmctld.log
SlurmdLogFile={HOME}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill,UsePss
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=preempt_send_user_signal,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SlurmdTimeout=8
KillWait=20
MinJobAge=300
EnforcePartLimits=ALL
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={CONTROL}
AccountingStoragePass={HOME}/munge.socket
AccountingStorageEnforce=associations,limits
AccountingStoreFlags=job_comment
AccountingStorageTRES=gres/gpu
GresTypes=gpu
PartitionName=main Nodes=ALL Default=YES MaxTime=60 DefaultTime=10 PriorityTier=10
PartitionName=idle Nodes=ALL MaxTime=60 DefaultTime=10 PriorityTier=1 GraceTime=60
"""
ACCOUNTING = f"""
AuthType=auth/munge
AuthInfo=socket={HOME}/munge.socket
DbdHost=control
DbdAddr={CONTROL}
SlurmUser=root
PidFile={HOME}/slurmdbd.pid
LogFile={HOME}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
"""
MUNGE = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
REAPER = Path(__file__).with_name("sandbox.py")
DATABASE = """
create database slurm; create user slurm@'127.0.0.1' identified by 'slurm'; grant all on slurm.* to slurm@'127.0.0.1';
"""


class Cluster(Sandbox):
    """A running cluster; use it in a `with` block. What runs on its login host are `run` and `start`."""

    def __enter__(self) -> "Cluster":
        return self

    def __init__(self, packages: Path) -> None:
        """Start the cluster from the Debian packages of a folder.

        Raises:
            UnavailableError: the machine does not allow it.
        """
        super().__init__("control", packages)
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        try:
            self._write_files()
            for folder in (SMALL_DISK, UNSHARED):
                self.run("mkdir", folder)
                self.run("mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", folder)
            self.run("munged", *(f"--{key}={HOME}/munge.{value}" for key, value in MUNGE.items()), "--num-threads=10")
            self._start_accounting()
            self.start_controller()
            for name in NODES:
                self.start_node(name)
            self.wait("all nodes", self.all_idle)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            logs = self.logs()
            self.close()
            raise UnavailableError(f"the cluster does not start: {error}\n{logs}") from error

    def _write_files(self) -> None:
        home = self.path(HOME)
        self.path(TEMPORARY).mkdir()
        for folder in ("state", "gpu", "cgroup", *(f"spool.{name}" for name in NODES)):
            (home / folder).mkdir(parents=True)
        lines = [f"{CONTROL} control", *(f"{address} {name}" for name, address in NODES.items())]
        with self.path("/run/hosts").open("a") as hosts:
            hosts.write("\n".join(lines) + "\n")
        have = f"CPUs={CPUS} CoresPerSocket={CPUS} RealMemory={MEMORY} Gres=gpu:{GPUS}"
        nodes = [f"NodeName={name} NodeHostname={name} NodeAddr={address} {have}" for name, address in NODES.items()]
        (home / "slurm.conf").write_text("\n".join([SLURM, *nodes]) + "\n")
        (home / "gres.conf").write_text(f"Name=gpu File={HOME}/gpu/nvidia[0-{GPUS - 1}]\n")
        (home / "cgroup.conf").write_text(f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={HOME}/cgroup\n")  # none is used
        (home / "slurmdbd.conf").write_text(ACCOUNTING)
        (home / "slurmdbd.conf").chmod(0o600)
        (home / "munge.key").write_bytes(os.urandom(1024))
        (home / "munge.key").chmod(0o400)
        bridge = "ip link add bridge type bridge; ip address add {CONTROL}/24 dev bridge; ip link set bridge up"
        for k in range(GPUS):
            self.run("mknod", f"{HOME}/gpu/nvidia{k}", "c", "1", "3")
        self.run("sh", "-e", "-c", bridge.format(CONTROL=CONTROL))

    def _start_accounting(self) -> None:
        data = f"{HOME}/mysql"
        self.run(
            "mariadb-install-db",
            "--no-defaults",
            "--user=root",
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )
        options = [f"--datadir={data}", f"--socket={HOME}/mysql.socket", f"--log-error={HOME}/mariadbd.log"]
        options += ["--user=root", "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=32M", "--skip-name-resolve"]
        self.start("mariadbd", "--no-defaults", *options, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        sql = ["mariadb", "--no-defaults", "--user=root", f"--socket={HOME}/mysql.socket"]
        self.wait("the database", lambda: self.run(*sql, "--execute=select 1", check=False).returncode == 0)
        self.run(*sql, f"--execute={DATABASE}")
        self.run("slurmdbd")
        manager = ["sacctmgr", "--immediate", "--quiet", "add"]
        self.wait("accounting", lambda: self.run(*manager, "cluster", "test", check=False).returncode == 0)
        self.run(*manager, "account", "lab", "Cluster=test")
        self.run(*manager, "user", "root", "Account=lab", "DefaultAccount=lab", "Cluster=test")

    def start_controller(self) -> None:
        """Start slurmctld, and wait until it answers."""
        self.run("slurmctld")
        self.wait("the controller", lambda: "UP" in self.run("scontrol", "ping", check=False).stdout)

    def stop_controller(self) -> None:
        """Kill slurmctld, as a crash would."""
        self.run("sh", "-c", f"kill -9 $(cat {HOME}/slurmctld.pid)")

    def start_node(self, name: str) -> None:
        """Give a node power: a network, a host name and processes of its own."""
        network = f"""
        ip netns add {name}
        ip link add to-{name} type veth peer name eth0 netns {name}
        ip link set to-{name} master bridge up
        ip -n {name} address add {NODES[name]}/24 dev eth0
        ip -n {name} link set eth0 up
        ip -n {name} link set lo up
        """
        if not self.path(f"/run/netns/{name}").exists():
            self.run("sh", "-e", "-c", network)
        boot = f"mount -t proc proc /proc; mount -t tmpfs tmpfs {UNSHARED}; hostname {name}; slurmd -N {name}"
        boot += f"; exec {sys.executable} -S {REAPER}"
        spaces = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "sh", "-e", "-c", boot]
        self._nodes[name] = self.start("nsenter", f"--net=/run/netns/{name}", *spaces)

    def stop_node(self, name: str) -> None:
        """Take a node's power: all its processes end at once."""
        process = self._nodes.pop(name)
        os.kill(inner_pid(process), signal.SIGKILL)
        process.wait()

    def all_idle(self) -> bool:
        """Whether every node is there and has nothing to do."""
        return self.run("sinfo", "--noheader", "--Node", "--partition=main", "--format=%T").stdout.split() == [
            "idle"
        ] * len(NODES)

    def jobs(self, *arguments: str) -> list[str]:
        """The jobs that wait or run, by id."""
        return self.run("squeue", "--noheader", "--format=%A", *arguments).stdout.split()

    def clear(self) -> None:
        """Cancel all jobs and have every node back."""
        for name in NODES:
            if name not in self._nodes:
                self.start_node(name)
        self.run("scancel", "--user=root")
        self.wait("idle nodes", self.all_idle)

    def wait(self, what: str, ready: Callable[[], bool], seconds: float = READY_SECONDS) -> None:
        """Wait until `ready()`; an AssertionError says what did not come."""
        end = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < end, f"{what} did not come in {seconds} s"
            time.sleep(0.02)

    def logs(self, lines: int = 15) -> str:
        """The ends of the daemons' logs."""
        parts = []
        for path in sorted(self.path(HOME).glob("*.log")):
            text = path.read_text(errors="replace").splitlines()
            parts.append("\n".join([f"--- {path.name}", *text[-lines:]]))
        return "\n".join(parts)


@contextmanager
def running() -> Iterator[Cluster]:
    """A cluster for as long as the block.

    Raises:
        UnavailableError: this machine cannot have one.
    """
    with tempfile.TemporaryDirectory(prefix="slurm-packages-") as packages:  # the sandbox unpacks them for itself
        fetch_packages(PACKAGES, Path(packages))
        cluster = Cluster(Path(packages))
    with cluster:
        yield cluster


def main(command: list[str]) -> int:
    """Run a command on a cluster of its own."""
    try:
        with running() as cluster:
            return subprocess.call(cluster.inside(command or ["bash"], Path.cwd()))
    except UnavailableError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
