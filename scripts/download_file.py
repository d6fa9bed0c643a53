"""Read a local file of a dataset into the stored form; download.py joins those of all its files.

    python scripts/download_file.py --name mine --settings '{"files": ["data/a.jsonl"]}' \\
        --output results/shards/data/mine/a --log results/logs/download_file/mine/a.log

Writes to --output what download.py writes for a complete dataset.
"""

from pathlib import Path

from rewardline.core.cli import StageParser, run
from rewardline.data.sources.dataset import from_files
from rewardline.data.sources.settings import DownloadSettings
from rewardline.data.sources.store import store


def main(argv: list[str] | None = None) -> int:
    """Run the stage; 0 when the rows are there."""
    options = StageParser(__doc__, DownloadSettings)
    options.add_argument("--name", required=True, help="name of the dataset")
    options.add_argument("--output", required=True, type=Path, help="folder to make")
    args = options.start(argv)
    settings = args.settings.replace(sizes=None)
    store(args.name, settings, from_files(args.name, settings), args.output, Path(__file__))
    return 0


if __name__ == "__main__":
    run(main)
