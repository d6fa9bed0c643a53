"""The whole pipeline through profiles/slurm, a training run over several nodes, and what goes wrong most often."""

import os
import signal
from pathlib import Path

import pytest

from support.project import Project
from support.slurm.cluster import UNSHARED, Cluster
from support.slurm.runs import OVERLAY, TINY, ClusterProject, contents
from support.slurm.sandbox import inner_pid

pytestmark = pytest.mark.slurm
MACHINES = {
    "nodes": 2,
    "tasks": 2,
    "mpi": "'srun'",
    "launcher": "f'srun --nodes=2 --ntasks=2 --cpus-per-task={threads} --kill-on-bad-exit=1'",
}


def test_pipeline_gives_the_results_of_a_local_run(cluster: Cluster, local_run: Path, tmp_path: Path) -> None:
    project = ClusterProject(tmp_path / "project", cluster)
    project.overlay(TINY)
    project.run("--configfile", OVERLAY)
    expected = contents(local_run / "results")
    assert contents(project.folder / "results") == expected
    assert {Path(name).suffix for name in expected} >= {".parquet", ".arrow", ".safetensors", ".tsv"}
    assert cluster.jobs() == []
    ran = cluster.run("sacct", "--noheader", "--allocations", "--parsable2", "--format=Comment").stdout
    rules = [line.split("_wildcards")[0] for line in ran.splitlines() if line.startswith("rule")]
    heavy = ["convert_rows", "clean_pairs", "tokenize_pairs"] * 2 + ["group_prompts", "train", "evaluate"]
    assert sorted(rules) == sorted(f"rule_{name}" for name in heavy)


@pytest.mark.parametrize(
    ("zero_stage", "processes"),
    [(3, 1), pytest.param(3, 2, marks=pytest.mark.slow), pytest.param(2, 2, marks=pytest.mark.slow)],
)
def test_training_over_two_nodes_goes_on_when_one_of_them_fails(
    project: ClusterProject, cluster: Cluster, zero_stage: int, processes: int
) -> None:
    """With so many processes on each node."""
    run = {"mixture": "demo", "model": "tiny", "training": {"zero_stage": zero_stage, "checkpoint_every": 1}}
    project.overlay({**TINY, "runs": {"wide": run}})
    target = "results/models/wide/run.json"
    alone = Project.at(project.folder)
    alone.run(target, "--cores", "2", "--set-resources", f"train:processes={2 * processes}", "--configfile", OVERLAY)
    expected = contents(project.folder / "results" / "models")
    for name in ("models", "checkpoints"):
        (project.folder / "results" / name).rename(project.folder / name)
    project.site(**{"set-resources": {"train": {**MACHINES, "processes": processes}}})
    process = project.start(target, "--configfile", OVERLAY)
    project.freeze()
    cluster.stop_node("node2")
    cluster.wait("the loss to be seen", lambda: "down" in cluster.run("sinfo", "--noheader", "--format=%T").stdout)
    cluster.start_node("node2")
    assert process.wait(timeout=600) == 0, project.said()
    assert contents(project.folder / "results" / "models") == expected
    assert "NODE_FAIL" in project.said()
    log = next(project.folder.glob("results/models/wide/log.jsonl")).read_text()
    assert log.count('"step"') > 0


def test_killed_snakemake_and_a_controller_that_crashed(
    project: ClusterProject, cluster: Cluster, local_run: Path
) -> None:
    project.overlay(TINY)
    process = project.start("--configfile", OVERLAY)
    project.freeze()
    os.kill(inner_pid(process), signal.SIGKILL)
    old = cluster.jobs()
    assert len(old) == 1
    cluster.stop_controller()
    cluster.start_controller()
    text = project.run("--configfile", OVERLAY).stdout
    assert f"canceling jobs that an earlier run left behind: {old[0]}" in text
    assert (
        "CANCELLED" in cluster.run("sacct", "--noheader", "--allocations", f"--jobs={old[0]}", "--format=State").stdout
    )
    assert contents(project.folder / "results") == contents(local_run / "results")


def test_what_the_cluster_cannot_give_is_refused_at_once(project: ClusterProject, cluster: Cluster) -> None:
    asked = {"slurm_account": "'guest'", "gpu": 3, "runtime": "20 * attempt"}
    project.site(**{"set-resources": {"train": asked, "evaluate": {"slurm_partition": "'fast'"}}})
    done = project.run("--configfile", OVERLAY, check=False)
    assert done.returncode == 1
    for line in (
        "train: slurm_account 'guest' is not one of yours: lab",
        "train: gpu requests 3 GPUs per node, and no node of partition main has more than 2",
        "train at attempt 4: runtime requests 80 minutes, and partition main allows 60; write min(..., 60)",
        "evaluate: there is no slurm_partition 'fast'; there are idle, main",
    ):
        assert line in done.stdout
    assert cluster.jobs() == []


def test_folder_that_nodes_do_not_see_is_refused(cluster: Cluster) -> None:
    project = ClusterProject(cluster.path(UNSHARED) / "project", cluster, inside=Path(UNSHARED) / "project")
    project.overlay(TINY)
    done = project.run("--configfile", OVERLAY, check=False)
    assert done.returncode == 1
    assert f"do not see {UNSHARED}/project: move the project to a folder that all share" in done.stdout


def test_gpus_reach_a_training(project: ClusterProject) -> None:
    launcher = '"printenv CUDA_VISIBLE_DEVICES >results/gpus;"'
    project.site(retries=0, **{"set-resources": {"train": {"gpu": 2, "launcher": launcher}}})
    project.run("--configfile", OVERLAY, check=False)
    assert (project.folder / "results" / "gpus").read_text().split()[0] == "0,1"
