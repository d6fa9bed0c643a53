"""Calibration: reliability bins, expected calibration error, fitted temperature."""

import math

import numpy as np
from scipy.optimize import brentq

from rewardline.evaluation.metrics.intervals import Codes, Floats, accuracy
from rewardline.evaluation.results import Bin, Calibration

BINS = 10


def calibration(margins: Floats, correct: Floats, prompts: Codes) -> Calibration:
    """The calibration of score differences `margins` [n], in log odds, chosen minus rejected.

    A pair's confidence is the probability that the model gives to the answer it prefers, sigmoid(|margin|). `ece` is
    the expected calibration error over ten bins of equal width (Guo et al. 2017, arXiv 1706.04599). `temperature` is
    the T > 0 for which sigmoid(margin / T) has the least log loss; NaN where the loss has its infimum in a limit: T
    towards 0 where no pair is wrong, T towards infinity where the scores carry no information. `loss_at_temperature`
    and `ece_at_temperature` are then those of the limit.
    """
    inverse = inverse_temperature(margins)
    confidence = _confidence(margins)
    indices = _bin_indices(confidence)
    bins = []
    for index in range(BINS):
        rows = np.flatnonzero(indices == index)
        bins.append(
            Bin(
                low=round(0.5 + index / (2 * BINS), 6),
                high=round(0.5 + (index + 1) / (2 * BINS), 6),
                n=len(rows),
                confidence=float(confidence[rows].mean()) if len(rows) else math.nan,
                **accuracy(correct[rows], prompts[rows]),
            )
        )
    return Calibration(
        ece=_calibration_error(confidence, correct),
        temperature=1 / inverse if 0 < inverse < math.inf else math.nan,
        loss_at_temperature=log_loss(margins, inverse),
        ece_at_temperature=_calibration_error(_confidence(_scaled(margins, inverse)), correct),
        bins=bins,
    )


def log_loss(margins: Floats, inverse: float = 1.0) -> float:
    """The mean of log(1 + exp(-inverse * margin)), also for an infinite `inverse`."""
    return float(np.logaddexp(0.0, -_scaled(margins, inverse)).mean())


def inverse_temperature(margins: Floats) -> float:
    """The b >= 0 with the least mean of log(1 + exp(-b * margin)), a convex function: 0 and infinity are possible."""
    spread = float(np.abs(margins).max())
    if margins.mean() <= 0 or spread == 0:
        return 0.0
    if margins.min() >= 0:
        return math.inf
    scaled = margins / spread

    def slope(inverse: float) -> float:
        return -float((scaled / (1 + np.exp(np.minimum(inverse * scaled, 700.0)))).mean())

    high = 1.0
    while slope(high) < 0:
        high *= 2
    return float(brentq(slope, 0.0, high, xtol=1e-15 * high)) / spread


def _scaled(margins: Floats, inverse: float) -> Floats:
    """`inverse` * margin, 0 where that is 0 * infinity."""
    return np.multiply(inverse, margins, where=margins != 0, out=np.zeros_like(margins))


def _confidence(margins: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-np.abs(margins)))
    return result


def _bin_indices(confidence: Floats) -> Codes:
    return np.minimum((confidence - 0.5) * 2 * BINS, BINS - 1).astype(np.int8)


def _calibration_error(confidence: Floats, correct: Floats) -> float:
    """The mean distance of accuracy from confidence over bins, by number of pairs."""
    gaps = np.bincount(_bin_indices(confidence), weights=confidence - correct, minlength=BINS)
    return float(np.abs(gaps).sum() / len(correct))
