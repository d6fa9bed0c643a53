"""Put the evals of all runs into one table.

The table is tab-separated, with a row per run and benchmark: `run mixture model seed benchmark n accuracy accuracy_low
accuracy_high chosen_mean rejected_mean length_accuracy loss`. Rates are shares from 0 to 1.

Example:
  python scripts/summarize.py --metrics results/evals/*/*/metrics.json --output results/summary.tsv
"""

from pathlib import Path

from rewardline.core.cli import StageParser, log, run
from rewardline.evaluation.results import read_results
from rewardline.report.summary import write_summary


def main(argv: list[str] | None = None) -> int:
    """Run the stage; 0 on success."""
    arguments = StageParser(__doc__)
    arguments.add_argument("--metrics", type=Path, nargs="+", required=True, help="metrics.json of each eval")
    arguments.add_argument("--output", type=Path, required=True, help="the table to write")
    options = arguments.start(argv)
    results = read_results(options.metrics)
    write_summary(results, options.output)
    log.info("%s: %d evals of %d runs", options.output, len(results), len({one.run for one in results}))
    return 0


if __name__ == "__main__":
    run(main)
