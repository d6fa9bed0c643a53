"""Evaluation sets while training: their loss for early stopping, and the moments of scores for normalization.

All processes score it together: every process must call each function.
"""

from collections.abc import Iterable, Iterator

import torch
from deepspeed import DeepSpeedEngine
from torch import Tensor

from rewardline.model.batch import Batch
from rewardline.model.normalization import Normalization, moments
from rewardline.tokens.store import TokenDataset
from rewardline.training.batching import MicroBatchLoader, Piece
from rewardline.training.loss import Sums, batch_sums, pair_losses
from rewardline.training.processes.collectives import sum_over_processes


def sample(data: TokenDataset, pairs: int) -> range:
    """The first comparisons with at least this many pairs: their order is that of a hash of their prompt."""
    enough = int((data.pair_counts.cumsum() < pairs).sum()) + 1
    return range(min(enough, len(data)))


def evaluate(engine: DeepSpeedEngine, loader: MicroBatchLoader, comparisons: Iterable[int]) -> Sums:
    """Sums over the pairs of some comparisons, whose loss is pairwise whatever the objective."""
    sums = torch.zeros(len(Sums._fields), dtype=torch.float64, device=loader.device)
    for scores, batch in _scores(engine, loader, comparisons):
        sums += batch_sums(scores, pair_losses(scores, batch), batch)
    return Sums(*sum_over_processes(sums).tolist())


def score_moments(engine: DeepSpeedEngine, loader: MicroBatchLoader) -> Normalization:
    """Mean and standard deviation of the scores of all answers."""
    sums = torch.zeros(3, dtype=torch.float64, device=loader.device)
    for scores, _ in _scores(engine, loader, range(len(loader.data))):
        wide = scores.double()
        sums += torch.stack([torch.ones_like(wide).sum(), wide.sum(), wide.square().sum()])
    return moments(*sum_over_processes(sums).tolist())


def _scores(
    engine: DeepSpeedEngine, loader: MicroBatchLoader, comparisons: Iterable[int]
) -> Iterator[tuple[Tensor, Batch]]:
    """This process's part of the scores of some comparisons, without gradients."""
    pieces = [Piece(index, 0, int(loader.data.pair_counts[index])) for index in comparisons]
    engine.eval()
    with torch.no_grad():
        for batch, is_real in loader.load(pieces):
            scores = engine(batch)
            if is_real:
                yield scores, batch
    engine.train()
