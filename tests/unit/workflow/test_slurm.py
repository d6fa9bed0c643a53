from dataclasses import replace
from pathlib import Path

import pytest

from rewardline.workflow.slurm import Request, parse_jobs, parse_machines, parse_minutes, problems

SINFO = """CLUSTER: here
short*|8|64|257000|(null)|4:00:00
long|8|64|257000|(null)|7-00:00:00
gpu|2|32|515000|gpu:a100:4(S:0,1),mps:400|2-00:00:00
gpu|1|48|1031000|gpu:h100:8|2-00:00:00
"""
MACHINES = parse_machines(SINFO)
TRAIN = Request("train", partition="gpu", cores=32, memory=200_000, gpus=4, minutes=720)


def test_partitions_are_read() -> None:
    assert [entry.gpus for entry in MACHINES] == [0, 0, 4, 8]
    assert [entry.is_default for entry in MACHINES] == [True, False, False, False]
    assert [entry.minutes for entry in MACHINES] == [240, 7 * 1440, 2880, 2880]
    assert parse_minutes("30:00") == 30
    assert parse_minutes("infinite") == float("inf")


@pytest.mark.parametrize(
    "request_",
    [
        Request("evaluate"),
        TRAIN,
        replace(TRAIN, gpus=8, cores=48, memory=1_000_000),
        replace(TRAIN, gpus=12, machines=3, tasks=3, tasks_per_gpu=0, launcher="srun"),
        replace(TRAIN, partition="short,gpu"),
        replace(TRAIN, account="Lab, lab"),
    ],
)
def test_what_some_machine_has_is_accepted(request_: Request) -> None:
    assert problems([request_], MACHINES, {"lab"}) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"partition": "fast"}, "there is no slurm_partition 'fast'; there are gpu, long, short"),
        ({"account": "guest"}, "slurm_account 'guest' is not one of yours: lab"),
        ({"gpus": 16}, "gpu asks for 16 GPUs of a machine, and none of partition gpu has more than 8"),
        ({"memory": 2_000_000}, "mem_mb asks for 2000000 MB of memory of a machine, and none of partition gpu has"),
        ({"cores": 64}, "threads asks for 64 cores of a machine, and none of partition gpu has more than 48"),
        ({"minutes": 3000}, "runtime asks for 3000 minutes, and partition gpu allows 2880; write min(..., 2880)"),
        ({"machines": 4, "tasks": 4, "tasks_per_gpu": 0, "launcher": "srun"}, "nodes asks for 4 machines, and"),
        ({"tasks": 2}, "add tasks_per_gpu: 0"),
        ({"machines": 2, "tasks": 2, "tasks_per_gpu": 0}, "has no launcher"),
        ({"machines": 2, "tasks_per_gpu": 0, "launcher": "srun"}, "tasks must be 2, as many as nodes"),
    ],
)
def test_what_no_machine_has_is_named_with_its_remedy(change: dict[str, object], expected: str) -> None:
    (text,) = problems([replace(TRAIN, **change)], MACHINES, {"lab"})  # type: ignore[arg-type]
    assert text.startswith("train: ")
    assert expected in text


def test_growth_beyond_a_limit_is_found_before_the_first_retry() -> None:
    asked = [replace(TRAIN, attempt=attempt, minutes=1440 * attempt) for attempt in (1, 2, 3, 4)]
    (text,) = problems(asked, MACHINES, set())
    assert text.startswith("train at attempt 3: runtime asks for 4320 minutes")


def test_devices_of_other_kinds_and_without_a_number() -> None:
    devices = {"gpu": 1, "gpu:a100": 1, "gpu:2": 2, "gpu:1g.5gb:7(S:0-1)": 7, "gpu:a:4,gpu:b:2": 6, "vgpu:3,mps:5": 0}
    text = "".join(f"p|1|8|1000|{device}|infinite\n" for device in devices)
    assert [entry.gpus for entry in parse_machines(text)] == list(devices.values())


def test_cluster_without_a_default_asks_for_a_partition() -> None:
    machines = parse_machines(SINFO.replace("*", ""))
    assert problems([Request("evaluate")], machines, set()) == [
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
