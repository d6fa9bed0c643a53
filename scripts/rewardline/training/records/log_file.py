"""log.jsonl: a line for each optimizer step and each evaluation."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from rewardline.core.errors import UserError
from rewardline.core.files import atomic_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepLine:
    """An optimizer step: means over its pairs, and counts.

    `loss`: also over its single answers with ratings, of which there are `answers` with a mean of `answer_loss`; what
    is of pairs alone is None in a step without any.

    `grad_norm`: that before clipping, None where it is not known; `tokens`: those of chosen and rejected in full,
    `computed_tokens`: those without repetitions of a shared prefix; `router_loss`: None without such a loss.

    `length_slope`, `length_coefficient`: c and b of `length_control`, after the step; None without it.
    """

    step: int
    epoch: float
    loss: float
    accuracy: float | None
    chosen_mean: float | None
    rejected_mean: float | None
    score_std: float | None
    learning_rate: float
    grad_norm: float | None
    pairs: int
    tokens: int
    computed_tokens: int
    tokens_per_second: float
    router_loss: float | None = None
    answers: int | None = None
    answer_loss: float | None = None
    length_slope: float | None = None
    length_coefficient: float | None = None


@dataclass(frozen=True)
class SetFigures:
    """Means over the pairs of an evaluation set, None where it has none; the loss also over its single answers."""

    loss: float
    accuracy: float | None
    chosen_mean: float | None
    rejected_mean: float | None
    pairs: int


@dataclass(frozen=True)
class EvalLine:
    """An evaluation after a step: means over pairs of the eval split, None without one; and of other sets by name."""

    step: int
    epoch: float
    eval_loss: float | None
    eval_accuracy: float | None
    eval_chosen_mean: float | None
    eval_rejected_mean: float | None
    eval_pairs: int
    eval_sets: Mapping[str, SetFigures] = field(default_factory=dict)


LogLine = StepLine | EvalLine
_LINE: TypeAdapter[LogLine] = TypeAdapter(LogLine)


def read_log(path: Path) -> Iterator[LogLine]:
    """The lines of a finished log.

    Raises:
        UserError: the file is missing, or a line is damaged.
    """
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; run the train stage first") from error
    for number, text in enumerate(texts, 1):
        try:
            yield _LINE.validate_json(text)
        except ValidationError as error:
            reason = f"{path} line {number} is damaged (it is not the JSON of a step or an evaluation)"
            raise UserError(f"{reason}; delete {path.parent} and train again") from error


def read_unfinished_log(path: Path) -> Iterator[LogLine]:
    """The lines of a log up to one that was being written when its program was killed; none without a file."""
    with suppress(UserError):
        yield from read_log(path)


class LogFile:
    """The log of a training run. What cannot be written, as on a full disk, is written with a later line."""

    def __init__(self, path: Path, step: int) -> None:
        """Keep the lines of the file up to `step`; the steps after it are repeated."""
        self._path, self._waiting, self._warned = path, "", False
        kept = [_text(line) for line in read_unfinished_log(path) if line.step <= step]
        with atomic_file(path) as partial:
            partial.write_text("".join(kept), encoding="utf-8")
        self._size = path.stat().st_size

    def write(self, line: LogLine) -> None:
        """Append a line."""
        self._waiting += _text(line)
        try:
            self._flush()
        except OSError as error:
            if not self._warned:
                log.warning("%s cannot be written (%s); trying again at every step", self._path, error.strerror)
            self._warned = True

    def close(self) -> None:
        """Write the lines that could not be written before.

        Raises:
            OSError: they still cannot be written.
        """
        self._flush()

    def _flush(self) -> None:
        with self._path.open("r+", encoding="utf-8") as stream:
            stream.truncate(self._size)  # what a failure left of a line
            stream.seek(self._size)
            stream.write(self._waiting)
        self._size, self._waiting = self._path.stat().st_size, ""


def _text(line: LogLine) -> str:
    values = asdict(line)
    for name in ("eval_sets", "router_loss", "answers", "answer_loss", "length_slope", "length_coefficient"):
        if not values.get(name):
            values.pop(name, None)
    return json.dumps(values) + "\n"
