"""The training objective and what is logged of it, in float32 whatever the model's dtype."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from rewardline.batches import Batch


def pair_losses(
    scores: Tensor, batch: Batch, *, label_smoothing: float = 0.0, margin: bool = False, centering: float = 0.0
) -> Tensor:
    """The loss of every pair, not yet weighted: float32 [P] from `scores` float32 [S].

    Pairwise logistic (Bradley-Terry) loss -log sigmoid(chosen - rejected - margin). `label_smoothing` e mixes in the
    loss of the opposite label with weight e. `centering` c adds c * (chosen + rejected)^2 (Eisenstein et al. 2023,
    arXiv 2312.09244), which keeps the mean score near 0.
    """
    chosen, rejected = scores[batch.chosen], scores[batch.rejected]
    difference = chosen - rejected
    if margin:
        difference = difference - batch.margin
    losses = F.softplus(-difference)
    if label_smoothing:
        losses = (1 - label_smoothing) * losses + label_smoothing * F.softplus(difference)
    if centering:
        losses = losses + centering * (chosen + rejected).square()
    return losses


def pair_sums(scores: Tensor, losses: Tensor, batch: Batch) -> Tensor:
    """Sums over the batch's pairs, float64 [6]: weight, weighted loss, correct (ties half), chosen, rejected, pairs."""
    chosen, rejected = scores[batch.chosen].detach(), scores[batch.rejected].detach()
    correct = (chosen > rejected).double() + 0.5 * (chosen == rejected).double()
    count = torch.tensor(float(len(chosen)), dtype=torch.float64, device=scores.device)
    columns = [
        batch.weight.double().sum(),
        (losses.detach() * batch.weight).double().sum(),
        correct.sum(),
        chosen.double().sum(),
        rejected.double().sum(),
        count,
    ]
    return torch.stack(columns)
