"""Copies of the log for other programs: what is not installed is asked for, what is installed gets every number."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rewardline.core.errors import UserError
from rewardline.training.records import loggers
from rewardline.training.records.log_file import EvalLine, LogLine
from rewardline.training.settings import TrainingSettings, TrainSettings

from support.training_runs import STEP_LINE

LINES: list[LogLine] = [replace(STEP_LINE, step=4), EvalLine(4, 0.5, 0.5, 1.0, 0.25, -0.25, 20)]
EXPECTED = [
    [{f"train/{name}": value for name, value in asdict(LINES[0]).items() if name not in ("step", "grad_norm")}, 4],
    [
        {
            **{"train/epoch": 0.5, "eval/loss": 0.5, "eval/accuracy": 1.0, "eval/pairs": 20},
            **{"eval/chosen_mean": 0.25, "eval/rejected_mean": -0.25},
        },
        4,
    ],
]
WANDB = """
import json, pathlib
class Run:
    def __init__(self, facts): self.file = pathlib.Path(facts["dir"]) / "calls"; self.write(facts)
    def write(self, value): self.file.open("a").write(json.dumps(value) + "\\n")
    def log(self, values, step): self.write([values, step])
    def finish(self): self.write("end")
def init(**facts): return Run(facts)
"""
MLFLOW = """
import json, pathlib, types
calls = []
def set_experiment(name): calls.append(name)
def start_run(run_id=None, run_name=None):
    calls.append([run_id, run_name])
    return types.SimpleNamespace(info=types.SimpleNamespace(run_id="run7"))
def log_params(values): calls.append(values)
def log_metrics(values, step): calls.append([values, step])
def end_run(): calls.append("end")
"""
SETTINGS = TrainSettings(run="r", mixture="m", model="x", seed=0, training=TrainingSettings(epochs=2))


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for small modules of our own in place of large ones."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = {name: sys.modules.pop(name, None) for name in ("tensorboard", "wandb", "mlflow")}
    yield folder
    for name, module in before.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module


def write_lines(name: str, folder: Path, step: int = 3) -> None:
    loggers.check([name])
    started = loggers.start([name], SETTINGS, folder, step)
    for line in LINES:
        for logger in started:
            logger.write(line)
    for logger in started:
        logger.close()


def test_wandb_gets_every_number_under_an_id_that_a_resume_finds_again(tmp_path: Path, modules: Path) -> None:
    (modules / "wandb.py").write_text(WANDB)
    folder = tmp_path / "0123"
    folder.mkdir()
    write_lines("wandb", folder)
    first, *rest = [json.loads(line) for line in (folder / "calls").read_text().splitlines()]
    assert (first["id"], first["resume"], first["config"]) == ("r-0123", "allow", SETTINGS.as_json())
    assert rest == [*EXPECTED, "end"]


def test_mlflow_gets_every_number_and_a_resume_continues_its_run(tmp_path: Path, modules: Path) -> None:
    (modules / "mlflow.py").write_text(MLFLOW)
    write_lines("mlflow", tmp_path)
    write_lines("mlflow", tmp_path)
    calls = sys.modules["mlflow"].calls
    parameters = {name: str(value) for name, value in SETTINGS.training.as_json().items()}
    assert calls == [
        *["rewardline", [None, "r"], parameters, *EXPECTED, "end"],
        *["rewardline", ["run7", None], *EXPECTED, "end"],
    ]


def test_tensorboard_events_can_be_read_back(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines = [json.dumps(asdict(replace(STEP_LINE, step=step, loss=loss))) for step, loss in ((3, 0.75), (4, 0.7))]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + '\n{"step": 5, "lo')
    write_lines("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("eval/loss")] == [(4, 0.5)]
    write_lines("tensorboard", tmp_path, step=3)  # step 4 is done again after a kill
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(3, 0.75), (4, 0.25)]


def test_what_is_not_installed_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match="wandb, mlflow is not installed; run: pip install wandb mlflow"):
        loggers.check(["wandb", "mlflow"])
