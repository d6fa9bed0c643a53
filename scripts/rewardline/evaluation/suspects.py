"""Pairs most likely mislabelled: those where most runs prefer the rejected answer, with their texts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rewardline.core.errors import UserError
from rewardline.data.pairs.store import MESSAGES, reading
from rewardline.evaluation.preferences import Preferences
from rewardline.evaluation.scores import hash_texts

Json = dict[str, Any]
SCHEMA = pa.schema(
    [
        ("benchmark", pa.string()),
        ("mixture", pa.string()),
        ("pair_id", pa.string()),
        ("dataset", pa.string()),
        ("subset", pa.string()),
        ("runs", pa.int32()),
        ("against", pa.int32()),
        ("margin_mean", pa.float64()),
        ("margin_std", pa.float64()),
        ("prompt", MESSAGES),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("file", pa.string()),
        ("row", pa.int64()),
    ]
)
"""`runs` judged the pair, `against` of them prefer the rejected answer; margins (chosen minus rejected) are in units of
each run's root mean square, mean and standard deviation over the runs."""
TEXTS = ["pair_id", "dataset", "subset", "prompt", "chosen", "rejected", "file", "row"]
MOST = 200
"""Suspects of a board."""


def find_suspects(preferences: Preferences) -> list[tuple[int, Json]]:
    """The pairs that most runs are against, by the hash of their id: first those with the largest share against.

    Among equal shares, those that more runs judged, then those that runs are surest about (confident disagreement,
    after Northcutt et al. 2021, arXiv 1911.00068). At most MOST.
    """
    share = preferences.against / np.maximum(preferences.runs, 1)
    found = np.flatnonzero(share > 0.5)
    order = np.lexsort(
        (preferences.pairs[found], preferences.margin_mean[found], -preferences.runs[found], -share[found])
    )[:MOST]
    return [
        (
            int(preferences.pairs[k]),
            {
                "runs": int(preferences.runs[k]),
                "against": int(preferences.against[k]),
                "margin_mean": float(preferences.margin_mean[k]),
                "margin_std": float(preferences.margin_std[k]),
            },
        )
        for k in found[order]
    ]


def with_texts(suspects: list[tuple[int, Json]], pairs: Path) -> Iterator[Json]:
    """Each suspect with its texts, from the folder of pairs `pairs`; only row groups that hold one are read.

    Raises:
        UserError: a pair is not there, or a file is damaged.
    """
    wanted = np.array(sorted(key for key, _ in suspects), dtype=np.uint64)
    texts: dict[int, Json] = {}
    for part in sorted(pairs.glob("part-*.parquet")) if len(wanted) else ():
        texts.update(_texts(part, wanted))
    for key, values in suspects:
        if key not in texts:
            raise UserError(f"{pairs} lacks a pair that was scored; delete results/evals and run again")
        yield {**values, **texts[key]}


def _texts(part: Path, wanted: Any) -> Iterator[tuple[int, Json]]:
    with reading(part), pq.ParquetFile(part) as file:
        for group in range(file.num_row_groups):
            ids = hash_texts(file.read_row_group(group, columns=["pair_id"]).column(0).to_pylist())
            rows = np.flatnonzero(np.isin(ids, wanted))
            if len(rows):
                table = file.read_row_group(group, columns=TEXTS).take(rows)
                yield from zip(ids[rows].tolist(), table.to_pylist(), strict=True)
