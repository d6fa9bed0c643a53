"""Compare all prompts of a mixture with each other and with its benchmarks, before the pairs are cleaned in shards.

    python scripts/group_prompts.py --name main --settings @settings.json --output results/shards/prompts/main \\
        --data results/shards/candidates/hh/*/manifest.json --benchmarks results/shards/candidates/test/*/manifest.json

Writes `groups.npz` (prompts that are nearly the same, with their groups, and the split), `benchmarks.npz` (an index of
the benchmarks' prompts), and `manifest.json` with the caps and the candidates.
"""

from functools import partial
from pathlib import Path

from rewardline.core.artifacts import artifact_key, input_hashes, make_folder
from rewardline.core.cli import StageParser, run
from rewardline.data.pairs import grouping
from rewardline.data.pairs.settings import GroupSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, GroupSettings)
    options.add_argument("--name", required=True, help="name of the mixture or benchmark")
    options.add_argument("--data", required=True, nargs="+", type=Path, help="manifest.json of candidates")
    options.add_argument(
        "--benchmarks", nargs="*", default=[], type=Path, help="manifest.json of benchmarks' candidates"
    )
    options.add_argument("--output", required=True, type=Path, help="folder to make")
    args = options.start(argv)
    inputs = {"data": input_hashes(args.data), "benchmarks": input_hashes(args.benchmarks), "name": args.name}
    key = artifact_key(args.settings, inputs, Path(grouping.__file__), ("numpy", "pyarrow", "scipy"))
    group = partial(grouping.group_prompts, args.name, args.settings, args.data, args.benchmarks)
    make_folder(args.output, key, group)
    return 0


if __name__ == "__main__":
    run(main)
