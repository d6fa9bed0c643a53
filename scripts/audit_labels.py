"""Say of each training label how probable it is that it is wrong, from the scores of models that never saw its prompt.

    python scripts/audit_labels.py \\
        --settings '{"audit": "a", "mixture": "main", "run": "first", "min_agreement": 0.64}' \\
        --scores results/evals/a-fold*/eval/scores.parquet --pairs results/pairs/main --output results/audits/a
"""

from pathlib import Path

from rewardline.core.cli import StageParser, run
from rewardline.evaluation.labels.audits import audit_labels
from rewardline.evaluation.settings import AuditSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, AuditSettings)
    options.add_argument("--scores", required=True, type=Path, nargs="+", help="scores.parquet of each fold, in order")
    options.add_argument("--pairs", required=True, type=Path, help="folder of the mixture's pairs")
    options.add_argument("--output", required=True, type=Path, help="folder to make")
    args = options.start(argv)
    audit_labels(args.settings, args.scores, args.pairs / "train", args.output)
    return 0


if __name__ == "__main__":
    run(main)
