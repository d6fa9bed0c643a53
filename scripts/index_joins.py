"""Index the rows of the datasets that a dataset joins, by their ids.

    python scripts/index_joins.py --settings '{"join": {"answer_id": {"dataset": "answers", "key": "id"}}}' \\
        --data results/data/answers/manifest.json --output results/shards/joins/reviews

Writes `index.sqlite` (see rewardline/data/formats/joins.py), which every job that converts a part of the dataset reads,
and `manifest.json` with the counts of rows, by joined dataset.
"""

from functools import partial
from pathlib import Path

from rewardline.core.artifacts import artifact_key, input_hashes, make_folder
from rewardline.core.cli import StageParser, run
from rewardline.data.formats import joins
from rewardline.data.formats.settings import JoinIndexSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, JoinIndexSettings)
    options.add_argument("--data", required=True, nargs="+", type=Path, help="manifest.json of each joined dataset")
    options.add_argument("--output", required=True, type=Path, help="folder to make")
    args = options.start(argv)
    key = artifact_key(args.settings, {"data": input_hashes(args.data)}, Path(joins.__file__), ("pyarrow",))
    make_folder(args.output, key, partial(joins.index_joins, args.settings, args.data))
    return 0


if __name__ == "__main__":
    run(main)
