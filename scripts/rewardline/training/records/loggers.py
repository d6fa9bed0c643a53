"""Loggers beside log.jsonl, for curves of its numbers: TensorBoard, Weights & Biases, MLflow, Trackio."""

import importlib.util
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

from rewardline.core.errors import UserError, first_line
from rewardline.core.settings import JsonObject
from rewardline.training.records.log_file import LogFile, LogLine, read_unfinished_log
from rewardline.training.settings import LoggersSettings, MlflowSettings, TrackioSettings, WandbSettings

log = logging.getLogger(__name__)

Values = Mapping[str, float]
_EVENTS, _KEPT = "tfevents", "kept"
PROJECT = "rewardline"
_REMEDIES = {
    "wandb": "log in with `wandb login`, or set WANDB_MODE=offline in the environment",
    "mlflow": "see MLFLOW_TRACKING_URI in the environment, or `tracking_uri`",
    "trackio": "see TRACKIO_SPACE_ID in the environment, or `space_id`",
}


@dataclass(frozen=True)
class TrackedRun:
    """A training run as trackers see it.

    `identity` distinguishes training runs of one name, and is the same after a resume; `settings` are shown beside the
    curves; `folder`: that of the run, where TensorBoard finds it; `local`: what other trackers keep on this machine
    unless their environment variables name a place.
    """

    run: str
    seed: int | None
    identity: str
    settings: JsonObject
    folder: Path
    local: Path

    @property
    def group(self) -> str:
        """The name that seeds, and the cells of a sweep, have in common."""
        sweep = self.settings.get("sweep")
        return sweep if isinstance(sweep, str) else self.run.removesuffix(f"-seed{self.seed}")

    def name(self, given: str | None) -> str:
        """The run id, with the given name in place of the group's."""
        return self.run if given is None else given + self.run.removeprefix(self.group)


def identity(run: str, key: str) -> str:
    """An id for the training of a run under a key, of characters that every tracker accepts."""
    return re.sub("[^A-Za-z0-9_-]", "-", f"{run}-{key}")


def check(settings: LoggersSettings) -> None:
    """Raise `UserError` if the package of a logger, which has its name, is not installed."""
    if missing := [name for name in settings.used() if importlib.util.find_spec(name) is None]:
        hint = f"pip install {' '.join(missing)}"
        raise UserError(f"training.loggers: {', '.join(missing)} is not installed; run: {hint}")


def start(settings: LoggersSettings, run: TrackedRun, step: int) -> "list[LogFile | Curves]":
    """`log.jsonl` and the loggers of a run that resumes after `step`; lines of later steps are deleted.

    Raises:
        UserError: a logger cannot start.
    """
    shutil.rmtree(run.folder / "tensorboard", ignore_errors=True)  # it may lack what a kill left unflushed
    log_file = LogFile(run.folder / "log.jsonl", step)
    return [log_file, *(curves for _, curves in open_trackers(settings, run))]


def open_trackers(settings: LoggersSettings, run: TrackedRun) -> "Iterable[tuple[str, Curves]]":
    """Name and curves of each logger, which first get the lines of log.jsonl that they lack.

    Raises:
        UserError: a logger cannot start.
    """
    for name in settings.used():
        try:
            curves = _OPEN[name](settings, run)
        except Exception as error:
            hint = f"; {_REMEDIES[name]}" if name in _REMEDIES else ""
            raise UserError(f"training.loggers.{name}: does not start: {first_line(error)}{hint}") from error
        for line in read_unfinished_log(run.folder / "log.jsonl"):
            if line.step >= curves.first_missing:
                curves.write(line)
        yield name, curves


class Curves:
    """Passes the numbers of every line to a logger: `train/NAME`, `eval/NAME` and, of other sets, `eval/SET/NAME`.

    A logger that fails gets no more lines, with a warning: it must not end the training run. `first_missing`: from
    which step on it may lack lines that were written before; `failure`: why it gets no more.
    """

    def __init__(
        self,
        write: Callable[[Values, int], object],
        close: Callable[[], object],
        first_missing: float = 0,
        sum_up: Callable[[Values, int], object] | None = None,
    ) -> None:
        self._write, self._close, self.first_missing, self._sum_up = write, close, first_missing, sum_up or write
        self.failure: str | None = None

    def write(self, line: LogLine) -> None:
        """Write a line's numbers."""
        values: dict[str, float] = {}
        numbers = asdict(line)
        for set_name, figures in numbers.pop("eval_sets", {}).items():
            values |= {f"eval/{set_name}/{name}": value for name, value in figures.items() if value is not None}
        for name, value in numbers.items():
            if name != "step" and value is not None:
                group, short = ("eval", name[5:]) if name.startswith("eval_") else ("train", name)
                values[f"{group}/{short}"] = value
        self._try(lambda: self._write(values, line.step))

    def sum_up(self, values: Values, step: int) -> None:
        """Write numbers of the whole run, whose model is that of `step`."""
        self._try(lambda: self._sum_up(values, step))

    def close(self) -> None:
        """Write what is buffered."""
        self._try(self._close)

    def _try(self, action: Callable[[], object]) -> None:
        if self.failure is None:
            try:
                action()
            except Exception as error:
                self.failure = f"{type(error).__name__}: {first_line(error)}"
                log.warning("a logger failed (%s) and gets no more lines", self.failure)


