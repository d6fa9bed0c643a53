"""The nodes of a Slurm cluster, whether they can run what a workflow requests, and jobs left by an earlier run.

Requests are not checked with `sbatch --test-only`: unless the site has set EnforcePartLimits, it accepts a job beyond
the limits of its partition, which then waits forever; and its "Requested node configuration is not available" does not
say which resource is too high.
"""

import getpass
import logging
import math
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rewardline.core.errors import UserError

log = logging.getLogger(__name__)
ANSWER_SECONDS = 60
PROBE_SECONDS = 10
CANCEL_SECONDS = 180
RUN_ID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
"""Names of the jobs of snakemake's Slurm plugin, after the prefix in the profile: the id of the snakemake run."""
EXCLUDED_NODES = "_failed_nodes"
"""Attribute of the plugin's executor with the nodes that later jobs exclude."""


class FrozenExclusions(set[str]):
    """A set to which nothing can be added, for the nodes that later jobs exclude.

    When a node fails, the plugin excludes all nodes of its job, so that a training run on all nodes of a partition
    could not restart. Slurm itself takes the failed node out of service.
    """

    def add(self, element: str) -> None:
        """Leave the set as it is."""


@dataclass(frozen=True)
class NodeGroup:
    """Identical nodes of a partition: cores, memory in MB and GPUs per node; time limit in minutes."""

    partition: str
    is_default: bool
    count: int
    cores: int
    memory: int
    gpus: int
    minutes: float


