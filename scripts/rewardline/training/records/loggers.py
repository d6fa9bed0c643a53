"""Programs that draw curves of the numbers in log.jsonl: TensorBoard, Weights & Biases, MLflow."""

import importlib.util
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rewardline.core.errors import UserError
from rewardline.training.records.log_file import LogFile, LogLine, read_unfinished_log
from rewardline.training.settings import TrainSettings

log = logging.getLogger(__name__)

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
"""What a logger needs, by the name of its module and of its package."""


def check(names: Sequence[str]) -> None:
    """Check that the packages of the loggers are installed.

    Raises:
        UserError: one is missing.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        packages = " ".join(PACKAGES[name] for name in missing)
        raise UserError(f"training.loggers: {', '.join(missing)} is not installed; run: pip install {packages}")


def start(names: Sequence[str], settings: TrainSettings, folder: Path, step: int) -> "list[LogFile | Curves]":
    """`log.jsonl` in `folder` and the loggers of a run that resumes after `step`; lines of later steps are deleted."""
    lines = LogFile(folder / "log.jsonl", step)
    return [lines, *(_LOGGERS[name](settings, folder) for name in names)]


Values = Mapping[str, float]


class Curves:
    """Passes the numbers of every line to a program: `train/NAME`, and `eval/NAME` for those of evaluations.

    A program that fails gets no more lines, with a warning: it must not end the training run.
    """

    def __init__(self, write: Callable[[Values, int], object], close: Callable[[], object]) -> None:
        self._write, self._close = write, close
        self._works = True

    def write(self, line: LogLine) -> None:
        """Write a line's numbers."""
        values = {}
        for name, value in asdict(line).items():
            if name != "step" and value is not None:
                group, short = ("eval", name[5:]) if name.startswith("eval_") else ("train", name)
                values[f"{group}/{short}"] = value
        self._try(lambda: self._write(values, line.step))

    def close(self) -> None:
        """Write what is buffered."""
        self._try(self._close)

    def _try(self, action: Callable[[], object]) -> None:
        if not self._works:
            return
        try:
            action()
        except Exception as error:
            self._works = False
            log.warning("a logger failed (%s: %s) and gets no more lines", type(error).__name__, error)


def _tensorboard(_settings: TrainSettings, folder: Path) -> Curves:
    from torch.utils.tensorboard import SummaryWriter

    events = folder / "tensorboard"
    shutil.rmtree(events, ignore_errors=True)
    writer = SummaryWriter(str(events))

    def write(values: Values, step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    curves = Curves(write, writer.close)
    for line in read_unfinished_log(folder / "log.jsonl"):  # its own files may lack what a kill left unflushed
        curves.write(line)
    return curves


def _wandb(settings: TrainSettings, folder: Path) -> Curves:
    import wandb

    # The same id continues the same curves; steps that are done again are ignored there.
    identity = f"{settings.run}-{folder.name}"
    run = wandb.init(project="rewardline", name=settings.run, id=identity, resume="allow", dir=str(folder),
                     config=settings.as_json())  # fmt: skip
    return Curves(lambda values, step: run.log(values, step=step), run.finish)


def _mlflow(settings: TrainSettings, folder: Path) -> Curves:
    import mlflow

    mlflow.set_experiment("rewardline")
    known = folder / "mlflow_run"
    if known.exists():
        mlflow.start_run(run_id=known.read_text(encoding="utf-8"))
    else:
        run = mlflow.start_run(run_name=settings.run)
        known.write_text(run.info.run_id, encoding="utf-8")
        mlflow.log_params({key: str(value) for key, value in settings.training.as_json().items()})
    return Curves(lambda values, step: mlflow.log_metrics(values, step=step), mlflow.end_run)


_LOGGERS: dict[str, Callable[[TrainSettings, Path], Curves]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
