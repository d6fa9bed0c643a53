"""Evaluate an ensemble of runs on a benchmark, from the scores of its members.

    python scripts/evaluate_ensemble.py --settings '{"run": "committee", "combine": "mean", ...}' \\
        --members results/evals/first/eval results/evals/second/eval --output results/evals/committee/eval
"""

from pathlib import Path

from rewardline.core.cli import StageParser, run
from rewardline.evaluation.ensembles.evaluate import evaluate_ensemble
from rewardline.evaluation.settings import EnsembleSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, EnsembleSettings)
    options.add_argument("--members", required=True, type=Path, nargs="+", help="folders of the members' evaluations")
    options.add_argument("--output", required=True, type=Path, help="folder to write scores and metrics to")
    options.add_argument("--first", type=Path, help="metrics.json of the benchmark by which all are standardized")
    args = options.start(argv)
    evaluate_ensemble(args.settings, args.members, args.output, args.first)
    return 0


if __name__ == "__main__":
    run(main)
