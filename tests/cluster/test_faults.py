"""Faults while a training runs on a cluster: nothing is lost, and the result is that of an undisturbed run.

They take minutes: `pytest -m slow tests/cluster`.
"""

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from rewardline.workflow.slurm import parse_minutes

from support.project import Project, sweep, sweep_results
from support.slurm.cluster import SMALL_DISK, Cluster
from support.slurm.runs import OVERLAY, TINY, ClusterProject, contents

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def states(cluster: Cluster, rule: str = "rule_train") -> list[str]:
    """The states in which jobs of a rule ended, or are, oldest first."""
    text = cluster.run("sacct", "--noheader", "--allocations", "--parsable2", "--format=Comment,State").stdout
    return [line.split("|")[1].split()[0] for line in text.splitlines() if line.startswith(rule)]


def test_too_little_memory_is_followed_by_more(project: ClusterProject, cluster: Cluster, local_run: Path) -> None:
    project.site(**{"set-resources": {"train": {"mem_mb": "300 if attempt == 1 else 2000"}}})
    project.run("--configfile", OVERLAY)
    assert contents(project.folder / "results") == contents(local_run / "results")
    assert states(cluster)[-2] in ("OUT_OF_MEMORY", "FAILED", "CANCELLED")
    assert states(cluster)[-1] == "COMPLETED"


def test_training_saves_before_its_time_is_over(project: ClusterProject, cluster: Cluster, local_run: Path) -> None:
    process = project.start("--configfile", OVERLAY)
    project.freeze()
    steps = project.training_steps()
    (job,) = cluster.jobs()
    passed = parse_minutes(cluster.run("squeue", "--noheader", f"--jobs={job}", "--format=%M").stdout.strip())
    cluster.run("scontrol", "update", f"JobId={job}", f"TimeLimit={int(passed) + 3}")
    went_on(project, cluster, process, local_run, steps)


def test_cancelled_job_is_repeated(project: ClusterProject, cluster: Cluster, local_run: Path) -> None:
    process = project.start("--configfile", OVERLAY)
    project.freeze()
    steps = project.training_steps()
    cluster.run("scancel", *cluster.jobs())
    went_on(project, cluster, process, local_run, steps)


def test_preempted_training_goes_on(project: ClusterProject, cluster: Cluster, local_run: Path) -> None:
    project.site(**{"set-resources": {"train": {"slurm_partition": "'idle'"}}})
    process = project.start("--configfile", OVERLAY)
    project.freeze()
    steps = project.training_steps()
    cluster.run("sbatch", "--partition=main", "--nodes=2", "--exclusive", "--wrap=sleep 5", "--output=/dev/null")
    went_on(project, cluster, process, local_run, steps)


def test_controller_that_is_away_for_a_while(project: ClusterProject, cluster: Cluster, local_run: Path) -> None:
    process = project.start("--configfile", OVERLAY)
    project.freeze()
    cluster.stop_controller()
    for pid in project.processes("train.py"):
        os.kill(pid, signal.SIGCONT)
    time.sleep(30)
    cluster.start_controller()
    assert process.wait(timeout=600) == 0, project.said()
    assert contents(project.folder / "results") == contents(local_run / "results")


def test_full_disk(cluster: Cluster, local_run: Path) -> None:
    cluster.clear()
    inside = Path(SMALL_DISK) / "project"
    project = ClusterProject(cluster.path(str(inside)), cluster, inside)
    project.start_from(local_run, "models", "checkpoints", "evals")
    project.overlay(TINY)
    filler = project.folder.parent / "filler"
    with filler.open("wb") as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(1 << 16))
            stream.flush()
    done = project.run("--configfile", OVERLAY, check=False)
    assert done.returncode == 1
    assert "No space left on device" in done.stdout + project.slurm_logs()
    filler.unlink()
    project.run("--configfile", OVERLAY)
    assert contents(project.folder / "results") == contents(local_run / "results")


def test_files_that_are_seen_late(project: ClusterProject, local_run: Path) -> None:
    process = project.start("--configfile", OVERLAY)
    model = project.folder / "results" / "models" / "demo"
    project.cluster.wait("the model", (model / "run.json").exists, seconds=300)
    model.rename(project.folder / "unseen")
    time.sleep(15)
    (project.folder / "unseen").rename(model)
    assert process.wait(timeout=600) == 0, project.said()
    assert contents(project.folder / "results") == contents(local_run / "results")


def went_on(
    project: ClusterProject,
    cluster: Cluster,
    process: subprocess.Popen[bytes],
    expected: Path,
    steps: int,
) -> None:
    """Check that a training was started again, went on from a checkpoint, and gave what it gives undisturbed."""
    assert process.wait(timeout=600) == 0, project.said()
    assert contents(project.folder / "results") == contents(expected / "results")
    assert states(cluster)[-2] != "COMPLETED"
    assert states(cluster)[-1] == "COMPLETED"
    log = (project.folder / "results" / "logs" / "train" / "demo.log").read_text()
    found = re.search(r"continuing after step (\d+)", log)
    assert found, log
    assert int(found.group(1)) >= steps


def test_a_sweep_with_halving_gives_the_results_of_a_local_run(cluster: Cluster, tmp_path: Path) -> None:
    config = sweep({"halving": {"factor": 2, "min_steps": 4}})
    alone, project = Project(tmp_path / "alone"), ClusterProject(tmp_path / "project", cluster)
    alone.run("--cores", "2", "--configfile", str(alone.overlay(config)))
    project.overlay(config)
    project.run("--configfile", OVERLAY)
    assert sweep_results(project) == sweep_results(alone)
    rungs = states(cluster, "rule_train_rung")
    assert len(rungs) == 8 and set(rungs) == {"COMPLETED"}
