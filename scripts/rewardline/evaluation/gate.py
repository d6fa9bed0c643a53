"""Runs that are less accurate than `fail_below` asks for."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import RootModel

from rewardline.core.errors import UserError
from rewardline.core.files import write_json
from rewardline.evaluation.results import Evaluation, read_metrics

log = logging.getLogger(__name__)
Json = dict[str, Any]


class Limits(RootModel[dict[str, dict[str, float]]]):
    """The least accuracy that is asked for, by run id and benchmark."""


def verdict(found: Evaluation, limit: float) -> Json:
    """What was asked for and what was found. An accuracy that is not known passes no limit."""
    rates = found.total
    return {
        "run": found.run,
        "benchmark": found.benchmark,
        "accuracy": rates.accuracy,
        "accuracy_low": rates.low,
        "accuracy_high": rates.high,
        "n": rates.n,
        "limit": limit,
        "passed": rates.accuracy >= limit,
    }


def sentence(one: Json) -> str:
    """A verdict for people; it says when the pairs are too few to tell."""
    interval = f"95% interval {one['accuracy_low']:.1%} to {one['accuracy_high']:.1%}, {one['n']} pairs"
    word = "not below" if one["passed"] else "below"
    text = f"{one['run']} on {one['benchmark']}: accuracy {one['accuracy']:.1%} ({interval}), {word} {one['limit']:.1%}"
    if one["accuracy_low"] < one["limit"] < one["accuracy_high"]:
        text += "; the interval holds the limit, so that more pairs may tell otherwise"
    return text


def check_limits(limits: Limits, metrics: Sequence[Path], output: Path) -> None:
    """Compare accuracies with their limits; leave what was found in `output` if all hold.

    Raises:
        UserError: a run is less accurate than asked for.
    """
    found = {(one.run, one.benchmark): one for one in read_metrics(metrics)}
    asked = [(name, benchmark, limit) for name, own in limits.root.items() for benchmark, limit in own.items()]
    verdicts = [verdict(found[name, benchmark], limit) for name, benchmark, limit in asked]
    for one in verdicts:
        log.info("%s", sentence(one))
    failed = [one for one in verdicts if not one["passed"]]
    if failed:
        raise UserError(
            "fail_below is not met:\n"
            + "\n".join(f"  {sentence(one)}" for one in failed)
            + "\nAll results are there to read, in results/report.html too."
        )
    write_json(output, {"verdicts": verdicts})
