"""`comparisons.json`: the paired differences between runs, and the spread between seeds. Imports nothing slow."""

import math

from pydantic import Field, computed_field

from rewardline.evaluation.results import Count, Number, Result, ResultFile


class Difference(Result):
    """The accuracy of `first` minus that of `second` on the `n` pairs that both scored, with its 95% interval.

    Both are runs; or families of seeds, whose numbers of seeds are `seeds`: the interval is then wider by the spread
    between seeds.
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
    """The mean accuracy over the seeds of a run, and their standard deviation, NaN for one seed."""

    name: str
    runs: list[str]
    mean: Number
    std: Number


class BenchmarkComparison(Result):
    """The runs of a leaderboard compared; `mixture` is None for a benchmark, which all mixtures share.

    `left_out`: the runs beyond the best ones, which were not compared.
    """

    benchmark: str
    mixture: str | None
    differences: list[Difference]
    families: list[Family] = Field([])
    left_out: list[str] = Field([])


class ComparisonsFile(ResultFile):
    """The content of `comparisons.json`."""

    content = "comparisons of runs"
    stage = "compare"

    boards: list[BenchmarkComparison]
