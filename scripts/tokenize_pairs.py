"""Tokenize a shard of a mixture's pairs into Arrow files.

    python scripts/tokenize_pairs.py --settings @settings.json --pairs results/shards/pairs/main/0 \\
        --base results/base/opt-350m --output results/shards/tokens/main/opt-350m/0 --threads 4

All pairs of a prompt become one comparison. Writes `train-*.arrow`, `eval-*.arrow`, `rejects.parquet` with the pairs
that cannot be compared as tokens, and `manifest.json`. Nothing is computed if settings, inputs and code are unchanged.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rewardline.core.artifacts import MANIFEST, artifact_key, input_hashes, make_folder
from rewardline.core.cli import StageParser, run
from rewardline.tokens.base_manifest import BaseManifest
from rewardline.tokens.settings import TokenizeSettings
from rewardline.tokens.without_torch import hide_torch

if TYPE_CHECKING:
    from rewardline.tokens.store import TokenManifest

MODULE = Path(__file__).parent / "rewardline" / "tokens" / "tokenize_pairs.py"
PACKAGES = ("jinja2", "numpy", "pyarrow", "tokenizers", "transformers")


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, TokenizeSettings)
    options.add_argument("--pairs", required=True, type=Path, help="folder of a shard of pairs")
    options.add_argument("--base", required=True, type=Path, help="folder of the base model")
    options.add_argument("--output", required=True, type=Path, help="folder to write the tokens to")
    options.add_argument("--threads", type=int, default=1)
    args = options.start(argv)
    # Tokens depend on all files of the base model but its weights.
    base = BaseManifest.read(args.base / MANIFEST).without_weights()
    inputs = {"pairs": input_hashes([args.pairs / MANIFEST]), "base": base}

    def build(out: Path) -> "TokenManifest":
        threads = {"RAYON_NUM_THREADS": str(args.threads), "TOKENIZERS_PARALLELISM": str(args.threads > 1).lower()}
        os.environ.update(threads)
        if not args.settings.trust_remote_code:
            hide_torch()
        from rewardline.tokens.tokenize_pairs import tokenize  # takes a second

        return tokenize(args.settings, args.pairs, args.base, out)

    make_folder(args.output, artifact_key(args.settings, inputs, MODULE, PACKAGES), build)
    return 0


if __name__ == "__main__":
    run(main)
