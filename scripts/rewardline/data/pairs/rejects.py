"""Rows and pairs that are left out: a Parquet file with every case and its reason, and a few examples for people."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from rewardline.data.parquet import PartWriter, reading
from rewardline.data.schema import REJECT_SCHEMA, RejectedRow

EXAMPLES = 3
"""Examples kept for each reason and dataset."""
FILE = "rejects.parquet"


class RejectWriter:
    """Writes `rejects.parquet` into a folder."""

    def __init__(self, folder: Path) -> None:
        self._writer = PartWriter[RejectedRow](folder, REJECT_SCHEMA, name=FILE, part_rows=2**62)
        self._examples: list[RejectedRow] = []
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, dataset: str, file: str, row: int, reason: str, detail: str) -> None:
        """Append a case; `row` is 1-based."""
        case = RejectedRow(dataset, file, row, reason, detail)
        self._writer.add(case)
        if _is_example(case, self._counts):
            self._examples.append(case)

    def close(self) -> list[RejectedRow]:
        """Finish the file; examples, the first few of each dataset and reason."""
        self._writer.close()
        return self._examples


def join_examples(cases: Iterable[RejectedRow]) -> list[RejectedRow]:
    """The first few of each dataset and reason."""
    counts: Counter[tuple[str, str]] = Counter()
    return [case for case in cases if _is_example(case, counts)]


def _is_example(case: RejectedRow, counts: Counter[tuple[str, str]]) -> bool:
    counts[case.dataset, case.reason] += 1
    return counts[case.dataset, case.reason] <= EXAMPLES


def join_rejects(folders: Sequence[Path], target: Path) -> None:
    """Write the rejects of all folders to `rejects.parquet` in `target`; a `UserError` for a damaged file."""
    with pq.ParquetWriter(target / FILE, REJECT_SCHEMA, compression="zstd") as writer:
        for folder in folders:
            with reading(folder / FILE), pq.ParquetFile(folder / FILE) as file:
                for batch in file.iter_batches(batch_size=20_000):
                    writer.write_batch(batch)
