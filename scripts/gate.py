"""Fail when a run is less accurate on a benchmark than its `fail_below` asks for.

    python scripts/gate.py --settings '{"demo-seed0": {"eval": 0.9}}' --output results/gate.json \\
        --metrics results/evals/demo-seed0/eval/metrics.json

Writes each accuracy beside its limit, if all limits hold. It runs after the report, which is there to read when they do
not.
"""

from pathlib import Path

from rewardline.core.cli import StageParser, run
from rewardline.evaluation.gate import AccuracyLimits, check_limits


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, AccuracyLimits)
    options.add_argument("--metrics", type=Path, nargs="+", required=True, help="metrics.json of each of them")
    options.add_argument("--output", type=Path, required=True, help="file to write")
    args = options.start(argv)
    check_limits(args.settings, args.metrics, args.output)
    return 0


if __name__ == "__main__":
    run(main)
