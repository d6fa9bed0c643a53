"""Compare runs on each benchmark, and list the pairs whose labels most of them contradict.

Writes the paired difference of every two runs and the mean over the seeds of each, with intervals, to a JSON file, and
the pairs whose labels are most likely wrong, with their texts, to a Parquet file.

Example:
  python scripts/compare.py --metrics results/evals/*/*/metrics.json --scores results/evals/*/*/scores.parquet \\
      --pairs results/pairs/*/eval --stats results/pairs/*/stats.json \\
      --output results/comparisons.json --suspects results/suspects.parquet
"""

from pathlib import Path

from rewardline.core.cli import StageParser, run
from rewardline.evaluation.compare import compare_runs


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__)
    options.add_argument("--metrics", type=Path, nargs="+", required=True, help="metrics.json of each evaluation")
    options.add_argument("--scores", type=Path, nargs="+", required=True, help="scores.parquet of each evaluation")
    options.add_argument("--pairs", type=Path, nargs="+", required=True, help="folders of the pairs that were scored")
    options.add_argument("--stats", type=Path, nargs="*", default=[], help="stats.json of the pairs")
    options.add_argument(
        "--models", type=Path, nargs="*", default=[], help="run.json of the models: for learning curves"
    )
    options.add_argument("--output", type=Path, required=True, help="the comparisons to write, JSON")
    options.add_argument("--suspects", type=Path, required=True, help="the suspects to write, Parquet")
    args = options.start(argv)
    compare_runs(args.metrics, args.scores, args.pairs, args.stats, args.models, args.output, args.suspects)
    return 0


if __name__ == "__main__":
    run(main)
