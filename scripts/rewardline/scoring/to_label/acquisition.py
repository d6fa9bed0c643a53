"""How much the label of a pair would teach, from the probability of each model that its first answer is better.

Both are functions of probabilities alone, so that models with different tokenizers, heads and scales of scores can be
members: the difference of two scores in log odds is the margin of the Bradley-Terry model.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from rewardline.scoring.stage_settings import Criterion

Floats = npt.NDArray[np.float64]


def probabilities(margins: Floats) -> Floats:
    """The probability of margins in log odds, of any shape."""
    return 0.5 * (1.0 + np.tanh(0.5 * margins))


def disagreement(members: Floats) -> Floats:
    """The information in nats that a label gives on which member is right: float64 [n] from [members, n].

    BALD (Houlsby et al. 2011, arXiv 1112.5745): the entropy of the mean probability minus the mean entropy. 0 if all
    members agree, however unsure they are, as about a label that is noise; at most log 2.
    """
    found: Floats = np.maximum(_entropy(members.mean(axis=0)) - _entropy(members).mean(axis=0), 0.0)
    return found


def uncertainty(members: Floats) -> Floats:
    """p(1 - p) of the mean probability p: float64 [n] from [members, n]; at most 1/4.

    The expected squared change of the loss by the margin, over the label that the model itself expects (expected
    gradient length: Settles, Craven and Ray 2007). It ranks pairs as uncertainty sampling does (Lewis and Gale 1994,
    cmp-lg/9407020), and cannot tell what a model does not know from what is a matter of taste.
    """
    mean: Floats = members.mean(axis=0)
    return mean * (1.0 - mean)


CRITERIA: Final[dict[Criterion, Callable[[Floats], Floats]]] = {
    "disagreement": disagreement,
    "uncertainty": uncertainty,
}


def _entropy(shares: Floats) -> Floats:
    found: Floats = np.zeros_like(shares)
    for each in (shares, 1.0 - shares):
        found -= each * np.log(np.where(each > 0, each, 1.0))
    return found
