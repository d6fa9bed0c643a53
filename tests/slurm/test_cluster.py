"""The whole pipeline through profiles/slurm, and trainings over several machines."""

from pathlib import Path

import pytest

from project import Project
from slurm.cluster import Cluster
from slurm.runs import PROFILE_THREADS, TINY, ClusterProject, contents

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished run on one machine."""
    project = Project(tmp_path_factory.mktemp("local") / "project")
    project.run("--cores", "2", "--configfile", str(project.overlay(TINY)), "--set-threads", *PROFILE_THREADS)
    return project


def test_pipeline_gives_the_results_of_one_machine(cluster: Cluster, local: Project, tmp_path: Path) -> None:
    project = ClusterProject(tmp_path / "project", cluster)
    overlay = str(project.overlay(TINY))
    project.run("--configfile", overlay)
    expected = contents(local.folder / "results")
    assert contents(project.folder / "results") == expected
    assert {Path(name).suffix for name in expected} >= {".parquet", ".arrow", ".safetensors", ".tsv"}
    assert "Nothing to be done" in project.run("--configfile", overlay).stdout
    assert cluster.jobs() == []
    ran = cluster.run("sacct", "--noheader", "--allocations", "--format=Comment%60,State").stdout
    rules = [line.split()[0].split("_wildcards")[0].removeprefix("rule_") for line in ran.splitlines()]
    assert sorted(rules) == sorted(
        ["convert_rows", "clean_pairs", "tokenize_shard"] * 2 + ["group_prompts", "train", "evaluate"]
    )