def _tensorboard(_settings: LoggersSettings, run: TrackedRun) -> Curves:
    # Its own writer, as that of torch takes seconds to import.
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    events, suffix = run.folder / "tensorboard", ".benchmarks"
    for path in events.glob(f"*{suffix}"):
        path.unlink()
    is_new = not any(events.glob("*"))
    writer = EventFileWriter(str(events), filename_suffix="" if is_new else suffix)

    def write(values: Values, step: int) -> None:
        entries = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=entries)))

    return Curves(write, writer.close, 0 if is_new else inf)


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


def _environment(name: str, default: str | None = None) -> str | None:
    """The value of an environment variable; `default` where it is not set, or empty."""
    return os.environ.get(name) or default


def _wandb(settings: LoggersSettings, run: TrackedRun) -> Curves:
    import wandb

    options = settings.wandb or WandbSettings()
    folder = Path(_environment("WANDB_DIR") or run.local)
    folder.mkdir(parents=True, exist_ok=True)  # else it writes to the folder for temporary files
    tracked = wandb.init(
        project=options.project or _environment("WANDB_PROJECT", PROJECT),
        entity=options.entity,
        name=_environment("WANDB_NAME", run.run) if options.name is None else run.name(options.name),
        group=options.group or _environment("WANDB_RUN_GROUP", run.group),
        tags=options.tags or None,
        id=run.identity,  # the same id continues the same curves
        resume="allow",
        dir=str(folder),
        config=run.settings,
    )

    def write(values: Values, step: int) -> None:
        tracked.log(dict(values), step=step)

    def sum_up(values: Values, _: int) -> None:
        tracked.summary.update(dict(values))

    if tracked.offline:  # a kill may have lost a part of the earlier folders: this one has everything
        for path in folder.glob(f"wandb/offline-run-*-{run.identity}"):
            if path.resolve() != Path(tracked.dir).resolve().parent:
                shutil.rmtree(path)
    return Curves(write, tracked.finish, tracked.starting_step if tracked.resumed else 0, sum_up)


def _mlflow(settings: LoggersSettings, run: TrackedRun) -> Curves:
    import mlflow

    options = settings.mlflow or MlflowSettings()
    run.local.mkdir(parents=True, exist_ok=True)
    uri = options.tracking_uri or _environment("MLFLOW_TRACKING_URI", f"sqlite:///{run.local.absolute()}/mlflow.db")
    if str(uri).startswith(("file:", "/", ".")):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # which MLflow 3 asks for
    mlflow.set_tracking_uri(uri)
    experiment = options.project or _environment("MLFLOW_EXPERIMENT_NAME")
    number = None if experiment else _environment("MLFLOW_EXPERIMENT_ID")
    found = mlflow.set_experiment(experiment_id=number) if number else mlflow.set_experiment(experiment or PROJECT)
    known = mlflow.search_runs(
        [found.experiment_id], f"tags.rewardline = '{run.identity}'", max_results=1, output_format="list"
    )
    if known:
        mlflow.start_run(run_id=known[0].info.run_id)
    else:
        tags = {"rewardline": run.identity, "group": options.group or run.group, **dict.fromkeys(options.tags, "true")}
        mlflow.start_run(run_name=run.name(options.name), tags=tags)
        mlflow.log_params({key: str(value) for key, value in run.settings.items()})
    return Curves(lambda values, step: mlflow.log_metrics(dict(values), step=step), mlflow.end_run, inf if known else 0)


def _trackio(settings: LoggersSettings, run: TrackedRun) -> Curves:
    options = settings.trackio or TrackioSettings()
    os.environ.setdefault("TRACKIO_DIR", str(run.local.absolute() / "trackio"))
    import trackio

    name = f"{run.name(options.name)}-{run.identity[-6:]}"  # which is its id

    def init(resume: str) -> int:
        tracked = trackio.init(
            project=options.project or _environment("TRACKIO_PROJECT", PROJECT),
            name=name,
            group=options.group or run.group,
            space_id=options.space_id,
            config=dict(run.settings),
            resume=resume,
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        return int(getattr(tracked, "_next_step", 0))  # a kill loses what it has not stored yet

    try:
        first_missing = init("must")
    except ValueError:  # there is no such run
        first_missing = 0
        init("never")
    return Curves(lambda values, step: trackio.log(dict(values), step=step), trackio.finish, first_missing)


_OPEN: dict[str, Callable[[LoggersSettings, TrackedRun], Curves]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "trackio": _trackio,
}
