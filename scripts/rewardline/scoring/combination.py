"""The scores of an ensemble from those of its members, one member in memory at a time."""

import numpy as np
import numpy.typing as npt

from rewardline.scoring.settings import CombineSettings

Floats = npt.NDArray[np.float64]


class Combination:
    """Standardized scores of members, added up (Coste et al. 2023, arXiv 2310.02743)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """`shape`: that of the scores of each member."""
        self._count = 0
        self._total, self._squares, self._worst = np.zeros(shape), np.zeros(shape), np.full(shape, np.inf)

    def add(self, scores: Floats) -> None:
        """Add those of a member: float64 [shape]."""
        self._count += 1
        self._total += scores
        self._squares += scores**2
        np.minimum(self._worst, scores, out=self._worst)

    @property
    def mean(self) -> Floats:
        """The mean over members."""
        return self._total / self._count

    @property
    def variance(self) -> Floats:
        """The variance between members, of which the ensemble is all there are."""
        return np.maximum(self._squares / self._count - self.mean**2, 0.0)

    def combined(self, settings: CombineSettings) -> Floats:
        """The `mean`, the `worst` (least), or the mean minus `variance_weight` times the variance."""
        if settings.combine == "worst":
            return self._worst
        if settings.combine == "mean_minus_variance":
            return self.mean - settings.variance_weight * self.variance
        return self.mean
