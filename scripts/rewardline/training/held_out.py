"""Evaluation sets while training: their loss for early stopping, and the moments of scores for normalization.

All processes score it together: every process must call each function.
"""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F  # noqa: N812
from deepspeed import DeepSpeedEngine
from torch import Tensor

from rewardline.model.batch import Batch
from rewardline.model.normalization import Normalization, moments
from rewardline.tokens.store import TokenDataset
from rewardline.training.batching import MicroBatchLoader, Piece
from rewardline.training.loss import Sums, batch_loss, batch_sums, pair_losses
from rewardline.training.processes.collectives import sum_over_processes

FIT_PAIRS = 4096
"""Training pairs that weights of attributes are fitted on, about."""
NEWTON_STEPS, TOLERANCE, RIDGE = 25, 1e-9, 1e-4


def sample(data: TokenDataset, pairs: int) -> range:
    """The first comparisons with at least this many pairs or rated answers: their order is that of a hash of their
    prompt."""
    enough = int((data.example_counts.cumsum() < pairs).sum()) + 1
    return range(min(enough, len(data)))


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

    Logistic regression of the differences of the attributes between chosen and rejected, without an intercept, by
    Newton's method; a penalty of `RIDGE` times the sum of squares, for each pair, keeps the weights finite.
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
    penalty = RIDGE * float(sum_over_processes(weight.sum()))
    fitted = x.new_zeros(count)

    def loss(of: Tensor) -> float:
        z = x @ of
        total = sum_over_processes((weight * (F.softplus(-z) + (1 - target) * z)).sum())
        return float(total + penalty / 2 * of.square().sum())

    for _ in range(NEWTON_STEPS):
        probability = torch.sigmoid(x @ fitted)
        gradient = x.T @ (weight * (probability - target))
        curvature = (x * (weight * probability * (1 - probability))[:, None]).T @ x
        gradient, curvature = sum_over_processes(gradient), sum_over_processes(curvature)
        change = torch.linalg.solve(
            curvature + penalty * torch.eye(count, dtype=x.dtype, device=x.device), gradient + penalty * fitted
        )
        while change.abs().max() > TOLERANCE and loss(fitted - change) > loss(fitted):
            change = change / 2  # a full step may go too far where pairs are wrong by much
        fitted = fitted - change
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
