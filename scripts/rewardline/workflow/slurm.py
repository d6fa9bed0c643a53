"""What a Slurm cluster has, whether it can run what a workflow requests, and jobs that an earlier run left behind.

The requests are compared here, not by `sbatch --test-only`: that accepts a job beyond the limits of its partition,
which then waits for ever, unless the site has set EnforcePartLimits; and its "Requested node configuration is not
available" does not say which resource to lower, to what.
"""

import getpass
import logging
import math
import re
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rewardline.core.errors import UserError

log = logging.getLogger(__name__)
ANSWER_SECONDS = 60
PROBE_SECONDS = 10
CANCEL_SECONDS = 180
RUN_ID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
"""How the Slurm plugin of snakemake names its jobs, after a prefix of the profile: by the run that submitted them."""
EXCLUDED_NODES = "_failed_nodes"
"""Attribute of the plugin's executor that holds the nodes excluded from later jobs."""


class FrozenExclusions(set[str]):
    """A set to which nothing can be added, for the nodes that the plugin excludes from later jobs.

    When a node fails, the plugin excludes all nodes of its job, so that a training run over all nodes of a partition
    could not start again. Slurm takes the node that failed out of service itself.
    """

    def add(self, element: str) -> None:
        """Leave the set as it is."""


@dataclass(frozen=True)
class NodeGroup:
    """Equal nodes of a partition: cores, memory in MB and GPUs of each; time limit in minutes."""

    partition: str
    is_default: bool
    count: int
    cores: int
    memory: int
    gpus: int
    minutes: float


@dataclass(frozen=True)
class Request:
    """What a rule requests at one of its attempts: of each node, but for `gpus`, which are those of all nodes."""

    rule: str
    attempt: int = 1
    partition: str | None = None
    account: str | None = None
    nodes: int = 1
    cores: int = 1
    memory: int = 0
    gpus: int = 0
    minutes: float = 0
    launcher: str = ""
    tasks: int | None = None
    tasks_per_gpu: int | None = None


def keep_nodes_of_failed_jobs(workflow: object) -> None:
    """Have the Slurm plugin exclude no more nodes than the profile says; see `FrozenExclusions`.

    The plugin has no option for it. Where a later version names its attribute otherwise, a warning says so.
    """
    executor = getattr(getattr(workflow, "scheduler", None), "_executor", None)
    excluded = getattr(executor, EXCLUDED_NODES, None)
    if isinstance(excluded, set):
        setattr(executor, EXCLUDED_NODES, FrozenExclusions(excluded))
    else:
        log.warning(
            "this version of snakemake-executor-plugin-slurm has no %s: after the failure of a node, it may exclude all"
            " nodes of a job; the tested version is in envs/requirements.txt",
            EXCLUDED_NODES,
        )


