"""Choose the pairs of answers whose label would teach most, from the scores that one or several models give them.

    python scripts/choose_pairs.py --settings '{"name": "next", "runs": ["a", "b"], "by": "disagreement"}' \\
        --data results/data/next/manifest.json --shards results/shards/scored/next/*/*/manifest.json \\
        --models results/models/a/run.json results/models/b/run.json --pairs results/pairs/main/stats.json \\
        --output results/to_label/next --lines results/to_label/next.jsonl

Writes the pairs, the most informative first, as JSON lines, and `rejects.parquet`, what cannot be scored or gives no
pair, and `manifest.json` to --output. No pair is of a prompt of --benchmarks or of the held-out pairs of --pairs, or is
among the training pairs of these.
"""

import shutil
from functools import partial
from pathlib import Path

from rewardline.core.artifacts import artifact_key, input_hashes, make_folder
from rewardline.core.cli import StageParser, run
from rewardline.core.files import atomic_file
from rewardline.scoring.stage_settings import ChooseSettings
from rewardline.scoring.to_label import choose


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, ChooseSettings)
    options.add_argument("--data", required=True, type=Path, help="manifest.json of the rows, by download.py")
    options.add_argument(
        "--shards", required=True, nargs="+", type=Path, help="manifest.json by score_rows.py, in order of the models"
    )
    options.add_argument("--models", required=True, nargs="+", type=Path, help="run.json of each model")
    options.add_argument("--benchmarks", action="append", default=[], type=Path, help="manifest.json of candidates")
    options.add_argument(
        "--pairs", action="append", default=[], type=Path, help="stats.json of pairs that are known or held out"
    )
    options.add_argument("--output", required=True, type=Path, help="folder to make")
    options.add_argument("--lines", required=True, type=Path, help="file of the pairs to write")
    args = options.start(argv)
    folders, scales = [path.parent for path in args.pairs], [choose.scale_of(path) for path in args.models]
    inputs = {name: input_hashes(getattr(args, name)) for name in ("shards", "benchmarks", "pairs")}
    inputs |= {"data": input_hashes([args.data]), "scales": list(scales)}
    key = artifact_key(args.settings, inputs, Path(choose.__file__), ("numpy", "pyarrow"))
    make = partial(choose.choose, args.settings, args.data, args.shards, scales, args.benchmarks, folders)
    make_folder(args.output, key, make)
    with atomic_file(args.lines) as partial_file:
        shutil.copyfile(args.output / choose.PAIRS, partial_file)
    return 0


if __name__ == "__main__":
    run(main)
