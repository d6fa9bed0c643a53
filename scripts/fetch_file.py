"""Fetch a file of a dataset from a web server, S3 or Google Cloud Storage; download_file.py reads it.

    python scripts/fetch_file.py --name mine --settings '{"address": "https://example.org/a.jsonl"}' \\
        --output results/remote/mine/a --log results/logs/fetch_file/mine/a.log

Writes to --output: the file, and manifest.json with its size and SHA-256. With `sha256` in --settings, another content
is an error. Where the file is there already, in this version, nothing is fetched. An interrupted download is continued.
"""

from pathlib import Path

from rewardline.core.cli import StageParser, run
from rewardline.data.remote.fetch import fetch
from rewardline.data.remote.fetched import FetchSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage; 0 when the file is there."""
    options = StageParser(__doc__, FetchSettings)
    options.add_argument("--name", required=True, help="name of the dataset")
    options.add_argument("--output", required=True, type=Path, help="folder to make")
    args = options.start(argv)
    fetch(args.name, args.settings, args.output)
    return 0


if __name__ == "__main__":
    run(main)
