"""Accuracies compared with the limits of `fail_below`, and `gate.json`, which is written if all are met."""

import logging
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from pydantic import RootModel

from rewardline.core.errors import UserError
from rewardline.evaluation.results import Accuracy, Count, Name, ResultFile, read_all_results

log = logging.getLogger(__name__)


class AccuracyLimits(RootModel[dict[str, dict[str, float]]]):
    """The least accuracy allowed, by run id and benchmark."""


class LimitCheck(Accuracy):
    """The accuracy of a run on a benchmark and its limit. An unknown accuracy passes no limit."""

    run: Name
    benchmark: Name
    n: Count
    diverged: str | None = None
    limit: float
    passed: bool

    def __str__(self) -> str:
        """A sentence; it mentions that more pairs may change the outcome."""
        if self.diverged is not None:
            return f"{self.run} on {self.benchmark}: no accuracy, as its training has diverged ({self.diverged})"
        interval = f"95% interval {self.accuracy_low:.1%} to {self.accuracy_high:.1%}, {self.n} pairs"
        word = "not below" if self.passed else "below"
        text = f"{self.run} on {self.benchmark}: accuracy {self.accuracy:.1%} ({interval}), {word} {self.limit:.1%}"
        if self.accuracy_low < self.limit < self.accuracy_high:
            text += "; the limit is inside the interval, so that more pairs may change the outcome"
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
    results = {(result.run, result.benchmark): result for result in chain(*read_all_results(metrics))}
    checks = []
    for run, by_benchmark in limits.root.items():
        for benchmark, limit in by_benchmark.items():
            result = results[run, benchmark]
            if result.eliminated_at is not None:
                log.info("%s on %s: not checked, as it is eliminated", run, benchmark)
                continue
            outcome = {"limit": limit, "passed": result.accuracy >= limit}
            checks.append(LimitCheck.model_validate({**result.as_json(), **outcome}))
            log.info("%s", checks[-1])
    if failed := [f"  {check}\n" for check in checks if not check.passed]:
        raise UserError(f"fail_below is not met:\n{''.join(failed)}All results are in results/report.html.")
    GateFile(verdicts=checks).write(output)
