"""Compare runs on each benchmark, and list the pairs whose labels most of them contradict.

Leaves the paired difference of every two runs with its 95% interval, and mean and spread over seeds, in a JSON file;
and the pairs most likely mislabelled, with their texts, in a Parquet file.

Example:
  python scripts/compare.py --metrics results/evals/*/*/metrics.json --pairs results/pairs/*/eval \\
      --output results/comparisons.json --suspects results/suspects.parquet
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rewardline.core.cli import log, parser, run, start_logging
from rewardline.core.errors import UserError
from rewardline.core.files import atomic_file, read_json, write_json
from rewardline.data.pairs.probes import made_by_rule
from rewardline.evaluation.comparisons import compare, compared, read_judgements
from rewardline.evaluation.results import HELD_OUT, boards, read_metrics
from rewardline.evaluation.suspects import SCHEMA, find_suspects, with_texts


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = parser(__doc__)
    options.add_argument("--metrics", type=Path, nargs="+", required=True, help="metrics.json of each evaluation")
    options.add_argument("--pairs", type=Path, nargs="+", required=True, help="folders of the pairs that were scored")
    options.add_argument("--output", type=Path, required=True, help="the comparisons to write, JSON")
    options.add_argument("--suspects", type=Path, required=True, help="the suspects to write, Parquet")
    args = options.parse_args(argv)
    start_logging(args.log)
    folders = {(path.parent.parent.name, path.parent.name): path.parent for path in args.metrics}
    pairs = {folder.parent.name: folder for folder in args.pairs}
    found = []
    with atomic_file(args.suspects) as partial, pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
        for board in boards(read_metrics(args.metrics)):
            members = [one for entry in board.entries for one in entry.members]
            scores = {run: folders[run, board.benchmark] / "scores.parquet" for run in compared(board)}
            judgements = read_judgements(scores, [one.run for one in members if one.ensemble])
            found.append(compare(board, judgements))
            place = {"benchmark": board.benchmark, "mixture": found[-1]["mixture"]}
            name = board.mixture if board.benchmark == HELD_OUT else board.benchmark
            if name not in pairs:
                raise UserError(f"--pairs lacks the folder of {name!r}")
            stats = pairs[name].parent / "stats.json"
            by_rule = stats.exists() and made_by_rule(read_json(stats))  # no label is in doubt
            suspects = [] if by_rule else find_suspects(judgements)
            rows = [{**place, **row} for row in with_texts(suspects, pairs[name])]
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
            log.info("%s: %d differences, %d suspects", board.title, len(found[-1]["differences"]), len(rows))
    write_json(args.output, {"boards": found})
    return 0


if __name__ == "__main__":
    run(main)
