"""`comparisons.json`: the paired differences between runs, and their seeds together. Imports nothing slow."""

import math
from typing import Literal

from pydantic import Field, computed_field

from rewardline.evaluation.results import NAN, Count, Number, Result, ResultFile


class Difference(Result):
    """The accuracy of `first` minus that of `second` on the `n` pairs that both scored, with its interval.

    All intervals of a benchmark hold together with 95%. Both are runs with all their seeds, as many as `seeds` says.
    With one seed each, without `seeds`, the interval is that of these weights: how far another seed would move the
    difference is unknown.
    """

    first: str
    second: str
    n: Count
    difference: Number
    low: Number
    high: Number
    seeds: list[Count] = Field([])

    @computed_field  # type: ignore[prop-decorator]  # as pydantic documents it for mypy
    @property
    def within_noise(self) -> bool:
        """Whether the interval holds 0."""
        return not (self.low > 0 or self.high < 0)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def compares(self) -> Literal["weights", "recipes"]:
        """What the interval is about: these weights, or the recipes whatever the seed."""
        return "recipes" if self.seeds else "weights"

    @property
    def known(self) -> bool:
        """Whether the difference and its interval are finite numbers."""
        return math.isfinite(self.difference + self.low + self.high)

    @property
    def flipped(self) -> "Difference":
        """The second minus the first."""
        swapped = {"first": self.second, "second": self.first, "difference": -self.difference}
        return self.model_copy(update={**swapped, "low": -self.high, "high": -self.low})


class Family(Result):
    """The mean accuracy over the seeds of a run, and the standard deviation between them, NaN for one seed.

    `low` and `high` are the 95% interval of the mean for other prompts and other seeds; for one seed, of these weights.
    """

    name: str
    runs: list[str]
    mean: Number
    std: Number
    low: Number = NAN
    high: Number = NAN


class BenchmarkComparison(Result):
    """The runs of a leaderboard, every two compared; `mixture` is None for a benchmark, which all mixtures share.

    `left_out`: those beyond the best ones, which were not compared. `wrong_labels`: how many labels are estimated to be
    wrong; NaN where none is in doubt.
    """

    benchmark: str
    mixture: str | None
    differences: list[Difference]
    families: list[Family] = Field([])
    left_out: list[str] = Field([])
    wrong_labels: Number = NAN


class CurvePoint(Result):
    """The `value` of runs on a number of training `pairs`, a mean over seeds, with its 95% interval."""

    fraction: Number
    pairs: Count
    runs: list[str]
    value: Number
    low: Number
    high: Number


class LearningCurve(Result):
    """A value against the number of training pairs, and its power law `floor + scale * pairs^-exponent`.

    `metric` is `error` (1 - accuracy) or `loss`. `gain`: by how much doubling the largest number of pairs is expected
    to lower it, with its 95% interval; see `learning_curves`.
    """

    name: str
    benchmark: str
    mixture: str
    metric: Literal["error", "loss"]
    points: list[CurvePoint]
    exponent: Number
    exponent_low: Number
    exponent_high: Number
    scale: Number
    floor: Number
    gain: Number
    gain_low: Number
    gain_high: Number

    def at(self, pairs: float) -> float:
        """The value of the law."""
        return float(self.floor + self.scale * pairs**-self.exponent)

    def sentence(self) -> str:
        """What doubling the data is expected to bring, in words."""
        last = self.points[-1].pairs
        doubled = self.at(2 * last)
        gain, low, high = self.gain, self.gain_low, self.gain_high
        if gain < 0:
            gain, low, high = -gain, -high, -low
        verb = "raise" if (self.metric == "error") == (self.gain >= 0) else "lower"
        what = f"{verb} accuracy on {self.benchmark} by {100 * gain:.1f} points"
        bounds, reached = (f"{100 * low:.1f} to {100 * high:.1f}", f"{100 * (1 - doubled):.1f}%")
        if self.metric == "loss":
            what = f"{verb} the loss on {self.benchmark} by {gain:.3f}"
            bounds, reached = f"{low:.3f} to {high:.3f}", f"{doubled:.3f}"
        if low <= 0:
            what += ", which may be nothing"
        return (
            f"{self.name}: doubling the data, from {last:,} to {2 * last:,} pairs, is expected to {what}"
            f" (95% interval {bounds}), to {reached}, if the curve keeps this shape."
        )


class ComparisonsFile(ResultFile):
    """The content of `comparisons.json`."""

    content = "comparisons of runs"
    stage = "compare"

    boards: list[BenchmarkComparison]
    curves: list[LearningCurve] = Field([])
