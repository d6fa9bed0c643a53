"""The pairs of a mixture on disk: Parquet parts that are written and read a batch at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rewardline.core.errors import UserError, first_line
from rewardline.core.hashing import file_sha256
from rewardline.data.pairs.external_sort import characters_of
from rewardline.data.schema import PAIR_SCHEMA as PAIR_SCHEMA  # noqa: PLC0414 - its users import it from here

MESSAGES = PAIR_SCHEMA.field("prompt").type
BATCH_CHARACTERS = 16 << 20
"""Text that is held in memory at most to write or read a part; a single row may have more."""


class PartWriter:
    """Writes rows to numbered Parquet parts of at most `rows_per_part` rows; there is at least one part."""

    def __init__(self, folder: Path, schema: pa.Schema, rows_per_part: int = 50_000, batch: int = 2_000) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._schema, self._limit, self._batch = folder, schema, rows_per_part, batch
        self._rows: list[dict[str, object]] = []
        self._characters = 0
        self._writer: pq.ParquetWriter | None = None
        self._sizes: list[int] = []
        self.parts: list[Path] = []

    def add(self, row: dict[str, object]) -> None:
        """Append a row."""
        self._rows.append(row)
        self._characters += characters_of(row)
        if len(self._rows) >= self._batch or self._characters >= BATCH_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            self.parts.append(self._folder / f"part-{len(self.parts):05d}.parquet")
            self._writer = pq.ParquetWriter(self.parts[-1], self._schema, compression="zstd")
            self._sizes.append(0)
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._sizes[-1] += len(self._rows)
        self._rows, self._characters = [], 0
        if self._sizes[-1] >= self._limit:
            self._writer.close()
            self._writer = None

    def close(self) -> None:
        """Write what is left and finish the last part."""
        if self._rows or not self.parts:
            self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @property
    def total(self) -> int:
        """How many rows were written; to be asked after `close`."""
        return sum(self._sizes)

    def entries(self) -> list[dict[str, Any]]:
        """What a manifest says of each part: `file`, `rows` and `sha256`; to be called after `close`."""
        return [
            {"file": part.name, "rows": rows, "sha256": file_sha256(part)}
            for part, rows in zip(self.parts, self._sizes, strict=True)
        ]


def read_pairs(folder: Path, columns: list[str] | None = None) -> Iterator[dict[str, object]]:
    """The rows of a folder of Parquet parts, in order, a batch in memory at a time."""
    for part in sorted(folder.glob("part-*.parquet")):
        yield from read_part(part, columns)


def read_part(part: Path, columns: list[str] | None = None) -> Iterator[dict[str, object]]:
    """The rows of a Parquet file, a batch in memory at a time.

    Raises:
        UserError: it is missing or damaged.
    """
    with reading(part), pq.ParquetFile(part) as file:
        for group in range(file.num_row_groups):  # each of bounded size, as it was written
            for batch in file.read_row_group(group, columns=columns).to_batches(max_chunksize=200):
                yield from batch.to_pylist()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say what to do about a file that the block cannot read.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}); delete its folder and run again") from error
