"""The columns of `scores.parquet`: a row for each pair that a model has scored, and how they are read again."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rewardline.core.errors import UserError, first_line
from rewardline.data.schema import PLACE
from rewardline.tokens.store import Comparison

SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("prompt_id", pa.string()),
        ("dataset", pa.string()),
        ("subset", pa.string()),
        ("chosen_score", pa.float32()),
        ("rejected_score", pa.float32()),
        ("chosen_tokens", pa.int32()),
        ("rejected_tokens", pa.int32()),
        ("correct", pa.float32()),
        ("margin", pa.float64()),
        ("confidence", pa.float64()),
        ("weight", pa.float64()),
        ("comparison", pa.int64()),
        ("chosen_answer", pa.int32()),
        ("rejected_answer", pa.int32()),
        ("chosen_source", pa.string()),
        ("rejected_source", pa.string()),
        ("file", pa.string()),
        ("row", pa.int64()),
        ("place", PLACE),
    ]
)
"""`correct` is 1 or 0, or 0.5 for equal scores; `comparison` numbers the prompts among the tokens, `chosen_answer` and
`rejected_answer` the answers within it, so that (comparison, answer) stands for one answer. `margin`, `confidence`,
`weight`, the sources, `file` and `row` (from 1) are those of the data; null where it has none. `place`
is where the answers stand in the row, for benchmarks that are counted by row."""
LABELS = ("pair_id", "dataset", "subset", "margin", "confidence", "weight")
NEEDED = ("prompt_id", "subset", "chosen_score", "rejected_score", "chosen_tokens", "rejected_tokens", "correct")
MEASURED = (
    *NEEDED,
    *("margin", "weight", "comparison", "chosen_answer", "rejected_answer", "chosen_source", "rejected_source"),
)
"""Columns that metrics are made of; those that are not `NEEDED` may be missing."""
NAMES = ("dataset", "subset", "chosen_source", "rejected_source", "file")
"""Columns of texts that repeat, read as categories."""
IDS = ("pair_id", "prompt_id")
_BATCH = 1 << 16


def score_rows(comparison: Comparison, number: int, scores: npt.NDArray[np.float32]) -> Iterator[dict[str, Any]]:
    """A row for each pair of a comparison, which has this `number` among the tokens; `scores` is [K].

    It lacks the columns of `SCHEMA` that `origins.with_origins` adds.
    """
    prefix = len(comparison.prefix)
    for pair in comparison.pairs:
        chosen, rejected = float(scores[pair.chosen]), float(scores[pair.rejected])
        yield {
            **{key: getattr(pair, key) for key in LABELS},
            "prompt_id": comparison.prompt_id,
            "chosen_score": chosen,
            "rejected_score": rejected,
            "chosen_tokens": prefix + len(comparison.tails[pair.chosen]),
            "rejected_tokens": prefix + len(comparison.tails[pair.rejected]),
            "correct": float(chosen > rejected) + 0.5 * (chosen == rejected),
            "comparison": number,
            "chosen_answer": pair.chosen,
            "rejected_answer": pair.rejected,
        }


def read_scores(path: Path, columns: Sequence[str] = MEASURED) -> pd.DataFrame:
    """These columns of a `scores.parquet`, as far as it has them, as a table of about 60 bytes a pair.

    As `read_columns`, but that `prompt_id` is a number for each prompt, from 0 (int32).

    Raises:
        UserError: as `read_columns`.
    """
    found = read_columns(path, columns)
    if "prompt_id" in found:
        found["prompt_id"] = np.unique(found["prompt_id"], return_inverse=True)[1].astype(np.int32)
    return pd.DataFrame(found, copy=False)


def read_columns(path: Path, columns: Sequence[str]) -> dict[str, Any]:
    """These columns of a `scores.parquet`, as far as it has them, read a batch at a time.

    Names are categories, `pair_id` and `prompt_id` the `hash_texts` of the ids, and a missing whole number is -1.

    Raises:
        UserError: the file is missing, damaged or empty, lacks a needed column, or has a score that is not finite.
    """
    try:
        with pq.ParquetFile(path) as file:
            there = file.schema_arrow.names
            missing = [name for name in columns if name in NEEDED and name not in there]
            if missing:
                raise UserError(f"{path} has no column {missing[0]!r}; {_AGAIN}")
            if not file.metadata.num_rows:
                raise UserError(f"{path} has no pairs; the benchmark or eval split is empty")
            found = {name: _Column(name, file.metadata.num_rows) for name in columns if name in there}
            for batch in file.iter_batches(_BATCH, columns=list(found)):
                for name, column in found.items():
                    column.add(batch.column(name), path)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; run the evaluate stage first") from error
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is damaged ({first_line(error)}); {_AGAIN}") from error
    return {name: column.values() for name, column in found.items()}


def hash_texts(texts: Sequence[str]) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each text, which stands for ids where there are millions: uint64 [n]."""
    result: npt.NDArray[np.uint64] = pd.util.hash_array(np.array(texts, dtype=object), categorize=False)
    return result


_AGAIN = "delete it and run the evaluate stage again"


class _Column:
    """A column that is filled a batch at a time, in as few bytes as it needs."""

    def __init__(self, name: str, rows: int) -> None:
        self._name, self._place = name, 0
        self._codes: dict[str, int] = {}
        kind: Any = SCHEMA.field(name).type.to_pandas_dtype() if name in SCHEMA.names else object
        if name in IDS:
            kind = np.uint64
        elif name in NAMES:
            kind = np.int32
        self._values = np.empty(rows, dtype=kind)

    def add(self, values: pa.Array, path: Path) -> None:
        """Append a batch."""
        name, place = self._name, self._place
        if name.endswith("_score"):
            usable = pc.fill_null(pc.is_finite(values), False)
            if not pc.all(usable).as_py():
                row = pc.index(usable, False).as_py()
                raise UserError(f"{path} row {place + row + 1}: {name} is missing or not finite; {_AGAIN}")
        self._values[place : place + len(values)] = self._numbers(values)
        self._place += len(values)

    def _numbers(self, values: pa.Array) -> npt.NDArray[Any]:
        if self._name in (*IDS, *NAMES):
            encoded = values.cast(pa.string()).dictionary_encode()
            texts = encoded.dictionary.to_pylist()
            codes: npt.NDArray[Any]
            if self._name in IDS:
                codes = np.append(hash_texts(texts), np.uint64(0))
            else:
                codes = np.array([self._codes.setdefault(text, len(self._codes)) for text in texts] + [-1])
            places: npt.NDArray[Any] = codes[encoded.indices.fill_null(len(texts)).to_numpy()]
            return places
        if pa.types.is_integer(values.type):
            values = values.fill_null(-1)
        numbers: npt.NDArray[Any] = values.to_numpy(zero_copy_only=False)
        return numbers

    def values(self) -> Any:
        """All that was added."""
        if self._name in NAMES:
            return pd.Categorical.from_codes(self._values, list(self._codes))
        return self._values
