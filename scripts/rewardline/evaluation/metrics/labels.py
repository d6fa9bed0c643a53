"""How probable it is that a label is wrong, given by how far a model contradicts it.

A label is taken to be wrong with a probability p, whatever the pair (symmetric noise: Angluin and Laird 1988), and the
model to be right about a pair with the probability sigmoid(b |margin|), so that it contradicts the share p of the pairs
that it is surest about. Margins alone cannot tell these wrong labels from mistakes of a model that is sure.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, xlogy

from rewardline.evaluation.metrics.intervals import Codes, Floats, accuracy

SURE = 2.706
"""The 90% quantile of chi-squared with one degree of freedom: a bound of its likelihood ratio holds with 95%."""
FALL = -3.09
"""The 0.1% quantile of the normal distribution."""
_LEAST, _MOST = 1e-4, 0.49
_SLOPES = (-4.0, 4.0)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What models say of n labels: `probability` that each is wrong, float64 [n].

    `share` of wrong labels: an estimate; `share_low`: its lower 95% bound, from which the probabilities follow.
    `agreement`, with a 95% interval (`agreement_low`, `agreement_high`): the share of labels that the models agree
    with, ties counted half. `unjudged`: why no label is judged, if so; shares and probabilities are then NaN.
    """

    probability: Floats
    share: float
    share_low: float
    agreement: float
    agreement_low: float
    agreement_high: float
    unjudged: str = ""


def judge(margins: Floats, prompts: Codes, min_agreement: float) -> Judgement:
    """Judge labels by held-out margins [n], in units of their root mean square; `prompts` [n] numbers their prompts.

    No label is judged unless the agreement is clearly above `min_agreement`, and is held where the models are surest.
    As p, the probabilities have the least share of wrong labels that the margins do not rule out (the lower bound of
    the profile likelihood): models that never become sure leave it open, and then no label is in doubt.
    """
    agrees = (np.sign(margins) + 1) / 2
    agreement, low, high = accuracy(agrees, prompts).values()
    unjudged = ""
    if not low > min_agreement:
        unjudged = (
            f"the models agree with {agreement:.1%} of the labels (95% interval {low:.1%} to {high:.1%}), which is not "
            f"clearly more than {min_agreement:.0%}"
        )
    elif _falls(margins, agrees):
        unjudged = "the models agree with fewer labels the surer they are, among the surest quarter"
    if unjudged:
        return Judgement(np.full(len(margins), math.nan), math.nan, math.nan, agreement, low, high, unjudged)
    curve = _Curve(margins)
    share, slope = curve.fit()
    least = curve.lower_bound(share, slope)
    return Judgement(curve.wrong(least, curve.slope(least)), share, least, agreement, low, high)


def wrong_labels(margins: Floats) -> tuple[Floats, float]:
    """The probability that each label is wrong, float64 [n], and the estimated share of wrong labels.

    `margins` [n]: score of the chosen answer minus that of the rejected one, in units of their root mean square. The p
    and b with the greatest likelihood of the margins' signs are used, whatever the model is worth: for people who look
    at the labels. `judge` is for what is done without them.
    """
    if not len(margins):
        return np.zeros(0), 0.0
    curve = _Curve(margins)
    share, slope = curve.fit()
    return curve.wrong(share, slope), share


class _Curve:
    """The likelihood of which labels are contradicted, by the share p of wrong labels and `slope`, log b."""

    def __init__(self, margins: Floats) -> None:
        self._sizes, self._contradicts = np.abs(margins), (margins < 0).astype(np.float64)

    def loss(self, share: float, slope: float) -> float:
        """The negative logarithm of the likelihood, a mean over the labels."""
        rate = _contradicted(self._right(slope), share)
        return -float(np.mean(xlogy(self._contradicts, rate) + xlogy(1 - self._contradicts, 1 - rate)))

    def fit(self) -> tuple[float, float]:
        """The share and slope with the greatest likelihood."""

        def loss(values: npt.NDArray[np.float64]) -> float:
            return self.loss(float(values[0]), float(values[1]))

        starts = [(share, slope) for share in (0.02, 0.2) for slope in (0.0, 1.5)]
        bounds = [(_LEAST, _MOST), _SLOPES]
        best = min((minimize(loss, start, bounds=bounds) for start in starts), key=lambda found: float(found.fun))
        return float(best.x[0]), float(best.x[1])

    def slope(self, share: float) -> float:
        """The slope with the greatest likelihood for a share."""
        return float(minimize_scalar(lambda slope: self.loss(share, slope), bounds=_SLOPES, method="bounded").x)

    def lower_bound(self, share: float, slope: float) -> float:
        """The lower 95% bound of the share, given those with the greatest likelihood, up to 0.0005."""
        most = self.loss(share, slope) + SURE / 2 / len(self._sizes)
        low, high = 0.0, share
        while high - low > 5e-4:
            middle = (low + high) / 2
            excluded = self.loss(middle, self.slope(middle)) > most
            low, high = (middle, high) if excluded else (low, middle)
        return low

    def wrong(self, share: float, slope: float) -> Floats:
        """The probability that each label is wrong, by Bayes' rule."""
        right = self._right(slope)
        rate = _contradicted(right, share)
        return np.where(self._contradicts, share * right / rate, share * (1 - right) / (1 - rate))

    def _right(self, slope: float) -> Floats:
        # A model is never entirely sure, so that each label has a likelihood even if none is wrong.
        right: Floats = np.minimum(expit(np.exp(slope) * self._sizes), 1 - _LEAST)
        return right


def _contradicted(right: Floats, share: float) -> Floats:
    return share * right + (1 - share) * (1 - right)


def _falls(margins: Floats, agrees: Floats) -> bool:
    """Whether agreement falls with |margin| among the surest quarter: a test for trend (Armitage 1955) by rank."""
    surest = agrees[np.argsort(np.abs(margins), kind="stable")[-(len(margins) // 4) :]]
    if surest.min(initial=1.0) == surest.max(initial=0.0) or len(surest) < 2:
        return False
    ranks = np.arange(len(surest), dtype=np.float64)
    return float(np.corrcoef(ranks, surest)[0, 1]) * math.sqrt(len(surest)) < FALL
