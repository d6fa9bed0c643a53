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


class ComparisonsFile(ResultFile):
    """The content of `comparisons.json`."""

    content = "comparisons of runs"
    stage = "compare"

    boards: list[BenchmarkComparison]
