"""Compare runs on each benchmark, and list the pairs whose labels most of them contradict.

Leaves the paired difference of every two runs with its 95% interval, and mean and spread over seeds, in a JSON file;
and the pairs most likely mislabelled, with their texts, in a Parquet file.

Example:
  python scripts/compare.py --metrics results/evals/*/*/metrics.json --pairs results/pairs/*/eval \\
      --output results/comparisons.json --suspects results/suspects.parquet
"""

from pathlib import Path

from rewardline.core.cli import StageParser, run
from rewardline.evaluation.compare import compare_runs


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__)
    options.add_argument("--metrics", type=Path, nargs="+", required=True, help="metrics.json of each evaluation")
    options.add_argument("--pairs", type=Path, nargs="+", required=True, help="folders of the pairs that were scored")
    options.add_argument("--output", type=Path, required=True, help="the comparisons to write, JSON")
    options.add_argument("--suspects", type=Path, required=True, help="the suspects to write, Parquet")
    args = options.start(argv)
    compare_runs(args.metrics, args.pairs, args.output, args.suspects)
    return 0


if __name__ == "__main__":
    run(main)
