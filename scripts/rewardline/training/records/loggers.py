"""Loggers beside log.jsonl, for curves of its numbers: TensorBoard, Weights & Biases, MLflow."""

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

Values = Mapping[str, float]
_EVENTS, _KEPT = "tfevents", "kept"


def check(names: Sequence[str]) -> None:
    """Check that the packages of the loggers, which have their names, are installed.

    Raises:
        UserError: one is missing.
    """
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        hint = f"pip install {' '.join(missing)}"
        raise UserError(f"training.loggers: {', '.join(missing)} is not installed; run: {hint}")


def start(names: Sequence[str], settings: TrainSettings, folder: Path, step: int) -> "list[LogFile | Curves]":
    """`log.jsonl` in `folder` and the loggers of a run that resumes after `step`; lines of later steps are deleted."""
    log_file = LogFile(folder / "log.jsonl", step)
    return [log_file, *(_LOGGERS[name](settings, folder) for name in names)]


class Curves:
    """Passes the numbers of every line to a logger: `train/NAME`, and `eval/NAME` for those of evaluations.

    A logger that fails gets no more lines, with a warning: it must not end the training run.
    """

    def __init__(self, write: Callable[[Values, int], object], close: Callable[[], object]) -> None:
        self._write, self._close, self._failed = write, close, False

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
        if not self._failed:
            try:
                action()
            except Exception as error:
                self._failed = True
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


def keep_curves(folder: Path, model: Path) -> None:
    """Copy the curves of TensorBoard from a run's folder to that of its model, under names that it does not look for.

    It looks through all of results/, and would show them here and where `published_name` has them.
    """
    for path in folder.glob(f"tensorboard/*{_EVENTS}*"):
        target = model / path.relative_to(folder).with_name(path.name.replace(_EVENTS, _KEPT))
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


def published_name(path: Path) -> Path:
    """The path of a file in a published model, by its path in the kept one."""
    return path.with_name(path.name.replace(_KEPT, _EVENTS)) if path.parent.name == "tensorboard" else path


def _wandb(settings: TrainSettings, folder: Path) -> Curves:
    import wandb

    run = wandb.init(
        project="rewardline",
        name=settings.run,
        id=f"{settings.run}-{folder.name}",  # the same id continues the same curves; repeated steps are ignored there
        resume="allow",
        dir=str(folder),
        config=settings.as_json(),
    )
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
