"""Join the shards of a mixture's pairs, and account for every row.

    python scripts/build_pairs.py --name main --settings @settings.json --data results/data/*/manifest.json \\
        --candidates results/shards/candidates/*/*/manifest.json \\
        --prompts results/shards/prompts/main/manifest.json --shards results/shards/pairs/main/*/manifest.json \\
        --output results/pairs/main

Writes `train/` and `eval/` with Parquet parts clustered by prompt, `rejects.parquet` with each row or pair that was
left out, and `stats.json`. It comes after convert_rows.py for each dataset, group_prompts.py, and clean_pairs.py for
each shard.
"""

from functools import partial
from pathlib import Path

from rewardline.core.artifacts import artifact_key, input_hashes, make_folder
from rewardline.core.cli import StageParser, run
from rewardline.data.pairs import mixture
from rewardline.data.pairs.manifests import STATISTICS
from rewardline.data.pairs.settings import PairsSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, PairsSettings)
    options.add_argument("--name", required=True, help="name of the mixture or benchmark")
    options.add_argument("--data", nargs="+", required=True, type=Path, help="manifest.json of each dataset")
    options.add_argument("--candidates", required=True, nargs="+", type=Path, help="manifest.json of all candidates")
    options.add_argument("--prompts", required=True, type=Path, help="manifest.json of the compared prompts")
    options.add_argument("--shards", required=True, nargs="+", type=Path, help="manifest.json of each shard, in order")
    options.add_argument("--output", required=True, type=Path, help="folder to write the pairs to")
    args = options.start(argv)
    read = [*args.data, args.prompts, *args.candidates, *args.shards]
    inputs = {"manifests": input_hashes(read), "name": args.name}
    key = artifact_key(args.settings, inputs, Path(mixture.__file__), ("numpy", "pyarrow"))
    build = partial(mixture.build, args.name, args.settings, args.data, args.candidates, args.prompts, args.shards)
    make_folder(args.output, key, build, STATISTICS, linked=args.shards)
    return 0


if __name__ == "__main__":
    run(main)
