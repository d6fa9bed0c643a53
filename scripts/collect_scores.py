"""Collect the scores of a dataset's rows from their shards.

    python scripts/collect_scores.py --settings '{"name": "candidates", "run": "first"}' \\
        --data results/data/candidates/manifest.json --shards results/shards/scored/candidates/*/manifest.json \\
        --output results/scores/candidates

Writes `scores.parquet`, all rows with their columns and scores, `best.parquet`, the best answer to each prompt,
`rejects.parquet`, what has no score or gives no pair, and `manifest.json`; with `pairs` in the settings also
`pairs.parquet`, pairs for the next round of training, none of them of a prompt of --benchmarks or --held-out.
"""

from functools import partial
from pathlib import Path

from rewardline.core.artifacts import artifact_key, input_hashes, make_folder
from rewardline.core.cli import StageParser, run
from rewardline.scoring import collect
from rewardline.scoring.stage_settings import CollectSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, CollectSettings)
    options.add_argument("--data", required=True, type=Path, help="manifest.json of the rows, by download.py")
    options.add_argument(
        "--shards", required=True, nargs="+", type=Path, help="manifest.json by score_rows.py, in order"
    )
    options.add_argument("--benchmarks", action="append", default=[], type=Path, help="manifest.json of candidates")
    options.add_argument(
        "--held-out",
        action="append",
        default=[],
        type=Path,
        help="stats.json of the pairs whose eval split is held out",
    )
    options.add_argument("--output", required=True, type=Path, help="folder to make")
    args = options.start(argv)
    held_out = [path.parent / "eval" for path in args.held_out]
    inputs = {name: input_hashes(getattr(args, name)) for name in ("shards", "benchmarks")}
    inputs["data"] = input_hashes([args.data, *args.held_out])
    key = artifact_key(args.settings, inputs, Path(collect.__file__), ("numpy", "pyarrow", "scipy"))
    make = partial(collect.collect, args.settings, args.data, args.shards, args.benchmarks, held_out)
    make_folder(args.output, key, make)
    return 0


if __name__ == "__main__":
    run(main)
