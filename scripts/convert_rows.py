"""Make candidate pairs of the rows of a data set, or of one part of it.

    python scripts/convert_rows.py --name hh --settings @settings.json --data results/data/hh/manifest.json \\
        --output results/shards/candidates/hh/all

Leaves the candidates sorted by prompt (see rewardline/candidates.py), `rejects.parquet` with each row that gives none,
and `manifest.json` with the counts.
"""

from pathlib import Path

from rewardline.core.artifacts import write_manifest
from rewardline.core.cli import StageParser, log, run
from rewardline.core.files import atomic_folder
from rewardline.data.convert import convert
from rewardline.data.formats.settings import ConvertSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, ConvertSettings)
    options.add_argument("--name", required=True, help="name of the dataset")
    options.add_argument("--data", required=True, type=Path, help="manifest.json of the downloaded rows")
    options.add_argument("--tables", nargs="*", default=[], type=Path, help="manifest.json of joined datasets")
    options.add_argument("--output", required=True, type=Path, help="folder to make")
    args = options.start(argv)
    with atomic_folder(args.output) as out:
        facts = convert(args.name, args.settings, args.data, args.tables, out)
        write_manifest(out, facts)
    left_out = ", ".join(f"{reason} {n}" for reason, n in facts["rejects"].items()) or "nothing"
    log.info("%s: %d rows, %d candidates; left out: %s", args.name, facts["rows_in"], facts["candidates"], left_out)
    return 0


if __name__ == "__main__":
    run(main)
