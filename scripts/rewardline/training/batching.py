"""The steps of a training, epoch after epoch: they follow from data, seed and settings alone."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rewardline.model import batch as batches
from rewardline.model.batch import Piece
from rewardline.tokens.store import TokenDataset
from rewardline.training.settings import TrainingSettings


@dataclass(frozen=True)
class Plan:
    """Which pieces each step takes."""

    data: TokenDataset
    training: TrainingSettings
    seed: int

    def epoch(self, number: int) -> list[list[Piece]]:
        """The steps of an epoch (0-based)."""
        visit = batches.order(self.data, self.seed, number)
        return batches.steps(self.data.pair_counts, visit, self.training.pairs_per_step)

    def total_steps(self) -> int:
        """How many steps there are.

        Epochs differ in their number of steps where comparisons of several pairs stay whole, as their order differs.
        """
        epochs, most = self.training.epochs, self.training.max_steps or math.inf
        if len(self.data) == self.data.pairs:
            total = epochs * math.ceil(self.data.pairs / self.training.pairs_per_step)
        else:
            total = 0.0
            for number in range(math.ceil(epochs)):
                total += len(self.epoch(number)) * min(1, epochs - number)
                if total >= most:
                    break
        return int(min(math.ceil(total - 1e-6), most))  # 1.1 epochs of 10 steps are 11.000000000000002

    def steps(self, done: int, total: int) -> Iterator[tuple[float, list[Piece]]]:
        """The steps after the first `done` of `total`, each with the epoch that it ends at."""
        number, steps, first = 0, self.epoch(0), 0
        for step in range(total):
            if step - first == len(steps):
                number, first = number + 1, step
                steps = self.epoch(number)
            if step >= done:
                yield round(number + (step - first + 1) / len(steps), 4), steps[step - first]
