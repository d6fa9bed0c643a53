"""Pairs with their text for the report: those that a run gets most wrong, and those whose label may be wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds

from rewardline.data.parquet import reading
from rewardline.data.schema import PAIR_SCHEMA, Pair
from rewardline.evaluation.comparisons import BenchmarkComparison
from rewardline.evaluation.labels.suspects import Suspect
from rewardline.evaluation.results import printable
from rewardline.evaluation.scores import read_table
from rewardline.report.formatting import count, decimal, percent

HARDEST = 10
SUSPECTS = 20


@dataclass(frozen=True)
class Example:
    """A pair to read: the number by which pairs are sorted, and a note on its chosen and its rejected answer."""

    number: str
    pair: Pair | Suspect
    notes: tuple[str, str]

    @property
    def opening(self) -> str:
        """The last user turn on one line."""
        texts = [turn["content"] for turn in self.pair.prompt if turn["role"] == "user"]
        return " ".join((texts or [turn["content"] for turn in self.pair.prompt] or [""])[-1].split())

    @property
    def origin(self) -> str:
        """Its subset, dataset, file and row."""
        pair = self.pair
        names = [name for name in (pair.subset, pair.dataset) if name and name != pair.file]
        return printable(", ".join(dict.fromkeys([*names, pair.file, f"row {count(pair.row)}"])))


def hardest_pairs(scores: Sequence[Path], pairs: Path) -> list[Example]:
    """The pairs that a run gets most wrong, by the mean margin over its seeds, worst first.

    `scores`: the `scores.parquet` of each seed; `pairs`: the folder of the pairs' Parquet parts.

    Raises:
        UserError: a file is missing or damaged.
    """
    tables = [read_table(path, ("pair_id", "chosen_score", "rejected_score")) for path in scores]
    ids = tables[0]["pair_id"]
    same = [table for table in tables if table["pair_id"].equals(ids)]
    chosen, rejected = (
        np.mean([table[name].to_numpy().astype(np.float64) for table in same], axis=0)
        for name in ("chosen_score", "rejected_score")
    )
    margins = chosen - rejected
    wrong = np.flatnonzero(np.isfinite(margins) & (margins < 0))
    rows = {ids[row].as_py(): row for row in wrong[np.argsort(margins[wrong], kind="stable")][:HARDEST].tolist()}
    texts = _read_pairs(pairs, list(rows))
    return [
        Example(
            decimal(margins[row]), texts[pair_id], (f"score {decimal(chosen[row])}", f"score {decimal(rejected[row])}")
        )
        for pair_id, row in rows.items()
        if pair_id in texts
    ]


def _read_pairs(folder: Path, ids: Sequence[str]) -> dict[str, Pair]:
    """The pairs with these ids among the Parquet parts of a folder, which are read a batch at a time."""
    if not ids:
        return {}
    with reading(folder):
        data = ds.dataset(sorted(map(str, folder.glob("part-*.parquet"))), schema=PAIR_SCHEMA, format="parquet")
        table = data.to_table(filter=ds.field("pair_id").isin(list(ids)), batch_size=1024)
    return {row["pair_id"]: Pair(**row) for row in table.to_pylist()}


def mislabeled(suspects: Sequence[Suspect]) -> list[Example]:
    """The first of the pairs whose label is most probably wrong."""
    ordered = sorted(suspects, key=lambda one: (-one.probability, one.margin_mean, one.pair_id))
    examples = []
    for one in ordered[:SUSPECTS]:
        share, margin = percent(one.against / one.runs), decimal(-one.margin_mean)
        note = f"preferred by {share} of the runs, by {margin} times their usual margin"
        examples.append(Example(percent(one.probability), one, ("by its label", note)))
    return examples


def expected(suspects: Sequence[Suspect], boards: Sequence[BenchmarkComparison]) -> list[str]:
    """For each benchmark with suspects, how many of them are wrong, and how many of all wrong labels that is."""
    lines = []
    for board in boards:
        listed = [one for one in suspects if (one.benchmark, one.mixture) == (board.benchmark, board.mixture)]
        wrong = fsum(one.probability for one in listed)
        if listed and board.wrong_labels > 0:
            title = f"held-out split of {board.mixture}" if board.mixture else f"benchmark {board.benchmark}"
            lines.append(
                f"{title}: {count(len(listed))} listed, of which {wrong:.0f} are expected to be wrong (precision "
                f"{percent(wrong / len(listed))}); that is {percent(min(1.0, wrong / board.wrong_labels))} (recall) of "
                f"about {board.wrong_labels:.0f} wrong labels"
            )
    return lines
