"""Convert the rows of a dataset, or of one part of it, to candidate pairs.

    python scripts/convert_rows.py --name hh --settings @settings.json --data results/data/hh/manifest.json \\
        --output results/shards/candidates/hh/all

Writes the candidates, sorted by prompt (see rewardline/data/pairs/candidates.py), `rejects.parquet` with each row that
gives none, and `manifest.json` with the counts. The index of joins is that of `index_joins.py`. With `--dataset`, what
numbers as labels mean is decided by the first rows of all files of the dataset.
"""

from functools import partial
from pathlib import Path

from rewardline.core.artifacts import artifact_key, input_hashes, make_folder
from rewardline.core.cli import StageParser, run
from rewardline.core.hashing import canonical, digest
from rewardline.data import convert
from rewardline.data.formats.settings import ConvertSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, ConvertSettings)
    options.add_argument("--name", required=True, help="name of the dataset")
    options.add_argument("--data", required=True, type=Path, help="manifest.json of the downloaded rows")
    options.add_argument("--dataset", type=Path, help="manifest.json of all its rows, where --data is one file of it")
    options.add_argument("--join-index", type=Path, help="manifest.json of the index of the dataset's joins")
    options.add_argument("--tables", nargs="*", default=[], type=Path, help="manifest.json of each joined dataset")
    options.add_argument("--output", required=True, type=Path, help="folder to make")
    args = options.start(argv)
    joined = [args.join_index] if args.join_index else args.tables
    numbered = convert.read_numbered(args.settings, args.dataset) if args.dataset else []
    hashes = {
        "data": input_hashes([args.data]),
        "joined": input_hashes(joined),
        "numbered": digest(canonical(numbered)),
    }
    inputs = {**hashes, "name": args.name}
    packages = ("numpy", "orjson", "pyarrow", "rensa", "xxhash")
    key = artifact_key(args.settings, inputs, Path(convert.__file__), packages)
    make = partial(convert.convert, args.name, args.settings, args.data, args.join_index, args.tables, numbered)
    make_folder(args.output, key, make)
    return 0


if __name__ == "__main__":
    run(main)
