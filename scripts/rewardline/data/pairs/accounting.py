"""What became of each row: used by a pair, or left out for the reason of its first pair.

A row may give several pairs, a pair may come from several rows, and these may lie in different shards; so each shard
notes what it saw of a row, and the notes of all shards are put together.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rewardline.data.pairs.candidates import Candidate
from rewardline.data.pairs.identity import hash_id

ROW = np.dtype([("key", np.uint64), ("dataset", np.uint16), ("reason", np.uint16)])
"""A note: the row's key, its data set, and 0 for used or 1 + the index of the reason."""
_AT_ONCE = 500_000


class RowAccount:
    """The notes of a shard."""

    def __init__(self, datasets: Sequence[str]) -> None:
        self._datasets = {name: index for index, name in enumerate(datasets)}
        self._reasons: dict[str, int] = {}
        self._notes: list[npt.NDArray[np.void]] = []
        self._waiting: list[tuple[int, int, int]] = []

    def use(self, pair: Candidate) -> None:
        """A pair is kept."""
        self._note(pair, 0)

    def leave_out(self, pair: Candidate, reason: str) -> None:
        """A pair of a row was left out."""
        self._note(pair, 1 + self._reasons.setdefault(reason, len(self._reasons)))

    def _note(self, pair: Candidate, code: int) -> None:
        dataset = self._datasets[pair.dataset]
        for file, row in pair.sources:
            self._waiting.append((hash_id(pair.dataset, file, str(row)), dataset, code))
        if len(self._waiting) >= 50_000:
            self._flush()

    def _flush(self) -> None:
        self._notes.append(np.array(self._waiting, dtype=ROW))
        self._waiting = []

    def save(self, path: Path) -> list[str]:
        """Write the notes, sorted by row and in the order of noting; the reasons by index."""
        self._flush()
        notes = np.concatenate(self._notes)
        np.save(path, notes[np.argsort(notes["key"], kind="stable")])
        return list(self._reasons)


def balance(
    shards: Sequence[tuple[Path, list[str]]], datasets: Sequence[str]
) -> tuple[dict[str, Counter[str]], dict[str, int], Counter[str]]:
    """Put the notes of all shards (their file and reasons) together.

    Returns:
        Rows left out by data set and reason, rows used by data set, and pairs left out by reason beyond those for
        which their row is counted as left out.
    """
    notes = [np.load(path, mmap_mode="r") for path, _ in shards]
    names = sorted({reason for _, reasons in shards for reason in reasons})
    codes = [np.array([0, *(1 + names.index(reason) for reason in reasons)], dtype=np.uint16) for _, reasons in shards]
    left_out: dict[str, Counter[str]] = {name: Counter() for name in datasets}
    used = dict.fromkeys(datasets, 0)
    pairs: Counter[str] = Counter()
    steps = max(1, -(-sum(map(len, notes)) // _AT_ONCE))
    for step in range(steps):
        some = _range(notes, codes, step, steps)
        keys, first, inverse = np.unique(some["key"], return_index=True, return_inverse=True)
        is_used = np.zeros(len(keys), dtype=bool)
        is_used[inverse[some["reason"] == 0]] = True
        head = np.zeros(len(some), dtype=bool)
        head[first] = True
        for index, dataset in enumerate(datasets):
            own = some["dataset"] == index
            used[dataset] += int((own & head & is_used[inverse]).sum())
            lost = own & head & ~is_used[inverse]
            for code, name in enumerate(names, 1):
                rows = int((lost & (some["reason"] == code)).sum())
                if rows:
                    left_out[dataset][name] += rows
        more = (some["reason"] > 0) & (is_used[inverse] | ~head)
        for code, count in enumerate(np.bincount(some["reason"][more], minlength=len(names) + 1).tolist()):
            if code and count:
                pairs[names[code - 1]] += count
    return left_out, used, pairs


def _range(
    notes: Sequence[npt.NDArray[np.void]], codes: Sequence[npt.NDArray[np.uint16]], step: int, steps: int
) -> npt.NDArray[np.void]:
    """The notes of a range of rows, from all shards in order, with reasons by their common index."""
    low, high = (2**64 * (step + k) // steps for k in (0, 1))
    parts = []
    for table, code in zip(notes, codes, strict=True):
        start = int(np.searchsorted(table["key"], np.uint64(low)))
        end = len(table) if high >= 2**64 else int(np.searchsorted(table["key"], np.uint64(high)))
        part = np.array(table[start:end])
        part["reason"] = code[part["reason"]]
        parts.append(part)
    return np.concatenate(parts)
