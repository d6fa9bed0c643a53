"""Compare all prompts of a mixture with each other and with its benchmarks, before the pairs are cleaned in shards.

    python scripts/group_prompts.py --name main --settings @settings.json --output results/shards/prompts/main \\
        --data results/shards/candidates/hh/*/manifest.json --benchmarks results/shards/candidates/test/*/manifest.json

Leaves `groups.npz` (prompts that are nearly the same, with their groups, and which of these are held out), the index of
the benchmarks' prompts, and `manifest.json` with what is the same for every shard: the split and the caps.
"""

from pathlib import Path

from rewardline.core.artifacts import write_manifest
from rewardline.core.cli import StageParser, log, run
from rewardline.core.files import atomic_folder
from rewardline.data.pairs.prompt_groups import group
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
    with atomic_folder(args.output) as out:
        facts = group(args.name, args.settings, args.data, args.benchmarks, out)
        write_manifest(out, facts)
    log.info(
        "%s: %d prompts; %d of them in %d groups of nearly the same",
        args.name, facts["prompts"], facts["groups"]["prompts"], facts["groups"]["groups"],
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    run(main)
