import inspect
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import snakemake_executor_plugin_slurm
from snakemake.scheduling.job_scheduler import JobScheduler

from rewardline.workflow.slurm import (
    EXCLUDED_NODES,
    Request,
    keep_nodes_of_failed_jobs,
    parse_jobs,
    parse_minutes,
    parse_nodes,
    problems,
)

SINFO = """CLUSTER: here
short*|8|64|257000|(null)|4:00:00
long|8|64|257000|(null)|7-00:00:00
gpu|2|32|515000|gpu:a100:4(S:0,1),mps:400|2-00:00:00
gpu|1|48|1031000|gpu:h100:8|2-00:00:00
"""
NODES = parse_nodes(SINFO)
TRAIN = Request("train", partition="gpu", cores=32, memory=200_000, gpus=4, minutes=720)


def test_partitions_are_read() -> None:
    assert [entry.gpus for entry in NODES] == [0, 0, 4, 8]
    assert [entry.is_default for entry in NODES] == [True, False, False, False]
    assert [entry.minutes for entry in NODES] == [240, 7 * 1440, 2880, 2880]
    assert parse_minutes("30:00") == 30
    assert parse_minutes("infinite") == float("inf")


@pytest.mark.parametrize(
    "request_",
    [
        Request("evaluate"),
        TRAIN,
        replace(TRAIN, gpus=8, cores=48, memory=1_000_000),
        replace(TRAIN, gpus=12, nodes=3, tasks=3, tasks_per_gpu=0, launcher="srun"),
        replace(TRAIN, partition="short,gpu"),
        replace(TRAIN, account="Lab, lab"),
    ],
)
def test_what_some_node_has_is_accepted(request_: Request) -> None:
    assert problems([request_], NODES, {"lab"}) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"partition": "fast"}, "there is no slurm_partition 'fast'; there are gpu, long, short"),
        ({"account": "guest"}, "slurm_account 'guest' is not one of yours: lab"),
        ({"gpus": 16}, "gpu requests 16 GPUs per node, and no node of partition gpu has more than 8"),
        ({"memory": 2_000_000}, "mem_mb requests 2000000 MB of memory per node, and no node of partition gpu has"),
        ({"cores": 64}, "threads requests 64 cores per node, and no node of partition gpu has more than 48"),
        ({"minutes": 3000}, "runtime requests 3000 minutes, and partition gpu allows 2880; write min(..., 2880)"),
        (
            {"nodes": 4, "tasks": 4, "tasks_per_gpu": 0, "launcher": "srun"},
            "4 nodes are requested, and",
        ),
        ({"tasks": 2}, "add tasks_per_gpu: 0"),
        ({"nodes": 2, "tasks": 2, "tasks_per_gpu": 0}, "has no launcher"),
        ({"nodes": 2, "tasks_per_gpu": 0, "launcher": "srun"}, "tasks must be 2, as many as nodes"),
    ],
)
def test_what_no_node_has_is_named_with_its_remedy(change: dict[str, object], expected: str) -> None:
    (text,) = problems([replace(TRAIN, **change)], NODES, {"lab"})  # type: ignore[arg-type]
    assert text.startswith("train: ")
    assert expected in text


def test_growth_beyond_a_limit_is_found_before_the_first_retry() -> None:
    requests = [replace(TRAIN, attempt=attempt, minutes=1440 * attempt) for attempt in (1, 2, 3, 4)]
    (text,) = problems(requests, NODES, set())
    assert text.startswith("train at attempt 3: runtime requests 4320 minutes")


def test_devices_of_other_kinds_and_without_a_number() -> None:
    devices = {"gpu": 1, "gpu:a100": 1, "gpu:2": 2, "gpu:1g.5gb:7(S:0-1)": 7, "gpu:a:4,gpu:b:2": 6, "vgpu:3,mps:5": 0}
    text = "".join(f"p|1|8|1000|{device}|infinite\n" for device in devices)
    assert [entry.gpus for entry in parse_nodes(text)] == list(devices.values())


def test_cluster_without_a_default_asks_for_a_partition() -> None:
    nodes = parse_nodes(SINFO.replace("*", ""))
    assert problems([Request("evaluate")], nodes, set()) == [
        "evaluate: the cluster has no default; set slurm_partition to one of gpu, long, short"
    ]


def test_only_jobs_of_snakemake_are_taken_for_its_own() -> None:
    run = "5c5a077c-cb0e-4b01-b24c-798eabba62c5"
    folder = Path("/home/x").resolve()
    text = f"""CLUSTER: here
1|rewardline_{run}|{folder}
2|rewardline_{run}|{folder}/other
3|{run}|{folder}
4|mine_{run}|{folder}
5|interactive|{folder}
6|a|name|{folder}
"""
    assert parse_jobs(text, folder, "rewardline") == ["1"]
    assert parse_jobs(text, folder, "") == ["3"]


def test_nodes_of_a_failed_job_stay_in_use_and_the_plugin_still_has_the_attribute() -> None:
    source = inspect.getsource(snakemake_executor_plugin_slurm.Executor)
    assert f"self.{EXCLUDED_NODES} = set(" in source
    assert "self._executor = " in inspect.getsource(JobScheduler)
    workflow = SimpleNamespace(scheduler=SimpleNamespace(_executor=SimpleNamespace(**{EXCLUDED_NODES: {"a"}})))
    keep_nodes_of_failed_jobs(workflow)
    excluded = getattr(workflow.scheduler._executor, EXCLUDED_NODES)
    excluded.add("b")
    assert excluded == {"a"}


def test_a_plugin_without_the_attribute_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    keep_nodes_of_failed_jobs(SimpleNamespace(scheduler=SimpleNamespace(_executor=SimpleNamespace())))
    assert EXCLUDED_NODES in caplog.text
