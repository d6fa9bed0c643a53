"""Make a mixture of an audited one: labels that are probably wrong are dropped, flipped or softened.

    python scripts/relabel_pairs.py --name clean --settings '{"audit": "a", "action": "drop", "below": 0.5}' \\
        --pairs results/pairs/main --labels results/audits/a/labels.parquet \\
        --shard results/shards/pairs/clean/0 --output results/pairs/clean

Writes what build_probes.py writes of a benchmark, and `audited.parquet` with all pairs that are left out or changed.
"""

from functools import partial
from pathlib import Path

from rewardline.core.artifacts import artifact_key, input_hashes
from rewardline.core.cli import StageParser, run
from rewardline.data.pairs.derived import relabeling
from rewardline.data.pairs.derived.writer import build_once
from rewardline.data.pairs.manifests import STATISTICS
from rewardline.data.pairs.settings import RelabelSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, RelabelSettings)
    options.add_argument("--name", required=True, help="name of the mixture")
    options.add_argument("--pairs", required=True, type=Path, help="folder of the audited mixture's pairs")
    options.add_argument("--labels", required=True, type=Path, help="labels.parquet of the audit")
    options.add_argument("--shard", required=True, type=Path, help="folder to write the pairs to for tokenizing")
    options.add_argument("--output", required=True, type=Path, help="folder to write pairs and statistics to")
    args = options.start(argv)
    read = input_hashes([args.pairs / STATISTICS, args.labels])
    key = artifact_key(args.settings, {"files": read, "name": args.name}, Path(relabeling.__file__), ("pyarrow",))
    build = partial(relabeling.build, args.name, args.settings, args.pairs, args.labels)
    build_once(args.shard, args.output, key, build)
    return 0


if __name__ == "__main__":
    run(main)
