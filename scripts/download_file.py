"""Read a file of a dataset into the stored form; download.py joins those of all its files.

    python scripts/download_file.py --name mine --settings '{"files": ["data/a.jsonl"]}' \\
        --output results/shards/data/mine/a --log results/logs/download_file/mine/a.log

With --fetched, the manifest.json that fetch_file.py made, the copy of a file from elsewhere is read.

Writes to --output what download.py writes for a complete dataset.
"""

from pathlib import Path

from rewardline.core.cli import StageParser, run
from rewardline.data.sources.dataset import from_fetched, from_files
from rewardline.data.sources.settings import DownloadSettings
from rewardline.data.sources.store import store


def main(argv: list[str] | None = None) -> int:
    """Run the stage; 0 when the rows are there."""
    options = StageParser(__doc__, DownloadSettings)
    options.add_argument("--name", required=True, help="name of the dataset")
    options.add_argument("--output", required=True, type=Path, help="folder to make")
    options.add_argument("--fetched", type=Path, help="manifest.json of the copy of a file from elsewhere")
    args = options.start(argv)
    settings = args.settings
    fetched = args.fetched
    source = from_fetched(args.name, settings, fetched) if fetched else from_files(args.name, settings)
    store(args.name, settings.replace(sizes=None, sha256={}), source, args.output, Path(__file__))
    return 0


if __name__ == "__main__":
    run(main)
