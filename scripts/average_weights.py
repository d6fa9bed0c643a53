"""Make one plain model whose weights are the mean of those of several training runs.

    python scripts/average_weights.py --settings '{"run": "warm", "average": ["a-seed0", "a-seed1"], ...}' \\
        --models results/models/a-seed0/run.json results/models/a-seed1/run.json --output results/models/warm

Give --tokens, those of the mixture, for members with `normalize`: the scores of the mean are normalized anew.
"""

from pathlib import Path

from rewardline.core import runtime
from rewardline.core.cli import StageParser, run
from rewardline.evaluation.settings import AverageSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, AverageSettings)
    options.add_argument("--models", required=True, type=Path, nargs="+", help="run.json of each member, in order")
    options.add_argument("--tokens", type=Path, help="folder of tokens on whose eval split scores are normalized")
    options.add_argument("--output", required=True, type=Path, help="folder to make")
    args = options.start(argv)
    runtime.prepare(0, args.settings.threads)
    from rewardline.evaluation.ensembles.average import average_weights  # only now, as torch reads the environment

    average_weights(args.settings, [path.parent for path in args.models], args.tokens, args.output)
    return 0


if __name__ == "__main__":
    run(main)
