"""Tokenise a shard of a mixture's pairs into Arrow files.

    python scripts/tokenize_pairs.py --settings @settings.json --pairs results/shards/pairs/main/0 \\
        --base results/base/opt-350m --output results/shards/tokens/main/opt-350m/0 --threads 4

All pairs of a prompt become one comparison. Leaves `train-*.arrow`, `eval-*.arrow`, `rejects.parquet` with the pairs
that cannot be compared as tokens, and `manifest.json`.
"""

import os
from pathlib import Path

from rewardline.core.cli import StageParser, log, run
from rewardline.core.files import atomic_folder, write_json
from rewardline.tokens.settings import TokenizeSettings
from rewardline.tokens.tokenize_pairs import tokenize


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, TokenizeSettings)
    options.add_argument("--pairs", required=True, type=Path, help="folder of a shard of pairs")
    options.add_argument("--base", required=True, type=Path, help="folder of the base model")
    options.add_argument("--output", required=True, type=Path, help="folder to leave the tokens in")
    options.add_argument("--threads", type=int, default=1)
    args = options.start(argv)
    os.environ.update(RAYON_NUM_THREADS=str(args.threads), TOKENIZERS_PARALLELISM=str(args.threads > 1).lower())
    with atomic_folder(args.output) as out:
        manifest = tokenize(args.settings, args.pairs, args.base, out)
        write_json(out / "manifest.json", manifest)
    tokens = sum(entry["tokens"] for entry in manifest["splits"].values())
    cut, dropped = manifest["truncated_pairs"], manifest["dropped"] or "none"
    log.info("%d tokens; prompts cut for %d pairs; dropped %s", tokens, cut, dropped)
    return 0


if __name__ == "__main__":
    run(main)
