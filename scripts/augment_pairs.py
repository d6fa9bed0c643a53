"""Make a mixture with further training pairs of another one: answers of other prompts, or hacks, as rejected answers.

    python scripts/augment_pairs.py --name robust --settings '{"augment": "main", "other_prompts": 0.2}' \\
        --pairs results/pairs/main --prompts results/shards/prompts/main \\
        --shard results/shards/pairs/robust/0 --output results/pairs/robust

Writes what build_probes.py writes of a benchmark.
"""

from functools import partial
from pathlib import Path

from rewardline.core.artifacts import MANIFEST, artifact_key, input_hashes
from rewardline.core.cli import StageParser, run
from rewardline.data.pairs.derived import augmentation
from rewardline.data.pairs.derived.writer import build_once
from rewardline.data.pairs.manifests import STATISTICS
from rewardline.data.pairs.settings import AugmentSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, AugmentSettings)
    options.add_argument("--name", required=True, help="name of the mixture")
    options.add_argument("--pairs", required=True, type=Path, help="folder of the pairs of the mixture to augment")
    options.add_argument("--prompts", required=True, type=Path, help="folder of its compared prompts")
    options.add_argument("--shard", required=True, type=Path, help="folder to write the pairs to for tokenizing")
    options.add_argument("--output", required=True, type=Path, help="folder to write pairs and statistics to")
    args = options.start(argv)
    read, packages = input_hashes([args.pairs / STATISTICS, args.prompts / MANIFEST]), ("numpy", "pyarrow")
    key = artifact_key(args.settings, {"files": read, "name": args.name}, Path(augmentation.__file__), packages)
    build = partial(augmentation.build, args.name, args.settings, args.pairs, args.prompts)
    build_once(args.shard, args.output, key, build)
    return 0


if __name__ == "__main__":
    run(main)
