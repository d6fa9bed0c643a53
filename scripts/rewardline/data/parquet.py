"""Parquet files, read a batch at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from rewardline.core.errors import UserError, first_line

_BATCH_ROWS: Final = 200


def read_batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file, with some of the columns or all; a row group in memory at a time.

    Raises:
        UserError: it is missing or damaged.
    """
    with reading(path), pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):  # each of bounded size, as it was written
            yield from file.read_row_group(group, columns=columns).to_batches(max_chunksize=_BATCH_ROWS)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name a file that the block cannot read, and the remedy.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}); delete its folder and run again") from error
