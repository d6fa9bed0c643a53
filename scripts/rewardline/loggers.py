"""Copies of `log.jsonl` for programs that draw curves: TensorBoard, Weights & Biases, MLflow."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rewardline.cli import UserError

Json = dict[str, Any]
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
"""What a logger needs, by the name of its module and of its package."""


def check(names: Sequence[str]) -> None:
    """See that what the loggers need is installed.

    Raises:
        UserError: it is not.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        packages = " ".join(PACKAGES[name] for name in missing)
        raise UserError(f"training.loggers: {', '.join(missing)} is not installed; run: pip install {packages}")


def start(names: Sequence[str], settings: Json, folder: Path, step: int) -> list["Logger"]:
    """The loggers of a training that goes on after `step`; their files go into `folder`."""
    return [_LOGGERS[name](settings, folder, step) for name in names]


class Logger:
    """Writes the numbers of a line of the log, and is closed at the end."""

    def __init__(self, write: Callable[[Json, int], None], close: Callable[[], None]) -> None:
        self._write = write
        self.close = close

    def write(self, line: Json) -> None:
        """Write a line of `log.jsonl`: training values as `train/NAME`, those of evaluations as `eval/NAME`."""
        values = {}
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float):
                group, short = ("eval", name[5:]) if name.startswith("eval_") else ("train", name)
                values[f"{group}/{short}"] = value
        self._write(values, line["step"])


def _tensorboard(_settings: Json, folder: Path, step: int) -> Logger:
    from torch.utils.tensorboard import SummaryWriter

    # What was written of later steps before a kill is hidden: they are done again.
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(values: Json, at: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, at)

    return Logger(write, writer.close)


def _wandb(settings: Json, folder: Path, _step: int) -> Logger:
    import wandb

    # The same id continues the same curves; steps that are done again are ignored there.
    identity = f"{settings['run']}-{folder.name}"
    run = wandb.init(project="rewardline", name=settings["run"], id=identity, resume="allow", dir=str(folder),
                     config=settings)  # fmt: skip
    return Logger(lambda values, at: run.log(values, step=at), run.finish)


def _mlflow(settings: Json, folder: Path, _step: int) -> Logger:
    import mlflow

    mlflow.set_experiment("rewardline")
    known = folder / "mlflow_run"
    if known.exists():
        mlflow.start_run(run_id=known.read_text(encoding="utf-8"))
    else:
        run = mlflow.start_run(run_name=settings["run"])
        known.write_text(run.info.run_id, encoding="utf-8")
        mlflow.log_params({key: str(value) for key, value in settings["training"].items()})
    return Logger(lambda values, at: mlflow.log_metrics(values, step=at), mlflow.end_run)


_LOGGERS: dict[str, Callable[[Json, Path, int], Logger]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
