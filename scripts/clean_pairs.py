"""Clean a shard of a mixture's pairs: deduplicate, split by prompt, sample, and record what is left out.

    python scripts/clean_pairs.py --settings @settings.json --prompts results/shards/prompts/main/manifest.json \\
        --candidates results/shards/candidates/*/*/manifest.json --output results/shards/pairs/main/0

A shard is a range of prompt ids: number `shard` (from 0) of `shards` in the settings. Writes `train/` and `eval/` with
Parquet parts clustered by prompt, `rejects.parquet`, `rows.npy` (the outcome of each row) and `manifest.json`.
"""

from functools import partial
from pathlib import Path

from rewardline.core.artifacts import artifact_key, input_hashes, make_folder
from rewardline.core.cli import StageParser, run
from rewardline.data.pairs import cleaning
from rewardline.data.pairs.settings import CleanSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, CleanSettings)
    options.add_argument("--prompts", required=True, type=Path, help="manifest.json of the compared prompts")
    options.add_argument("--candidates", required=True, nargs="+", type=Path, help="manifest.json of all candidates")
    options.add_argument("--output", required=True, type=Path, help="folder to make")
    args = options.start(argv)
    inputs = {"prompts": input_hashes([args.prompts, *args.candidates])}
    packages = ("numpy", "orjson", "pyarrow", "rensa", "xxhash")
    key = artifact_key(args.settings, inputs, Path(cleaning.__file__), packages)
    make_folder(args.output, key, partial(cleaning.clean_shard, args.settings, args.prompts, args.candidates))
    return 0


if __name__ == "__main__":
    run(main)
