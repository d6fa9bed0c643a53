"""Fail when a run is less accurate on a benchmark than its `fail_below` asks for.

    python scripts/gate.py --settings '{"demo-seed0": {"eval": 0.9}}' --output results/gate.json \\
        --metrics results/evals/demo-seed0/eval/metrics.json

Leaves what was asked for and what was found, if all of it holds. It runs after the report, which is there to read when
it does not.
"""

from pathlib import Path
from typing import Any

from rewardline.core.cli import log, parser, run, settings_argument, start_logging
from rewardline.core.errors import UserError
from rewardline.core.files import write_json
from rewardline.evaluation.results import Evaluation, read_metrics

Json = dict[str, Any]


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


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = parser(__doc__)
    options.add_argument("--settings", required=True, help="limits by run and benchmark as JSON, or @FILE")
    options.add_argument("--metrics", type=Path, nargs="+", required=True, help="metrics.json of each of them")
    options.add_argument("--output", type=Path, required=True, help="file to leave")
    args = options.parse_args(argv)
    start_logging(args.log)
    limits = settings_argument(args.settings)
    found = {(one.run, one.benchmark): one for one in read_metrics(args.metrics)}
    wanted = [(name, benchmark, limit) for name, own in limits.items() for benchmark, limit in own.items()]
    verdicts = [verdict(found[name, benchmark], limit) for name, benchmark, limit in wanted]
    for one in verdicts:
        log.info("%s", sentence(one))
    failed = [one for one in verdicts if not one["passed"]]
    if failed:
        raise UserError(
            "fail_below is not met:\n"
            + "\n".join(f"  {sentence(one)}" for one in failed)
            + "\nAll results are there to read, in results/report.html too."
        )
    write_json(args.output, {"verdicts": verdicts})
    return 0


if __name__ == "__main__":
    run(main)
