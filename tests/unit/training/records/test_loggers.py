"""Loggers get every number of a run and of its benchmarks, in one run of theirs, whatever interrupts the training."""

import json
import os
import signal
import sqlite3
import struct
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rewardline.core.errors import UserError
from rewardline.core.files import read_json
from rewardline.training.records import loggers
from rewardline.training.records.loggers import Curves, TrackedRun
from rewardline.training.settings import LoggersSettings

from support import training_runs
from support.paths import SCRIPTS
from support.processes import forks
from support.results_folder import Results
from support.training_runs import STEP_LINE

Json = dict[str, Any]
Points = dict[str, dict[int, float]]
"""By the name of a number: its values by step."""
OPTIONS: Json = {
    "tensorboard": {},
    "wandb": {"project": "judges", "tags": ["small"]},
    "mlflow": {"group": "all", "name": "renamed", "tags": ["small"]},
    "trackio": {"project": "judges"},
}


def environment(folder: Path) -> dict[str, str]:
    return {
        **{"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_RUN_GROUP": "mine"},
        **{"MLFLOW_TRACKING_URI": f"file:{folder}/mlruns", "MLFLOW_EXPERIMENT_NAME": "judges"},
    }


class Tracked:
    """A training run with all loggers, killed on the way and resumed, and its benchmarks."""

    def __init__(self, folder: Path, tokens: Path, base: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, **environment(folder)}
        options: Json = {"loggers": OPTIONS, "max_steps": 16, "eval_every": 8, "eval_sets": {"own": 5}}
        sets = ("--eval-tokens", f"own={tokens}")
        run = training_runs.start(folder, tokens, base, *sets, **options)
        training_runs.stop_at_step(run, folder, 6, signal.SIGKILL)
        self.lines = training_runs.finish(folder, tokens, base, *sets, **options)[1]
        results = Results(folder / "results")
        self.metrics = {name: results.eval("r", name, mixture="m", seed=1) for name in ("eval", "own")}
        self.track(OPTIONS)
        self.env["MLFLOW_TRACKING_URI"] = f"file:{folder}/later"
        self.track(["tensorboard", "mlflow"])

    def track(self, options: Json | list[str]) -> None:
        """Run the stage after the evaluations."""
        settings = json.dumps({"run": "r", "loggers": options})
        files = map(str, sorted(self.folder.glob("results/evals/*/*/metrics.json")))
        command = [sys.executable, str(SCRIPTS / "track.py"), "--settings", settings, "--metrics", *files]
        place = ["--model", str(self.folder / "out"), "--output", str(self.folder / "tracked.json")]
        done = forks.run([*command, *place], env=self.env)
        assert done.returncode == 0, done.stdout

    def check(self, points: Points) -> None:
        """All numbers of the log and of the benchmarks are there."""
        assert sum("eval_sets" in line for line in self.lines) == 2
        for line in self.lines:
            for name, value in line.items():
                if name == "eval_sets":
                    figures = {key: points[f"eval/own/{key}"][line["step"]] for key in value["own"]}
                    assert figures == pytest.approx(value["own"], rel=1e-6)
                    continue
                if name != "step" and value is not None:
                    group = "eval" if name.startswith("eval_") else "train"
                    found = points[f"{group}/{name.removeprefix('eval_')}"][line["step"]]
                    assert found == pytest.approx(value, rel=1e-6), (name, line["step"])
        for benchmark, metrics in self.metrics.items():
            for name in ("accuracy", "accuracy_low", "accuracy_high", "n"):
                (found,) = points[f"benchmark/{benchmark}/{name}"].values()
                assert found == pytest.approx(metrics[name], rel=1e-6)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory, tokens: Path, base: Path) -> Tracked:
    folder = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(folder).items():
            patch.setitem(training_runs.ENVIRONMENT, name, value)
        return Tracked(folder, tokens, base)


def test_tensorboard_shows_curves_and_benchmarks_as_one_run(tracked: Tracked) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folders = {path.parent for path in tracked.folder.rglob("*tfevents*")}
    assert folders == {tracked.folder / "out" / "tensorboard"}
    events = EventAccumulator(str(*folders))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 17))
    assert len(events.Scalars("benchmark/own/accuracy")) == 1
    tracked.check({tag: {event.step: event.value for event in events.Scalars(tag)} for tag in tags})


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: LevelDB's log format, blocks of 32 KiB with parts of records, after 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, position, record = path.read_bytes(), 7, b""
    while position < len(data):
        left = 32768 - position % 32768
        length, kind = struct.unpack_from("<HB", data, position + 4) if left >= 7 else (0, 0)
        if kind == 0:  # the end of a block
            position += left
            continue
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            message = wandb_internal_pb2.Record()
            message.ParseFromString(record)
            yield message
            record = b""


def test_wandb_has_one_offline_run_with_its_group_and_what_is_to_be_synced(tracked: Tracked) -> None:
    points: Points = defaultdict(dict)
    runs = set()
    (path,) = (tracked.folder / "trackers" / "wandb").glob("offline-run-*/*.wandb")
    for record in wandb_records(path):
        if record.WhichOneof("record_type") == "run":
            runs.add((record.run.run_id, record.run.project, record.run.run_group, *record.run.tags))
        for item in record.history.item:
            name = item.key or "/".join(item.nested_key)
            if not name.startswith("_"):
                points[name][record.history.step.num] = json.loads(item.value_json)
        for item in record.summary.update:
            if (name := item.key or "/".join(item.nested_key)).startswith("benchmark/"):
                points[name] = {0: json.loads(item.value_json)}
    ((_, *facts),) = runs
    assert facts == ["judges", "mine", "small"]
    tracked.check(points)


