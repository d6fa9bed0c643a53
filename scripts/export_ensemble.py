"""Make the folder of an ensemble, which `score.py` and `serve.py` take in place of a model.

    python scripts/export_ensemble.py --settings '{"run": "committee", "combine": "mean", ...}' \\
        --models results/models/first/run.json results/models/second/run.json \\
        --metrics results/evals/committee/eval/metrics.json --output results/models/committee

It has all files of the members (weights are linked), and `ensemble.json`: how their scores are combined.
"""

from pathlib import Path

from rewardline.core.cli import StageParser, run
from rewardline.evaluation.ensembles.export import export_ensemble
from rewardline.evaluation.settings import EnsembleSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, EnsembleSettings)
    options.add_argument("--models", required=True, type=Path, nargs="+", help="run.json of each member, in order")
    options.add_argument("--metrics", required=True, type=Path, help="metrics.json of the ensemble")
    options.add_argument("--output", required=True, type=Path, help="folder to make")
    args = options.start(argv)
    export_ensemble(args.settings, [path.parent for path in args.models], args.metrics, args.output)
    return 0


if __name__ == "__main__":
    run(main)
