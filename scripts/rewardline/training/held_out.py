"""Evaluation sets while training: their loss for early stopping, and the moments of scores for normalization.

All processes score it together: every process must call each function.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from deepspeed import DeepSpeedEngine
from torch import Tensor

from rewardline.data.pairs.identity import chooses
from rewardline.data.schema import hash_texts
from rewardline.model.batch import Batch
from rewardline.model.normalization import Normalization, moments
from rewardline.tokens.store import TokenDataset
from rewardline.training.batching import MicroBatchLoader, Piece
from rewardline.training.loss import Sums, batch_loss, batch_sums, fit_logistic, pair_losses
from rewardline.training.processes.collectives import sum_over_processes

FIT_PAIRS = 4096
"""Training pairs that weights of attributes are fitted on, about."""
RIDGE = 1e-4


def sample(data: TokenDataset, pairs: int, share: float = 1.0) -> Sequence[int]:
    """The first comparisons with at least this many pairs or rated answers: their order is that of a hash of their
    prompt.

    `share`: that of the prompts which choose runs, to which it is limited; all count where none of them chooses.
    """
    indices = choosing(data, share) if share < 1 else []
    indices = indices or list(range(len(data)))
    enough = int((data.example_counts[indices].cumsum() < pairs).sum()) + 1
    return indices[:enough]


def choosing(data: TokenDataset, share: float) -> list[int]:
    """The comparisons of the `share` of the prompts that chooses runs."""
    found: list[int] = np.flatnonzero(chooses(hash_texts(data.prompt_ids), share)).tolist()
    return found


def evaluate(engine: DeepSpeedEngine, loader: MicroBatchLoader, comparisons: Iterable[int]) -> Sums:
    """Sums over the pairs of some comparisons, whose loss is pairwise, and over their single answers with ratings."""
    sums = torch.zeros(len(Sums._fields), dtype=torch.float64, device=loader.device)
    for output, batch in _outputs(engine, loader, comparisons):
        scores = output[:, 0] if output.ndim > 1 else output
        losses = batch_loss(pair_losses(scores, batch), output, batch, loader.targets)
        sums += batch_sums(scores, losses, batch)
    return Sums(*sum_over_processes(sums).tolist())


def score_moments(engine: DeepSpeedEngine, loader: MicroBatchLoader) -> Normalization:
    """Mean and standard deviation of the scores of all answers."""
    sums = torch.zeros(3, dtype=torch.float64, device=loader.device)
    for output, _ in _outputs(engine, loader, range(len(loader.data))):
        wide = (output[:, 0] if output.ndim > 1 else output).double()
        sums += torch.stack([torch.ones_like(wide).sum(), wide.sum(), wide.square().sum()])
    return moments(*sum_over_processes(sums).tolist())


def fit_weights(engine: DeepSpeedEngine, loader: MicroBatchLoader, comparisons: Iterable[int]) -> list[float]:
    """The weights of the attributes whose sum tells best which answers of some pairs are chosen.

    Logistic regression of the differences of the attributes between chosen and rejected, see `fit_logistic`.
    """
    differences, weights, confidences = [], [], []
    for output, batch in _outputs(engine, loader, comparisons):
        differences.append((output[batch.chosen, 1:] - output[batch.rejected, 1:]).double())
        weights.append(batch.weight.double())
        confidences.append(batch.confidence.double())
    count = len(loader.targets.names) if loader.targets else 0
    none = torch.zeros(0, dtype=torch.float64, device=loader.device)
    x = torch.cat([none.new_zeros(0, count), *differences])
    weight, target = torch.cat([none, *weights]), torch.cat([none, *confidences])
    fitted = fit_logistic(x, weight, target, RIDGE, sum_over_processes)
    result: list[float] = fitted.tolist()
    return result


def _outputs(
    engine: DeepSpeedEngine, loader: MicroBatchLoader, comparisons: Iterable[int]
) -> Iterator[tuple[Tensor, Batch]]:
    """This process's part of the outputs for some comparisons, scores and attributes, without gradients."""
    pieces = [Piece(index, 0, int(loader.data.example_counts[index])) for index in comparisons]
    engine.eval()
    with torch.no_grad():
        for batch, is_real in loader.load(pieces):
            output = engine(batch) if loader.targets is None else engine(batch, True)
            if is_real:
                yield output, batch
    engine.train()
