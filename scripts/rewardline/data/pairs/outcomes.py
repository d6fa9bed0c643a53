"""The outcome of each row: used by a pair, or left out for the reason of its first pair.

A row may give several pairs, a pair may come from several rows, and these may be in different shards; so each shard
notes the outcome of each pair for its rows, and the notes of all shards are merged.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rewardline.data.pairs.identity import hash_id, id_range
from rewardline.data.parquet import read_array
from rewardline.data.schema import Candidate

REASONS = "contradiction", "duplicate", "in_benchmark", "near_duplicate", "not_sampled", "over_cap", "tie"
"""Why cleaning leaves pairs out."""
NOTE = np.dtype([("key", np.uint64), ("dataset", np.uint16), ("reason", np.uint16)])
"""The row's key, the index of its dataset, and 0 for used or 1 + the index of the reason."""
_ROWS_AT_ONCE = 500_000


class RowOutcomes:
    """The outcomes of the rows of a shard, as notes."""

    def __init__(self, datasets: Sequence[str]) -> None:
        self._datasets = {name: index for index, name in enumerate(datasets)}
        self._notes: list[npt.NDArray[np.void]] = []
        self._waiting: list[tuple[int, int, int]] = []

    def add(self, pair: Candidate, reason: str | None = None) -> None:
        """Note that a pair is used, or left out for a reason."""
        dataset, code = self._datasets[pair.dataset], 1 + REASONS.index(reason) if reason else 0
        for file, row in pair.sources:
            self._waiting.append((hash_id(pair.dataset, file, str(row)), dataset, code))
        if len(self._waiting) >= 50_000:
            self._flush()

    def add_used(self, rows: pa.Table) -> None:
        """Note that pairs of one row each are used; the columns are `dataset`, `file` and `row`."""
        names, files, numbers = (column.to_pylist() for column in rows.columns)
        notes = np.zeros(len(rows), dtype=NOTE)
        notes["key"] = [hash_id(name, file, str(row)) for name, file, row in zip(names, files, numbers, strict=True)]
        notes["dataset"] = list(map(self._datasets.__getitem__, names))
        self._notes.append(notes)

    def _flush(self) -> None:
        self._notes.append(np.array(self._waiting, dtype=NOTE))
        self._waiting = []

    def save(self, path: Path) -> None:
        """Write the notes, sorted by row, those of a row in the order in which they were added."""
        self._flush()
        notes = np.concatenate(self._notes)
        np.save(path, notes[np.argsort(notes["key"], kind="stable")])


@dataclass
class RowTotals:
    """Numbers of rows and pairs of a mixture."""

    left_out: dict[str, Counter[str]]
    """Rows of which no pair is used, by dataset and reason."""
    used: dict[str, int]
    """Rows of which a pair is used, by dataset."""
    pairs_left_out: Counter[str]
    """Pairs that are left out, by reason, beyond those for which their row counts as left out."""


def total(shards: Sequence[Path], datasets: Sequence[str]) -> RowTotals:
    """The totals of all shards, from their files of notes."""
    notes = [read_array(path, np.void) for path in shards]
    totals = RowTotals({name: Counter() for name in datasets}, dict.fromkeys(datasets, 0), Counter())
    steps = max(1, -(-sum(map(len, notes)) // _ROWS_AT_ONCE))  # rounded up
    for step in range(steps):
        low, high = (2**64 * (step + k) // steps for k in (0, 1))
        part = np.concatenate([table[slice(*id_range(table["key"], low, high))] for table in notes])
        keys, first, inverse = np.unique(part["key"], return_index=True, return_inverse=True)
        is_used = np.zeros(len(keys), dtype=bool)
        is_used[inverse[part["reason"] == 0]] = True
        is_first = np.zeros(len(part), dtype=bool)
        is_first[first] = True
        for index, dataset in enumerate(datasets):
            rows = is_first & (part["dataset"] == index)
            totals.used[dataset] += int((rows & is_used[inverse]).sum())
            totals.left_out[dataset] += _count(part["reason"][rows & ~is_used[inverse]])
        totals.pairs_left_out += _count(part["reason"][is_used[inverse] | ~is_first])
    return totals


def _count(codes: npt.NDArray[np.uint16]) -> Counter[str]:
    """Number of notes by reason, without those of used pairs."""
    return Counter(dict(zip(REASONS, np.bincount(codes, minlength=len(REASONS) + 1)[1:].tolist(), strict=True)))
