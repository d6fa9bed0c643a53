"""Join the tokenized shards of a mixture.

    python scripts/join_tokens.py --shards results/shards/tokens/main/opt-350m/*/manifest.json \\
        --output results/tokens/main/opt-350m

Writes `train-*.arrow`, `eval-*.arrow`, `rejects.parquet` and `manifest.json`. Nothing is done if shards and code are
unchanged.
"""

from functools import partial
from pathlib import Path

from pydantic import JsonValue

from rewardline.core.artifacts import artifact_key, make_folder
from rewardline.core.cli import StageParser, run
from rewardline.core.settings import Settings
from rewardline.tokens import join
from rewardline.tokens.store import TokenManifest


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__)
    options.add_argument("--shards", required=True, nargs="+", type=Path, help="manifest.json of each shard, in order")
    options.add_argument("--output", required=True, type=Path, help="folder to write the tokens to")
    args = options.start(argv)
    shards: list[JsonValue] = []
    for manifest in map(TokenManifest.read, args.shards):
        shards.append({**manifest.as_json(), "seconds": None, "sha256": dict(manifest.sha256)})
    key = artifact_key(Settings(), {"shards": shards}, Path(join.__file__), ("pyarrow",))
    make_folder(args.output, key, partial(join.join, [path.parent for path in args.shards], args.output))
    return 0


if __name__ == "__main__":
    run(main)