def test_mlflow_has_one_run_in_its_file_store(tracked: Tracked) -> None:
    (run,) = tracked.folder.glob("mlruns/*/*/meta.yaml")
    assert "run_name: renamed" in run.read_text()
    tags = {path.name: path.read_text() for path in (run.parent / "tags").iterdir()}
    assert (tags["group"], tags["small"]) == ("all", "true")
    tracked.check(mlflow_points(tracked.folder / "mlruns"))


def mlflow_points(store: Path) -> Points:
    (metrics,) = store.glob("*/*/metrics")
    points: Points = {}
    for path in filter(Path.is_file, metrics.rglob("*")):
        rows = [line.split() for line in path.read_text().splitlines()]
        points[path.relative_to(metrics).as_posix()] = {int(row[2]): float(row[1]) for row in rows}
    return points


def test_trackio_has_one_run_in_its_database(tracked: Tracked) -> None:
    (path,) = (tracked.folder / "trackers" / "trackio").glob("*.db")
    with sqlite3.connect(path) as database:
        rows = list(database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id"))
    assert len({name for name, *_ in rows}) == 1
    points: Points = defaultdict(dict)
    for _, step, text in rows:
        for name, value in json.loads(text).items():
            points[name][step] = value
    tracked.check(points)


def test_a_logger_that_is_added_later_gets_the_curves_too(tracked: Tracked) -> None:
    tracked.check(mlflow_points(tracked.folder / "later"))
    assert read_json(tracked.folder / "tracked.json")["loggers"] == ["tensorboard", "mlflow"]


def seen(run: str, **changes: Any) -> TrackedRun:
    return replace(TrackedRun(run, 3, "i", {}, Path("f"), Path("l")), **changes)


@pytest.mark.parametrize(
    ("run", "sweep", "group", "renamed"),
    [
        ("first", None, "first", "new"),
        ("first-seed3", None, "first", "new-seed3"),
        ("grid-lr=1e-05-seed3", "grid", "grid", "new-lr=1e-05-seed3"),
    ],
)
def test_seeds_and_cells_are_a_group_and_keep_names_of_their_own(
    run: str, sweep: str | None, group: str, renamed: str
) -> None:
    one = seen(run, settings={"sweep": sweep})
    assert (one.group, one.name("new"), one.name(None)) == (group, renamed, run)


def test_the_cells_of_a_sweep_are_one_group_in_every_tracker(tmp_path: Path) -> None:
    results, output = Results(tmp_path / "results"), tmp_path / "results" / "tracked.json"
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    env |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "MLFLOW_TRACKING_URI": f"file:{tmp_path}/mlruns"}
    cells = ("s-lr=0.1-seed0", "s-lr=0.2-seed0")
    for cell in cells:
        results.eval(cell)
        results.model(cell, steps=5, sweep="s")
        settings = json.dumps({"run": cell, "loggers": ["wandb", "mlflow", "trackio"]})
        parts = ["--settings", settings, "--metrics", str(tmp_path / f"results/evals/{cell}/eval/metrics.json")]
        place = ["--model", str(tmp_path / f"results/models/{cell}"), "--output", str(output)]
        done = forks.run([sys.executable, str(SCRIPTS / "track.py"), *parts, *place], env=env)
        assert done.returncode == 0, done.stdout
    trackers = tmp_path / "results" / "trackers"
    files = trackers.glob("wandb/offline-run-*/*.wandb")
    records = [record.run for path in files for record in wandb_records(path) if record.HasField("run")]
    assert {(one.run_group, one.display_name) for one in records} == {("s", cell) for cell in cells}
    assert [path.read_text() for path in tmp_path.glob("mlruns/*/*/tags/group")] == ["s", "s"]
    (path,) = trackers.glob("trackio/*.db")
    with sqlite3.connect(path) as database:
        configs = [json.loads(text) for (text,) in database.execute("SELECT config FROM configs")]
    assert [config["_Group"] for config in configs] == ["s", "s"]


def test_a_list_of_names_is_a_mapping_without_options() -> None:
    assert LoggersSettings.model_validate(["wandb"]) == LoggersSettings.model_validate({"wandb": {}})
    assert LoggersSettings.model_validate({"wandb": None}).used() == []


def test_a_logger_that_fails_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise ConnectionError("gone")

    curves = Curves(fail, fail)
    for _ in range(2):
        curves.write(STEP_LINE)
    assert curves.failure == "ConnectionError: gone"
    assert [record.getMessage() for record in caplog.records] == [
        "a logger failed (ConnectionError: gone) and gets no more lines"
    ]


def test_what_cannot_start_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Curves:
        raise ValueError("No API key configured")

    monkeypatch.setitem(loggers._OPEN, "wandb", refuse)
    with pytest.raises(UserError, match=r"training\.loggers\.wandb: does not start: No API key.*WANDB_MODE=offline"):
        loggers.start(LoggersSettings.model_validate(["wandb"]), seen("r", folder=tmp_path), 0)


def test_what_is_not_installed_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match="wandb, mlflow is not installed; run: pip install wandb mlflow"):
        loggers.check(LoggersSettings.model_validate(["wandb", "mlflow"]))
