"""Put the evals of all runs into one table.

The table is tab-separated, with a row per run and benchmark: `run mixture model seed benchmark n accuracy accuracy_low
accuracy_high chosen_mean rejected_mean length_accuracy loss`, and the settings that differ between the runs under their
keys, such as `training.learning_rate`. Rates are shares from 0 to 1. The table of `--runs` has a row per training run,
also for those whose training has diverged, which the other one leaves out.

Example:
  python scripts/summarize.py --metrics results/evals/*/*/metrics.json --models results/models/*/run.json \\
      --output results/summary.tsv --runs results/runs.tsv
"""

from pathlib import Path

from rewardline.core.cli import StageParser, log, run
from rewardline.core.errors import UserError
from rewardline.evaluation.results import left_out_lines, read_all_results
from rewardline.report.summary import write_runs, write_summary
from rewardline.training.records.run_facts import RunFacts


def main(argv: list[str] | None = None) -> int:
    """Run the stage; 0 on success."""
    arguments = StageParser(__doc__)
    arguments.add_argument("--metrics", type=Path, nargs="+", required=True, help="metrics.json of each eval")
    arguments.add_argument("--models", type=Path, nargs="*", default=[], help="run.json of each trained model")
    arguments.add_argument("--runs", type=Path, help="the table of training runs to write")
    arguments.add_argument("--output", type=Path, required=True, help="the table to write")
    options = arguments.start(argv)
    results, left_out = read_all_results(options.metrics)
    if left_out and not results:
        raise UserError("no run has a result: " + "; ".join(left_out_lines(left_out)))
    runs = sorted(map(RunFacts.read, options.models), key=lambda run: run.run)
    write_summary(results, runs, options.output)
    if options.runs:
        write_runs(results, runs, options.runs)
    log.info("%s: %d evals of %d runs", options.output, len(results), len({one.run for one in results}))
    return 0


if __name__ == "__main__":
    run(main)
