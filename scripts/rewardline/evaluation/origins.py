"""Where scored pairs come from: what only the pairs on disk hold, and no training should depend on."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rewardline.core.errors import UserError
from rewardline.data.pairs.store import read_rows

COLUMNS = ("pair_id", "chosen_source", "rejected_source", "file", "row", "place")


def with_origins(rows: Iterable[dict[str, Any]], pairs: Path) -> Iterator[dict[str, Any]]:
    """Add `COLUMNS` to rows that have a `pair_id`; `pairs` is a folder of Parquet parts in the same order.

    Pairs without a row, those that were dropped when they became tokens, are passed over.

    Raises:
        UserError: a row's pair is not there.
    """
    origins = read_rows(pairs, list(COLUMNS))
    for row in rows:
        origin = next((one for one in origins if one["pair_id"] == row["pair_id"]), None)
        if origin is None:
            raise UserError(f"{pairs} lacks pair {row['pair_id']} of the tokens; delete {pairs.parent} and run again")
        yield {**row, **origin}
