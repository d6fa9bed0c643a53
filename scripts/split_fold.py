"""Make a fold of an audit: a part of a mixture's training pairs to score, and all others to train on.

    python scripts/split_fold.py --name a-fold0 --settings '{"audit": "a", "number": 0, "folds": 4}' \\
        --pairs results/pairs/main --prompts results/shards/prompts/main \\
        --shard results/shards/pairs/a-fold0/0 --output results/pairs/a-fold0

Writes what build_probes.py writes of a benchmark.
"""

from functools import partial
from pathlib import Path

from rewardline.core.artifacts import MANIFEST, artifact_key, input_hashes
from rewardline.core.cli import StageParser, run
from rewardline.data.pairs.derived import folds
from rewardline.data.pairs.derived.writer import build_once
from rewardline.data.pairs.manifests import STATISTICS
from rewardline.data.pairs.settings import FoldSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, FoldSettings)
    options.add_argument("--name", required=True, help="name of the fold")
    options.add_argument("--pairs", required=True, type=Path, help="folder of the audited mixture's pairs")
    options.add_argument("--prompts", required=True, type=Path, help="folder of its compared prompts")
    options.add_argument("--shard", required=True, type=Path, help="folder to write the pairs to for tokenizing")
    options.add_argument("--output", required=True, type=Path, help="folder to write pairs and statistics to")
    args = options.start(argv)
    read = input_hashes([args.pairs / STATISTICS, args.prompts / MANIFEST])
    key = artifact_key(args.settings, {"files": read, "name": args.name}, Path(folds.__file__), ("numpy", "pyarrow"))
    build = partial(folds.build, args.name, args.settings, args.pairs, args.prompts)
    build_once(args.shard, args.output, key, build)
    return 0


if __name__ == "__main__":
    run(main)
