"""Join the tokenized shards of a mixture.

    python scripts/join_tokens.py --settings '{"max_reject_fraction": 0.2}' --stats results/pairs/main/stats.json \\
        --shards results/shards/tokens/main/opt-350m/*/manifest.json --output results/tokens/main/opt-350m

Writes `train-*.arrow`, `eval-*.arrow`, `rejects.parquet` and `manifest.json`, unless more of a dataset was lost,
from its rows to the tokens of its pairs, than the settings allow. Nothing is done if shards and code are unchanged.
"""

from functools import partial
from pathlib import Path

from pydantic import JsonValue

from rewardline.core.artifacts import artifact_key, make_folder
from rewardline.core.cli import StageParser, run
from rewardline.core.settings import JsonObject, Settings
from rewardline.data.pairs.left_out import PairsAccount
from rewardline.tokens import join
from rewardline.tokens.settings import JoinTokensSettings
from rewardline.tokens.store import TokenManifest


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, JoinTokensSettings)
    options.add_argument("--stats", required=True, type=Path, help="stats.json of the mixture's pairs")
    options.add_argument("--shards", required=True, nargs="+", type=Path, help="manifest.json of each shard, in order")
    options.add_argument("--output", required=True, type=Path, help="folder to write the tokens to")
    args = options.start(argv)
    shards: list[JsonValue] = []
    for manifest in map(TokenManifest.read, args.shards):
        shards.append({**manifest.as_json(), "seconds": None, "xxh3": dict(manifest.xxh3)})
    folders = [path.parent for path in args.shards]
    join.check_losses(folders, PairsAccount.read(args.stats), args.settings.max_reject_fraction)
    inputs: JsonObject = {"shards": shards, **({"reads_names": True} if args.settings.reads_names else {})}
    key = artifact_key(Settings(), inputs, Path(join.__file__), ("pyarrow",))
    make_folder(
        args.output, key, partial(join.join, folders, args.output, args.settings.reads_names), linked=args.shards
    )
    return 0


if __name__ == "__main__":
    run(main)
