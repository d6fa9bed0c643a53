"""The comparison of all runs on each benchmark, and the pairs whose labels most of them contradict."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rewardline.core.errors import UserError
from rewardline.core.files import atomic_file, read_json, write_json
from rewardline.data.pairs.probes import made_by_rule
from rewardline.evaluation.comparisons import compare, compared, read_judgements
from rewardline.evaluation.results import HELD_OUT, boards, read_metrics
from rewardline.evaluation.suspects import SCHEMA, find_suspects, with_texts

log = logging.getLogger(__name__)


def compare_runs(metrics: Sequence[Path], pair_folders: Sequence[Path], output: Path, suspects: Path) -> None:
    """Write the paired differences of all runs to `output` and the pairs most likely mislabelled to `suspects`.

    `metrics`: a `metrics.json` for each evaluation, beside its `scores.parquet`; `pair_folders`: the pairs that were
    scored.
    """
    folders = {(path.parent.parent.name, path.parent.name): path.parent for path in metrics}
    pairs = {folder.parent.name: folder for folder in pair_folders}
    found = []
    with atomic_file(suspects) as partial, pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
        for board in boards(read_metrics(metrics)):
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
            listed = [] if by_rule else find_suspects(judgements)
            rows = [{**place, **row} for row in with_texts(listed, pairs[name])]
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
            log.info("%s: %d differences, %d suspects", board.title, len(found[-1]["differences"]), len(rows))
    write_json(output, {"boards": found})
