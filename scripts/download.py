"""Read a data set whole, from local files, the Hugging Face hub or the demo generator, into the raw form.

    python scripts/download.py --name mine --settings '{"files": ["data/a.jsonl", "data/b.tsv.gz"]}' \\
        --output results/data/mine --log results/logs/download/mine.log

--settings holds exactly one source:
    {"demo": {"pairs": 6000, "seed": 1}}
    {"files": ["data/*.jsonl"]}     .jsonl .ndjson .json .csv .tsv (each also .gz or .zst) .parquet; and: columns
    {"hub": "owner/name", "revision": COMMIT, "split": "train"}     and: config, data_files, data_dir, columns

With --parts, the manifest.json of folders that each hold one of the files, nothing is read again: their rows become
one data set.

Leaves in --output: part-00000.parquet, ... with a row per input row (file, row, record, error), and manifest.json.
Nothing is renamed, coerced or left out; a row that cannot be read has an `error` in place of its `record`.
"""

from pathlib import Path

from rewardline.core.cli import StageParser, run
from rewardline.core.files import atomic_folder, write_json
from rewardline.data.sources.dataset import join, open_inputs, write
from rewardline.data.sources.settings import DownloadSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage; 0 when the dataset is there."""
    options = StageParser(__doc__, DownloadSettings)
    options.add_argument("--name", required=True, help="name of the dataset")
    options.add_argument("--parts", nargs="*", default=[], type=Path, help="manifest.json of each file, read before")
    options.add_argument("--output", required=True, type=Path, help="folder to make")
    args = options.start(argv)
    source = args.settings.model_dump(exclude={"sizes"}, exclude_none=True)
    with atomic_folder(args.output) as folder:
        if args.parts:
            commit, facts = None, join(args.parts, folder)
        else:
            commit, inputs = open_inputs(args.settings)
            facts = write(args.name, inputs, folder)
        write_json(folder / "manifest.json", {"name": args.name, "source": source, "revision": commit, **facts})
    return 0


if __name__ == "__main__":
    run(main)
