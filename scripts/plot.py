"""Draw the report: one HTML page for people, with figures, that needs no network and no other file.

The folders above the files tell which run, benchmark, mixture and model they belong to.

Example:
  python scripts/plot.py --metrics results/evals/*/*/metrics.json --scores results/evals/*/*/scores.parquet \\
      --models results/models/* --stats results/pairs/*/stats.json --tokens results/tokens/*/*/manifest.json \\
      --pairs results/pairs/*/eval --output results/report.html
"""

from pathlib import Path

from rewardline.core.cli import StageParser, log, run
from rewardline.report.inputs import read_inputs
from rewardline.report.page import write_report
from rewardline.report.summary import verify_summary


def main(argv: list[str] | None = None) -> int:
    """Run the stage; 0 on success."""
    arguments = StageParser(__doc__)
    arguments.add_argument("--metrics", type=Path, nargs="+", required=True, help="metrics.json of each eval")
    arguments.add_argument("--scores", type=Path, nargs="*", default=[], help="scores.parquet of each eval")
    arguments.add_argument("--models", type=Path, nargs="*", default=[], help="folders of trained models")
    arguments.add_argument("--stats", type=Path, nargs="*", default=[], help="stats.json of each mixture")
    arguments.add_argument("--tokens", type=Path, nargs="*", default=[], help="manifest.json of each mixture and model")
    arguments.add_argument("--pairs", type=Path, nargs="*", default=[], help="folders of the pairs that were scored")
    arguments.add_argument("--audits", type=Path, nargs="*", default=[], help="audit.json of audits of labels")
    arguments.add_argument("--suspects", type=Path, help="suspects.parquet: pairs that may be mislabeled")
    arguments.add_argument("--comparisons", type=Path, help="comparisons.json: differences between runs")
    arguments.add_argument("--selections", type=Path, nargs="*", default=[], help="selection.json of each choice")
    arguments.add_argument("--scored", type=Path, nargs="*", default=[], help="manifest.json of scored and chosen rows")
    arguments.add_argument("--summary", type=Path, help="summary.tsv, which must be that of the metrics")
    arguments.add_argument("--output", type=Path, required=True, help="the page to write")
    options = arguments.start(argv)
    data = read_inputs(
        metrics=options.metrics,
        scores=options.scores,
        models=options.models,
        stats=options.stats,
        tokens=options.tokens,
        pairs=options.pairs,
        suspects=options.suspects,
        audits=options.audits,
        comparisons=options.comparisons,
        selections=options.selections,
        scored=options.scored,
    )
    if options.summary:
        verify_summary(data.results, [run.facts for run in data.runs], options.summary)
    write_report(data, options.output)
    log.info("%s: %.0f KB", options.output, options.output.stat().st_size / 1000)
    return 0


if __name__ == "__main__":
    run(main)
