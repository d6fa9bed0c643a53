"""Runs that are less accurate than `fail_below` allows, and `gate.json`, the limits that all runs keep."""

import logging
from collections.abc import Sequence
from pathlib import Path

from pydantic import RootModel

from rewardline.core.errors import UserError
from rewardline.evaluation.results import Accuracy, Count, Name, ResultFile, read_results

log = logging.getLogger(__name__)


class AccuracyLimits(RootModel[dict[str, dict[str, float]]]):
    """The least accuracy allowed, by run id and benchmark."""


class LimitCheck(Accuracy):
    """The accuracy of a run on a benchmark beside its limit. An accuracy that is unknown passes no limit."""

    run: Name
    benchmark: Name
    n: Count
    limit: float
    passed: bool

    def __str__(self) -> str:
        """A sentence for people; it mentions when more pairs might reverse the check."""
        interval = f"95% interval {self.accuracy_low:.1%} to {self.accuracy_high:.1%}, {self.n} pairs"
        word = "not below" if self.passed else "below"
        text = f"{self.run} on {self.benchmark}: accuracy {self.accuracy:.1%} ({interval}), {word} {self.limit:.1%}"
        if self.accuracy_low < self.limit < self.accuracy_high:
            text += "; the interval holds the limit, so that more pairs may tell otherwise"
        return text


class GateFile(ResultFile):
    """The content of `gate.json`."""

    content = "checks of limits"
    stage = "gate"

    verdicts: list[LimitCheck]


def check_limits(limits: AccuracyLimits, metrics: Sequence[Path], output: Path) -> None:
    """Compare accuracies with their limits; write the checks to `output` if all pass.

    Raises:
        UserError: a run is less accurate than its limit.
    """
    results = {(one.run, one.benchmark): one for one in read_results(metrics)}
    checks = []
    for run, by_benchmark in limits.root.items():
        for benchmark, limit in by_benchmark.items():
            one = results[run, benchmark]
            passed = {"limit": limit, "passed": one.accuracy >= limit}
            checks.append(LimitCheck.model_validate({**one.as_json(), **passed}))
            log.info("%s", checks[-1])
    failed = [one for one in checks if not one.passed]
    if failed:
        raise UserError(
            "fail_below is not met:\n"
            + "\n".join(f"  {one}" for one in failed)
            + "\nAll results are there to read, in results/report.html too."
        )
    GateFile(verdicts=checks).write(output)
