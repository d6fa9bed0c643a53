"""The eval split while training: its loss for early stopping, and the moments of its scores for normalisation."""

from collections.abc import Iterator

import torch
from deepspeed import DeepSpeedEngine
from torch import Tensor

from rewardline.model.batch import Batch
from rewardline.model.normalization import Normalization, moments
from rewardline.training.batching import MicroBatchLoader, Piece
from rewardline.training.loss import Sums, batch_sums, pair_losses
from rewardline.training.processes.collectives import sum_over_processes

EVAL_PAIRS = 512
"""Pairs of the eval split that are scored during training: the first, whose order is that of a hash of their prompt."""


class HeldOutSplit:
    """The eval split, scored by all processes together; every process must call each method."""

    def __init__(self, engine: DeepSpeedEngine, loader: MicroBatchLoader) -> None:
        self._engine, self._loader = engine, loader

    @property
    def pairs(self) -> int:
        """Number of its pairs."""
        return self._loader.data.pairs

    def evaluate(self) -> Sums:
        """Sums over the first pairs, whose loss is pairwise whatever the objective."""
        counts = self._loader.data.pair_counts
        enough = int((counts.cumsum() < EVAL_PAIRS).sum()) + 1
        sums = torch.zeros(len(Sums._fields), dtype=torch.float64, device=self._loader.device)
        for scores, batch in self._scores(counts[:enough].tolist()):
            sums += batch_sums(scores, pair_losses(scores, batch), batch)
        return Sums(*sum_over_processes(sums).tolist())

    def score_moments(self) -> Normalization:
        """Mean and standard deviation of the scores of all answers."""
        sums = torch.zeros(3, dtype=torch.float64, device=self._loader.device)
        for scores, _ in self._scores(self._loader.data.pair_counts.tolist()):
            wide = scores.double()
            sums += torch.stack([torch.ones_like(wide).sum(), wide.sum(), wide.square().sum()])
        return moments(*sum_over_processes(sums).tolist())

    def _scores(self, pair_counts: list[int]) -> Iterator[tuple[Tensor, Batch]]:
        """This process's part of the scores of the first comparisons, without gradients."""
        pieces = [Piece(index, 0, count) for index, count in enumerate(pair_counts)]
        self._engine.eval()
        with torch.no_grad():
            for batch, is_real in self._loader.load(pieces):
                scores = self._engine(batch)
                if is_real:
                    yield scores, batch
        self._engine.train()
