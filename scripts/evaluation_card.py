"""Write what a run scored on all its benchmarks into the folder of its model, as Markdown.

Example:
  python scripts/evaluation_card.py --metrics results/evals/first/*/metrics.json \\
      --output results/models/first/EVALUATION.md
"""

from pathlib import Path

from rewardline.core.cli import StageParser, log, run
from rewardline.core.files import atomic_file
from rewardline.report.evaluation_card import evaluation_card


def main(argv: list[str] | None = None) -> int:
    """Run the stage; 0 on success."""
    arguments = StageParser(__doc__)
    arguments.add_argument(
        "--metrics", type=Path, nargs="+", required=True, help="metrics.json of each eval of the run"
    )
    arguments.add_argument("--output", type=Path, required=True, help="the card to write")
    options = arguments.start(argv)
    card = evaluation_card(options.metrics)
    with atomic_file(options.output) as partial:
        partial.write_text(card, encoding="utf-8")
    log.info("%s: %d benchmarks", options.output, len(options.metrics))
    return 0


if __name__ == "__main__":
    run(main)
