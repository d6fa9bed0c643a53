"""Read a complete dataset from local files or the Hugging Face hub into the stored form.

    python scripts/download.py --name mine --settings '{"files": ["data/a.jsonl", "data/b.tsv.gz"]}' \\
        --output results/data/mine --log results/logs/download/mine.log

--settings holds exactly one source:
    {"files": ["data/*.jsonl"]}     .jsonl .ndjson .json .csv .tsv (each also .gz or .zst) .parquet; and: columns
    {"hub": "owner/name", "revision": COMMIT, "split": "train"}     and: config, data_files, data_dir, columns

With --parts, the manifest.json of folders that download_file.py made of each of the files, nothing is read again: their
rows become one dataset.

Writes to --output: part-00000.parquet, ... with a row per input row (file, row, record, error), and manifest.json.
Nothing is renamed, coerced or left out; a row that cannot be read has an `error` in place of its `record`. Where these
are there already, and settings, files and code have not changed, nothing is read.
"""

from pathlib import Path

from rewardline.core.cli import StageParser, run
from rewardline.data.sources.dataset import from_files, from_parts
from rewardline.data.sources.hub import from_hub
from rewardline.data.sources.settings import DownloadSettings
from rewardline.data.sources.store import store


def main(argv: list[str] | None = None) -> int:
    """Run the stage; 0 when the dataset is there."""
    options = StageParser(__doc__, DownloadSettings)
    options.add_argument("--name", required=True, help="name of the dataset")
    options.add_argument("--parts", nargs="*", default=[], type=Path, help="manifest.json of each file, read before")
    options.add_argument("--output", required=True, type=Path, help="folder to make")
    args = options.start(argv)
    settings = args.settings.replace(sizes=None)
    if args.parts:
        source = from_parts(settings, args.parts)
    elif settings.hub is not None:
        source = from_hub(args.name, settings)
    else:
        source = from_files(args.name, settings)
    store(args.name, settings, source, args.output, Path(__file__))
    return 0


if __name__ == "__main__":
    run(main)
