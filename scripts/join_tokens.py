"""Put the tokenised shards of a mixture together.

    python scripts/join_tokens.py --shards results/shards/tokens/main/opt-350m/*/manifest.json \\
        --output results/tokens/main/opt-350m

Leaves `train-*.arrow`, `eval-*.arrow`, `rejects.parquet` and `manifest.json`.
"""

from pathlib import Path

from rewardline.core.cli import StageParser, log, run
from rewardline.core.files import atomic_folder, write_json
from rewardline.tokens.join import join


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__)
    options.add_argument("--shards", required=True, nargs="+", type=Path, help="manifest.json of each shard, in order")
    options.add_argument("--output", required=True, type=Path, help="folder to leave the tokens in")
    args = options.start(argv)
    with atomic_folder(args.output) as out:
        manifest = join(args.shards, out, args.output)
        write_json(out / "manifest.json", manifest)
    tokens = sum(entry["tokens"] for entry in manifest["splits"].values())
    cut, dropped = manifest["truncated_pairs"], manifest["dropped"] or "none"
    log.info("%d tokens; prompts cut for %d pairs; dropped %s", tokens, cut, dropped)
    return 0


if __name__ == "__main__":
    run(main)