@dataclass(frozen=True)
class Request:
    """The resources that a rule requests at an attempt, per node; `gpus` is their total over all nodes."""

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
    """Make the Slurm plugin exclude only the nodes of the profile; see `FrozenExclusions`.

    The plugin has no option for this. A warning tells if a later version renames the attribute.
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
    """All nodes of the cluster by partition, in any state."""
    return parse_nodes(run_slurm("sinfo", "--noheader", "--exact", "--all", "--format=%P|%D|%c|%m|%G|%l"))


def parse_nodes(text: str) -> list[NodeGroup]:
    """The nodes in the output of `sinfo --exact --format=%P|%D|%c|%m|%G|%l`."""
    groups = []
    for line in text.splitlines():
        fields = line.strip().split("|")
        if len(fields) == 6:  # not the name of a cluster in a federation
            name, count, cores, memory, devices, limit = fields
            sizes = (int(count), int(cores.rstrip("+")), int(memory.rstrip("+")), _gpus(devices))
            groups.append(NodeGroup(name.rstrip("*"), name.endswith("*"), *sizes, parse_minutes(limit)))
    return groups


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
    """The accounts that this user may charge jobs to; empty if the cluster has no accounting."""
    query = ["show", "user", getpass.getuser(), "withassoc", "format=account"]
    try:
        return set(run_slurm("sacctmgr", "--noheader", "--parsable2", *query).split())
    except UserError:
        return set()


def problems(requests: Iterable[Request], nodes: Sequence[NodeGroup], accounts: set[str]) -> list[str]:
    """Messages about requests that no node can satisfy, each once per rule and resource, with the remedy."""
    messages: dict[tuple[str, str], str] = {}
    for request in requests:
        when = f" at attempt {request.attempt}" if request.attempt > 1 else ""
        for key, text in _problems(request, nodes, accounts):
            messages.setdefault((request.rule, key), f"{request.rule}{when}: {text}")
    return list(messages.values())


def _problems(request: Request, nodes: Sequence[NodeGroup], accounts: set[str]) -> Iterator[tuple[str, str]]:
    """The resource and the text of each problem of a request."""
    requested = set(re.split(r"[,\s]+", (request.account or "").lower())) - {
        ""
    }  # the plugin takes the first of several
    if accounts and not requested <= {name.lower() for name in accounts}:
        yield "account", f"slurm_account {request.account!r} is not one of yours: {_listed(accounts)}"
    known = {group.partition for group in nodes}
    partitions = set(request.partition.split(",")) if request.partition else set()
    if not partitions <= known:
        yield "partition", f"there is no slurm_partition {request.partition!r}; there are {_listed(known)}"
        return
    groups = [group for group in nodes if (group.partition in partitions if partitions else group.is_default)]
    if not groups:
        if nodes:
            yield "partition", f"the cluster has no default; set slurm_partition to one of {_listed(known)}"
        return
    where = f"partition {_listed({group.partition for group in groups})}"
    for key, number, most, unit in (
        ("threads", request.cores, max(group.cores for group in groups), "cores"),
        ("mem_mb", request.memory, max(group.memory for group in groups), "MB of memory"),
        ("gpu", math.ceil(request.gpus / request.nodes), max(group.gpus for group in groups), "GPUs"),
    ):
        if number > most:
            remedy = f"; write min(..., {most}) in the profile" if request.attempt > 1 else ""
            yield key, f"{key} requests {number} {unit} per node, and no node of {where} has more than {most}{remedy}"
    limit = max(group.minutes for group in groups)
    if request.minutes > limit:
        text = f"runtime requests {request.minutes:.0f} minutes, and {where} allows {limit:.0f}"
        yield "runtime", f"{text}; write min(..., {limit:.0f}) in the profile"
    count = sum(group.count for group in groups)
    if request.nodes > count:
        yield "nodes", f"{request.nodes} nodes are requested, and {where} has {count}"
    # Combinations with which a job waits forever, or leaves nodes idle.
    if request.gpus and (request.tasks or 1) > 1 and request.tasks_per_gpu != 0:
        yield "tasks", "with gpu and tasks, Slurm waits for a task on each GPU; add tasks_per_gpu: 0"
    if request.nodes > 1 and "srun" not in request.launcher:
        yield "launcher", "requests several nodes and has no launcher, so that one node would do all the work"
    if request.nodes > 1 and (request.tasks or 1) != request.nodes:
        yield "tasks", f"tasks must be {request.nodes}, as many as nodes"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def is_folder_missing(folder: Path, partition: str | None, account: str | None) -> bool:
    """Whether `folder` does not exist on a node of a partition; False if no node is free to check it at once."""
    command = ["srun", "--quiet", "--job-name=rewardline-check", "--ntasks=1", "--mem=50", "--time=1"]
    command += [f"--immediate={PROBE_SECONDS}", "--chdir=/", "--input=none"]
    command += [f"--{key}={value}" for key, value in (("partition", partition), ("account", account)) if value]
    command += ["sh", "-c", 'test -e "$0" || exit 44', str(folder.resolve())]
    try:
        done = subprocess.run(command, capture_output=True, timeout=ANSWER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 44


def cancel_old_jobs(folder: Path, prefix: str) -> None:
    """Cancel the jobs that an earlier snakemake process, now dead, left in Slurm for `folder`, and wait for their end.

    A training run among them saves a checkpoint first. `prefix`: of the names of the jobs, to tell them from those of
    other workflows in the same folder.

    Raises:
        UserError: some jobs do not end.
    """
    query = ["squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%A|%j|%Z"]
    jobs = parse_jobs(run_slurm(*query), folder, prefix)
    if not jobs:
        return
    log.warning("canceling jobs that an earlier run left behind: %s", " ".join(jobs))
    run_slurm("scancel", *jobs)
    end = time.monotonic() + CANCEL_SECONDS
    while remaining := parse_jobs(run_slurm(*query), folder, prefix):
        if time.monotonic() > end:
            raise UserError(f"jobs of an earlier run do not end: {' '.join(remaining)}; see squeue, and cancel them")
        time.sleep(1)


def parse_jobs(text: str, folder: Path, prefix: str) -> list[str]:
    """Ids of the jobs that snakemake submitted from `folder`, in the output of `squeue --format=%A|%j|%Z`."""
    job_name = re.compile((re.escape(prefix) + "_" if prefix else "") + RUN_ID)
    jobs = [fields for line in text.splitlines() if len(fields := line.strip().split("|", 2)) == 3]
    return [job for job, name, path in jobs if job_name.fullmatch(name) and Path(path) == folder.resolve()]
