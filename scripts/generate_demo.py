"""Generate the embedded demo: preference pairs whose rejected answer has one labelled flaw, in the stored form.

    python scripts/generate_demo.py --name demo --settings '{"pairs": 6000, "seed": 1}' \\
        --output results/data/demo --log results/logs/generate_demo/demo.log

Writes to --output what download.py writes for other datasets. Nothing is generated if settings and code have not
changed.
"""

from pathlib import Path

from rewardline.core.cli import StageParser, run
from rewardline.data.demo.generator import generate
from rewardline.data.demo.settings import DemoSettings
from rewardline.data.sources.store import generated, store


def main(argv: list[str] | None = None) -> int:
    """Run the stage; 0 when the dataset is there."""
    options = StageParser(__doc__, DemoSettings)
    options.add_argument("--name", required=True, help="name of the dataset")
    options.add_argument("--output", required=True, type=Path, help="folder to make")
    args = options.start(argv)
    rows = generate(args.settings.pairs, args.settings.seed)
    store(args.name, args.settings, generated(args.name, "demo", args.settings, rows), args.output, Path(__file__))
    return 0


if __name__ == "__main__":
    run(main)
