"""Which step's weights a training leaves, and whether it goes on: best evaluation, early stopping, stuck at chance."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from rewardline.core.files import atomic_file
from rewardline.core.hashing import file_sha256

log = logging.getLogger(__name__)

Json = dict[str, Any]
CHANCE_STEPS = 200
"""Over how many steps after the warm-up accuracy and loss are compared with guessing; a shorter training: all of it."""
CHANCE_PAIRS = 500


@dataclass
class Selection:
    """What the evaluations so far say; saved with each checkpoint.

    `best_*` is the lowest eval loss, its step, and the hash of the weights kept of it (none where they are not kept);
    `mark` is the loss that the next evaluations must improve on, and `stale` how many in a row have not.
    """

    best_loss: float | None = None
    best_step: int = 0
    best_sha256: str | None = None
    mark: float | None = None
    stale: int = 0

    def is_better(self, loss: float) -> bool:
        """Whether an evaluation's loss is the lowest."""
        return math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss)

    def count(self, loss: float, min_delta: float) -> None:
        """Take note of an evaluation's loss for early stopping."""
        if math.isfinite(loss) and (self.mark is None or loss < self.mark - min_delta):
            self.mark, self.stale = loss, 0
        else:
            self.stale += 1


@dataclass
class Chance:
    """Compares what the training's steps give with guessing, and says so once; saved with each checkpoint."""

    steps: int = 0
    pairs: int = 0
    correct: float = 0.0
    loss: float = 0.0
    told: bool = False

    def add(self, line: Json, window: int) -> str | None:
        """Count a line of the log; a message when `window` steps (or `CHANCE_PAIRS` pairs, if more) were no better.

        No better means an accuracy within two standard errors of one half, or a loss within 0.001 of ln 2.
        """
        self.steps, self.pairs = self.steps + 1, self.pairs + line["pairs"]
        self.correct += line["accuracy"] * line["pairs"]
        self.loss += line["loss"] * line["pairs"]
        if self.steps < window or self.pairs < CHANCE_PAIRS:
            return None
        accuracy, loss, steps = self.correct / self.pairs, self.loss / self.pairs, self.steps
        stuck = accuracy < 0.5 + 2 * math.sqrt(0.25 / self.pairs) or abs(loss - math.log(2)) < 0.001
        self.steps, self.pairs, self.correct, self.loss = 0, 0, 0.0, 0.0
        if self.told or not stuck:
            return None
        self.told = True
        return (
            f"nothing is learned yet: over the last {steps} steps the accuracy is {accuracy:.1%} and the loss "
            f"{loss:.3f}, and guessing gives 50% and 0.693. Likely causes: a learning_rate that is too low (scores "
            "hardly move) or too high (scores jump); labels that do not follow from the text, such as ties, or fields "
            "that name the wrong answer; answers that are cut off or equal where they should differ (the report shows "
            "pairs); too few trained parameters (lora.rank)"
        )


def best_file(folder: Path, step: int) -> Path:
    """Where the weights of an evaluation are kept."""
    return folder / f"best-{step:08d}.safetensors"


def keep_weights(folder: Path, step: int, weights: dict[str, Tensor], needed: set[int]) -> str | None:
    """Keep the trained weights of `step`, delete those of steps not `needed`; their hash, None if it failed."""
    path = best_file(folder, step)
    try:
        with atomic_file(path) as partial:
            save_file(weights, partial)
    except Exception as error:  # safetensors has errors of its own for a full disk
        log.warning("the best weights so far, of step %d, could not be saved (%s); going on", step, error)
        return None
    for other in folder.glob("best-*.safetensors"):
        if other != path and int(other.stem[5:]) not in needed:
            other.unlink()
    return file_sha256(path)


def is_kept(folder: Path, selection: Selection) -> bool:
    """Whether the weights of the best evaluation are there, as they were saved."""
    path = best_file(folder, selection.best_step)
    return selection.best_sha256 is not None and path.is_file() and file_sha256(path) == selection.best_sha256


def kept_weights(folder: Path, selection: Selection) -> dict[str, Tensor]:
    """The trained weights of the best evaluation, on the CPU."""
    weights: dict[str, Tensor] = load_file(best_file(folder, selection.best_step))
    return weights
