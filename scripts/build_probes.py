"""Make probes of held-out pairs: the real answer against hacks of it that a model must not prefer.

    python scripts/build_probes.py --name probes --settings '{"mixture": "main", "prompts": 100, "seed": 0}' \\
        --pairs results/pairs/main --shard results/shards/pairs/probes/0 --output results/pairs/probes

Writes what build_pairs.py and clean_pairs.py write of a benchmark: to `--output` `eval/`, `rejects.parquet` and
`stats.json`, to `--shard` the same pairs for tokenize_pairs.py.
"""

from functools import partial
from pathlib import Path

from rewardline.core.artifacts import artifact_key, input_hashes
from rewardline.core.cli import StageParser, run
from rewardline.data.pairs.derived import build_probes
from rewardline.data.pairs.derived.writer import build_once
from rewardline.data.pairs.manifests import STATISTICS
from rewardline.data.pairs.settings import ProbeSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, ProbeSettings)
    options.add_argument("--name", required=True, help="name of the benchmark")
    options.add_argument("--pairs", required=True, type=Path, help="folder of the mixture's pairs")
    options.add_argument("--shard", required=True, type=Path, help="folder to write the pairs to for tokenizing")
    options.add_argument("--output", required=True, type=Path, help="folder to write pairs and statistics to")
    args = options.start(argv)
    inputs = {"pairs": input_hashes([args.pairs / STATISTICS]), "name": args.name}
    key = artifact_key(args.settings, inputs, Path(build_probes.__file__), ("pyarrow",))
    build = partial(build_probes.build, args.name, args.settings, args.pairs)
    build_once(args.shard, args.output, key, build)
    return 0


if __name__ == "__main__":
    run(main)
