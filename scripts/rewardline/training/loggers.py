"""Where the numbers of a training go: `log.jsonl`, and programs that draw curves, if installed and asked for."""

import importlib.util
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from rewardline.core.errors import UserError
from rewardline.core.files import atomic_file
from rewardline.training.settings import TrainSettings

log = logging.getLogger(__name__)

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


class Logger(Protocol):
    """What `start` hands out."""

    def write(self, line: Json) -> None:
        """Write a line of `log.jsonl`."""

    def close(self) -> None:
        """Write what still waits."""


def start(names: Sequence[str], settings: TrainSettings, folder: Path, step: int) -> list[Logger]:
    """`log.jsonl` in `folder` and the loggers of a training that goes on after `step`; lines of later steps go."""
    lines = LogFile(folder / "log.jsonl", step)
    return [lines, *(_LOGGERS[name](settings, folder) for name in names)]


class LogFile:
    """A file of JSON lines. What cannot be written, as on a full disk, is written with a later line."""

    def __init__(self, path: Path, step: int) -> None:
        """Go on with what the file says up to `step`; the steps after it are done again."""
        self._path, self._waiting, self._told = path, "", False
        kept = [json.dumps(line) + "\n" for line in log_lines(path) if line["step"] <= step]
        with atomic_file(path) as partial:
            partial.write_text("".join(kept), encoding="utf-8")
        self._size = path.stat().st_size

    def write(self, line: Json) -> None:
        """Append a line."""
        self._waiting += json.dumps(line) + "\n"
        try:
            with self._path.open("r+", encoding="utf-8") as stream:
                stream.truncate(self._size)  # what a failure left of a line
                stream.seek(self._size)
                stream.write(self._waiting)
            self._size, self._waiting = self._path.stat().st_size, ""
        except OSError as error:
            if not self._told:
                log.warning("%s cannot be written (%s); trying again at every step", self._path, error.strerror)
            self._told = True

    def close(self) -> None:
        """Fail if lines still wait.

        Raises:
            OSError: they cannot be written.
        """
        if self._waiting:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(self._waiting)


def log_lines(path: Path) -> Iterator[Json]:
    """The lines of a `log.jsonl`, up to one that was being written when its program was killed."""
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(text)
            except json.JSONDecodeError:
                return


class Curves:
    """Hands the numbers of every line to a program: `train/NAME`, and `eval/NAME` for those of evaluations.

    A program that fails is given up, with a warning: it must not cost the training.
    """

    def __init__(self, write: Callable[[Json, int], None], close: Callable[[], None]) -> None:
        self._write, self._close = write, close
        self._works = True

    def write(self, line: Json) -> None:
        """Write a line's numbers."""
        values = {}
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float):
                group, short = ("eval", name[5:]) if name.startswith("eval_") else ("train", name)
                values[f"{group}/{short}"] = value
        self._try(lambda: self._write(values, line["step"]))

    def close(self) -> None:
        """Write what still waits."""
        self._try(self._close)

    def _try(self, action: Callable[[], None]) -> None:
        if not self._works:
            return
        try:
            action()
        except Exception as error:
            self._works = False
            log.warning("a logger failed (%s: %s) and gets no more lines", type(error).__name__, error)


def _tensorboard(_settings: TrainSettings, folder: Path) -> Curves:
    from torch.utils.tensorboard import SummaryWriter

    place = folder / "tensorboard"
    shutil.rmtree(place, ignore_errors=True)
    writer = SummaryWriter(str(place))

    def write(values: Json, at: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, at)

    curves = Curves(write, writer.close)
    for line in log_lines(folder / "log.jsonl"):  # its own files may lack what was not yet flushed at a kill
        curves.write(line)
    return curves


def _wandb(settings: TrainSettings, folder: Path) -> Curves:
    import wandb

    # The same id continues the same curves; steps that are done again are ignored there.
    identity = f"{settings.run}-{folder.name}"
    run = wandb.init(project="rewardline", name=settings.run, id=identity, resume="allow", dir=str(folder),
                     config=settings.as_json())  # fmt: skip
    return Curves(lambda values, at: run.log(values, step=at), run.finish)


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
    return Curves(lambda values, at: mlflow.log_metrics(values, step=at), mlflow.end_run)


_LOGGERS: dict[str, Callable[[TrainSettings, Path], Curves]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
