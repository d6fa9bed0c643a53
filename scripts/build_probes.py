"""Make probes of held-out pairs: the real answer against hacks of it that a model must not prefer.

    python scripts/build_probes.py --name probes --settings '{"mixture": "main", "prompts": 100, "seed": 0}' \\
        --pairs results/pairs/main --shard results/shards/pairs/probes/0 --output results/pairs/probes

Leaves what build_pairs.py and clean_pairs.py leave of a benchmark: `--output` with `eval/`, `rejects.parquet` and
`stats.json`, `--shard` with the same pairs for tokenize_pairs.py.
"""

from pathlib import Path

from rewardline.core.cli import StageParser, log, run
from rewardline.core.files import atomic_folder, write_json
from rewardline.data.pairs.build_probes import build
from rewardline.data.pairs.settings import ProbeSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, ProbeSettings)
    options.add_argument("--name", required=True, help="name of the benchmark")
    options.add_argument("--pairs", required=True, type=Path, help="folder of the mixture's pairs")
    options.add_argument("--shard", required=True, type=Path, help="folder to leave the pairs in for tokenising")
    options.add_argument("--output", required=True, type=Path, help="folder to leave pairs and statistics in")
    args = options.start(argv)
    with atomic_folder(args.shard) as shard, atomic_folder(args.output) as out:
        stats = build(args.name, args.settings, args.pairs, shard, out)
        write_json(out / "stats.json", stats)
    log.info("%s: %d probes of %d held-out prompts", args.name, stats["eval"], stats["rows_in"])
    return 0


if __name__ == "__main__":
    run(main)