def run_slurm(*command: str, seconds: float = ANSWER_SECONDS) -> str:
    """The output of a Slurm program.

    Raises:
        UserError: it is not installed, or fails.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except FileNotFoundError as error:
        raise UserError(
            f"there is no {command[0]} on this host: start snakemake on a login host of the cluster, or without"
            " --workflow-profile profiles/slurm to run on this host alone"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise UserError(f"Slurm does not answer: {command[0]} took more than {seconds:.0f} s") from error
    if done.returncode:
        raise UserError(f"Slurm does not answer: {' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def read_nodes() -> list[NodeGroup]:
    """All nodes of the cluster, by partition, whatever state they are in."""
    return parse_nodes(run_slurm("sinfo", "--noheader", "--exact", "--all", "--format=%P|%D|%c|%m|%G|%l"))


def parse_nodes(text: str) -> list[NodeGroup]:
    """The nodes in the output of `sinfo --exact --format=%P|%D|%c|%m|%G|%l`."""
    found = []
    for line in text.splitlines():
        fields = line.strip().split("|")
        if len(fields) != 6:  # the name of a cluster in a federation
            continue
        name, count, cores, memory, devices, limit = fields
        figures = (int(count), int(cores.rstrip("+")), int(memory.rstrip("+")), _gpus(devices))
        found.append(NodeGroup(name.rstrip("*"), name.endswith("*"), *figures, parse_minutes(limit)))
    return found


def _gpus(devices: str) -> int:
    """Number of GPUs in a list such as `gpu:a100:4(S:0,1),mps:400`."""
    parts = [device.split(":") for device in re.sub(r"\([^)]*\)", "", devices).split(",")]
    return sum(int(part[-1]) if part[-1].isdigit() else 1 for part in parts if part[0] == "gpu")


def parse_minutes(limit: str) -> float:
    """A time limit as Slurm prints it, `[days-]hours:minutes:seconds` or `infinite`, in minutes."""
    if not limit[:1].isdigit():
        return math.inf
    days, _, rest = limit.rpartition("-")
    seconds = 0
    for part in rest.split(":"):
        seconds = 60 * seconds + int(part)
    return int(days or 0) * 1440 + seconds / 60


def read_accounts() -> set[str]:
    """The accounts that this user may charge jobs to; none where the cluster keeps no accounts."""
    user = getpass.getuser()
    try:
        return set(
            run_slurm(
                "sacctmgr", "--noheader", "--parsable2", "show", "user", user, "withassoc", "format=account"
            ).split()
        )
    except UserError:
        return set()


def problems(requests: Iterable[Request], nodes: Sequence[NodeGroup], accounts: set[str]) -> list[str]:
    """Requests that no node can satisfy, as sentences that say what to change; each once for a rule."""
    found: dict[tuple[str, str], str] = {}
    for request in requests:
        for key, text in _problems(request, nodes, accounts):
            when = f" at attempt {request.attempt}" if request.attempt > 1 else ""
            found.setdefault((request.rule, key), f"{request.rule}{when}: {text}")
    return list(found.values())


def _problems(request: Request, nodes: Sequence[NodeGroup], accounts: set[str]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    named = set(re.split(r"[,\s]+", (request.account or "").lower())) - {""}  # the plugin takes the first of several
    if accounts and not named <= {name.lower() for name in accounts}:
        found.append(("account", f"slurm_account {request.account!r} is not one of yours: {_listed(accounts)}"))
    names = {entry.partition for entry in nodes}
    if request.partition and not set(request.partition.split(",")) <= names:
        return [*found, ("partition", f"there is no slurm_partition {request.partition!r}; there are {_listed(names)}")]
    partitions = request.partition.split(",") if request.partition else None
    fits = [entry for entry in nodes if (entry.partition in partitions if partitions else entry.is_default)]
    if not fits:
        if not partitions and nodes:
            found.append(("partition", f"the cluster has no default; set slurm_partition to one of {_listed(names)}"))
        return found
    where = f"partition {_listed({entry.partition for entry in fits})}"
    gpus = math.ceil(request.gpus / request.nodes)
    for key, requested, most, unit in (
        ("threads", request.cores, max(entry.cores for entry in fits), "cores"),
        ("mem_mb", request.memory, max(entry.memory for entry in fits), "MB of memory"),
        ("gpu", gpus, max(entry.gpus for entry in fits), "GPUs"),
    ):
        if requested > most:
            text = f"{key} requests {requested} {unit} per node, and no node of {where} has more than {most}"
            found.append((key, text + (f"; write min(..., {most}) in the profile" if request.attempt > 1 else "")))
    limit = max(entry.minutes for entry in fits)
    if request.minutes > limit:
        text = f"runtime requests {request.minutes:.0f} minutes, and {where} allows {limit:.0f}"
        found.append(("runtime", f"{text}; write min(..., {limit:.0f}) in the profile"))
    count = sum(entry.count for entry in fits)
    if request.nodes > count:
        found.append(("nodes", f"{request.nodes} nodes are requested, and {where} has {count}"))
    return found + _conflicts(request)


def _conflicts(request: Request) -> list[tuple[str, str]]:
    """Combinations of resources with which a job waits for ever, or leaves nodes idle."""
    found = []
    if request.gpus and (request.tasks or 1) > 1 and request.tasks_per_gpu != 0:
        found.append(("tasks", "with gpu and tasks, Slurm waits for a task on each GPU; add tasks_per_gpu: 0"))
    if request.nodes > 1 and "srun" not in request.launcher:
        found.append(("launcher", "requests several nodes and has no launcher, so that one node would do all the work"))
    if request.nodes > 1 and (request.tasks or 1) != request.nodes:
        found.append(("tasks", f"tasks must be {request.nodes}, as many as nodes"))
    return found


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def is_folder_missing(folder: Path, partition: str | None, account: str | None) -> bool:
    """Whether a node of a partition does not see `folder`; False where no node is free to tell at once."""
    options = [f"--partition={partition}"] if partition else []
    options += [f"--account={account}"] if account else []
    command = ["srun", "--quiet", "--job-name=rewardline-check", "--ntasks=1", "--mem=50", "--time=1", *options]
    command += [f"--immediate={PROBE_SECONDS}", "--chdir=/", "--input=none"]
    try:
        done = subprocess.run(
            [*command, "sh", "-c", 'test -e "$0" || exit 44', str(folder.resolve())],
            capture_output=True,
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 44


def cancel_old_jobs(folder: Path, prefix: str) -> None:
    """Cancel the jobs that an earlier snakemake process, now dead, left in Slurm for `folder`, and wait for their end.

    A training run among them saves a checkpoint first. `prefix` is that of the jobs' names, which other workflows in
    the same folder do not have.

    Raises:
        UserError: some jobs do not end.
    """
    jobs = old_jobs(folder, prefix)
    if not jobs:
        return
    log.warning("cancelling jobs that an earlier run left behind: %s", " ".join(jobs))
    run_slurm("scancel", *jobs)
    end = time.monotonic() + CANCEL_SECONDS
    while remaining := old_jobs(folder, prefix):
        if time.monotonic() > end:
            raise UserError(f"jobs of an earlier run do not end: {' '.join(remaining)}; see squeue, and cancel them")
        time.sleep(1)


def old_jobs(folder: Path, prefix: str) -> list[str]:
    """Ids of the jobs of this user that snakemake submitted from `folder`."""
    return parse_jobs(
        run_slurm("squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%A|%j|%Z"), folder, prefix
    )


def parse_jobs(text: str, folder: Path, prefix: str) -> list[str]:
    """Ids of the jobs that snakemake submitted from `folder`, in the output of `squeue --format=%A|%j|%Z`."""
    own_name = re.compile((re.escape(prefix) + "_" if prefix else "") + RUN_ID)
    jobs = [fields for line in text.splitlines() if len(fields := line.strip().split("|", 2)) == 3]
    return [job for job, name, path in jobs if own_name.fullmatch(name) and Path(path) == folder.resolve()]
