"""Score a shard of the rows of a dataset: prompts with answers, as score.py reads them.

    python scripts/score_rows.py --settings '{"name": "candidates", "shard": 0, "shards": 4}' \\
        --data results/data/candidates/manifest.json --model results/models/first \\
        --parts results/shards/scored/candidates/parts --output results/shards/scored/candidates/0

The scores do not depend on the number of shards. Killed at any time, the same command resumes after the last part that
it has scored; where nothing that scores depend on has changed, nothing is scored again.
"""

from pathlib import Path

from rewardline.core import runtime
from rewardline.core.cli import StageParser, run
from rewardline.core.gpus import reserved_gpus
from rewardline.scoring.row_shards import score_rows
from rewardline.scoring.stage_settings import RowsSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, RowsSettings)
    options.add_argument("--data", required=True, type=Path, help="manifest.json of the rows, by download.py")
    options.add_argument("--model", required=True, type=Path, help="folder of a trained model")
    options.add_argument("--parts", required=True, type=Path, help="folder to keep scores in, the same for all shards")
    options.add_argument("--output", required=True, type=Path, help="folder to make")
    options.add_argument("--batch-tokens", type=int, default=8192, help="most tokens computed at once")
    options.add_argument("--gpus", type=int, default=0)
    options.add_argument("--processes", type=int, default=0, help="that hold the model, as of score.py")
    args = options.start(argv)
    with reserved_gpus(args.gpus):
        runtime.prepare(args.gpus, args.settings.threads)
        score_rows(args.settings, args.data, args.model, args.parts, args.batch_tokens, args.processes, args.output)
    return 0


if __name__ == "__main__":
    run(main)
