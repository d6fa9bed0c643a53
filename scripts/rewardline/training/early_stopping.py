"""Early stopping and the choice of the best weights, by evaluations on held-out sets."""

import logging
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from rewardline.core.files import atomic_file
from rewardline.core.hashing import file_sha256
from rewardline.training.settings import TrainingSettings

log = logging.getLogger(__name__)


def evaluation_is_due(training: TrainingSettings, step: int, total: int) -> bool:
    """Whether the evaluation sets are scored after step `step` (1-based) of `total`."""
    return training.eval_every > 0 and (step == total or step % training.eval_every == 0)


@dataclass
class Selection:
    """Results of the evaluations so far; saved with each checkpoint.

    `best_*` is the lowest loss of the set that `keep_best` looks at, its step, and the hash of the weights that are
    kept of it (None without any); `mark` is the loss that the next evaluations must improve on, and `stale` how many in
    a row have not.
    """

    best_loss: float | None = None
    best_step: int = 0
    best_sha256: str | None = None
    mark: float | None = None
    stale: int = 0

    def is_better(self, loss: float) -> bool:
        """Whether an evaluation's loss is the lowest."""
        return math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss)

    def count(self, loss: float, training: TrainingSettings) -> None:
        """Count an evaluation's loss for early stopping."""
        min_delta = training.early_stopping.min_delta if training.early_stopping else 0.0
        if math.isfinite(loss) and (self.mark is None or loss < self.mark - min_delta):
            self.mark, self.stale = loss, 0
        else:
            self.stale += 1

    def ends(self, training: TrainingSettings) -> bool:
        """Whether the run ends early."""
        return training.early_stopping is not None and self.stale >= training.early_stopping.patience

    def is_kept(self, folder: Path) -> bool:
        """Whether the weights of the best evaluation are in `folder`, as they were saved."""
        path = best_file(folder, self.best_step)
        return self.best_sha256 is not None and path.is_file() and file_sha256(path) == self.best_sha256


def best_file(folder: Path, step: int) -> Path:
    """Path of the weights of an evaluation."""
    return folder / f"best-{step:08d}.safetensors"


def keep_weights(folder: Path, step: int, weights: dict[str, Tensor], needed: Collection[int]) -> str | None:
    """Save the trained weights of `step`, delete those of steps not `needed`; their hash, None if it failed."""
    path = best_file(folder, step)
    try:
        with atomic_file(path) as partial:
            save_file(weights, partial)
    except Exception as error:  # safetensors has errors of its own for a full disk
        log.warning("the best weights so far, of step %d, could not be saved (%s); training continues", step, error)
        return None
    for saved in set(folder.glob("best-*.safetensors")) - {path, *(best_file(folder, number) for number in needed)}:
        saved.unlink()
    return file_sha256(path)
