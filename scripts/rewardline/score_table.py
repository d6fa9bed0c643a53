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

from rewardline.cli import UserError
from rewardline.shards import Comparison

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
    ]
)
"""`correct` is 1 or 0, or 0.5 for equal scores; `comparison` numbers the prompts among the tokens, `chosen_answer` and
`rejected_answer` the answers within it, so that (comparison, answer) stands for one answer. `margin`, `confidence`,
`weight`, the sources, `file` and `row` (from 1) are those of the data; null where it has none."""
LABELS = ("pair_id", "dataset", "subset", "margin", "confidence", "weight", "chosen_source", "rejected_source")
NAMES = ("prompt_id", "dataset", "subset", "chosen_source", "rejected_source")
"""Columns of few or repeated texts, read as categories."""
NEEDED = ("prompt_id", "subset", "chosen_score", "rejected_score", "chosen_tokens", "rejected_tokens", "correct")
MEASURED = (*NEEDED, "margin", "weight", "comparison", "chosen_answer", "rejected_answer", *NAMES[3:])
"""Columns that metrics are made of; those that are not `NEEDED` may be missing."""


def score_rows(comparison: Comparison, number: int, scores: npt.NDArray[np.float32]) -> Iterator[dict[str, Any]]:
    """A row of `SCHEMA` for each pair of a comparison, which has this `number` among the tokens; `scores` is [K]."""
    prefix = len(comparison.prefix)
    for pair in comparison.pairs:
        chosen, rejected = float(scores[pair["chosen"]]), float(scores[pair["rejected"]])
        yield {
            **{key: pair.get(key) for key in (*LABELS, "file", "row")},
            "prompt_id": comparison.prompt_id,
            "chosen_score": chosen,
            "rejected_score": rejected,
            "chosen_tokens": prefix + len(comparison.tails[pair["chosen"]]),
            "rejected_tokens": prefix + len(comparison.tails[pair["rejected"]]),
            "correct": float(chosen > rejected) + 0.5 * (chosen == rejected),
            "comparison": number,
            "chosen_answer": pair["chosen"],
            "rejected_answer": pair["rejected"],
        }


def read_scores(path: Path, columns: Sequence[str] = MEASURED) -> pd.DataFrame:
    """These columns of a `scores.parquet`, texts that repeat as categories: about 60 bytes a pair.

    Raises:
        UserError: the file is missing, damaged or empty, lacks a column, or holds a score that is not a finite number.
    """
    again = "delete it and run the evaluate stage again"
    try:
        with pq.ParquetFile(path, read_dictionary=[name for name in NAMES if name in columns]) as file:
            there = set(file.schema_arrow.names)
            missing = [name for name in columns if name in NEEDED and name not in there]
            if missing:
                raise UserError(f"{path} has no column {missing[0]!r}; {again}")
            table = file.read(columns=[name for name in columns if name in there]).unify_dictionaries()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; run the evaluate stage first") from error
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is damaged ({str(error).splitlines()[0]}); {again}") from error
    if not table.num_rows:
        raise UserError(f"{path} has no pairs; the benchmark or eval split is empty")
    for name in {"chosen_score", "rejected_score"} & set(table.column_names):
        usable = pc.fill_null(pc.is_finite(table.column(name)), False)
        if not pc.all(usable).as_py():
            row = pc.index(usable, False).as_py()
            value = table.column(name)[row].as_py()
            raise UserError(f"{path} row {row + 1}: {name} is {value}, not a finite number; {again}")
    return table.to_pandas(self_destruct=True, split_blocks=True)
