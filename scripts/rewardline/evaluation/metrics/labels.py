"""How probable it is that a label is wrong, given by how far a model contradicts it."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, xlogy

from rewardline.evaluation.metrics.intervals import Floats

_LEAST, _MOST = 1e-4, 0.49


def wrong_labels(margins: Floats) -> tuple[Floats, float]:
    """The probability that each label is wrong, float64 [n], and the estimated share of wrong labels.

    `margins` [n]: score of the chosen answer minus that of the rejected one, in units of their root mean square. A
    label is wrong with a probability p, whatever the pair (symmetric noise: Angluin and Laird 1988). The model is right
    about a pair with the probability sigmoid(b |margin|). The p and b with the greatest likelihood of the margins'
    signs are used: of the pairs that the model is surest about it contradicts the share p. Mistakes of a model that is
    sure count as wrong labels.
    """
    sizes, contradicts = np.abs(margins), (margins < 0).astype(np.float64)
    if not len(margins):
        return np.zeros(0), 0.0

    def loss(values: npt.NDArray[np.float64]) -> float:
        share = _contradicted(expit(np.exp(values[1]) * sizes), float(values[0]))
        return -float(np.mean(xlogy(contradicts, share) + xlogy(1 - contradicts, 1 - share)))

    bounds = [(_LEAST, _MOST), (-4.0, 4.0)]
    starts = [(share, slope) for share in (0.02, 0.2) for slope in (0.0, 1.5)]
    best = min((minimize(loss, start, bounds=bounds) for start in starts), key=lambda found: float(found.fun))
    share, right = float(best.x[0]), expit(np.exp(best.x[1]) * sizes)
    contradicted = _contradicted(right, share)
    wrong = np.where(contradicts, share * right / contradicted, share * (1 - right) / (1 - contradicted))
    return wrong, share


def _contradicted(right: Floats, share: float) -> Floats:
    return share * right + (1 - share) * (1 - right)
