"""`scores.parquet`: a row for each pair that a model has scored; its schema, and how it is written and read."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rewardline.core.artifacts import verify
from rewardline.core.errors import UserError, first_line, refused_by_system
from rewardline.data.schema import AnswerPosition, Rating, arrow_schema, hash_texts

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """A row: a pair with the scores of its two answers.

    `correct` is 1 or 0, or 0.5 for equal scores; `comparison` numbers the prompts among the tokens, `chosen_answer` and
    `rejected_answer` the answers within it, so that (comparison, answer) identifies one answer. The fields from
    `margin` to `weight`, and those that may be None, are those of the data. `place` is the position of the answers in
    their row, for benchmarks that are scored by row.
    """

    pair_id: str
    prompt_id: str
    dataset: str
    subset: str
    chosen_score: Annotated[float, pa.float32()]
    rejected_score: Annotated[float, pa.float32()]
    chosen_tokens: Annotated[int, pa.int32()]
    rejected_tokens: Annotated[int, pa.int32()]
    correct: Annotated[float, pa.float32()]
    margin: float | None
    confidence: float
    weight: float
    comparison: int
    chosen_answer: Annotated[int, pa.int32()]
    rejected_answer: Annotated[int, pa.int32()]
    chosen_source: str | None = None
    rejected_source: str | None = None
    file: str | None = None
    row: int | None = None
    place: AnswerPosition | None = None


@dataclass(frozen=True, slots=True)
class RatedScore:
    """A row of `answers.parquet`: a single answer with ratings, its score, and the outputs of the model's attributes.

    `outputs` are in the order of the labels of the model, empty for a model with one output.
    """

    answer_id: str
    prompt_id: str
    dataset: str
    subset: str
    score: Annotated[float, pa.float32()]
    outputs: Annotated[list[float], pa.list_(pa.float32())]
    tokens: Annotated[int, pa.int32()]
    ratings: list[Rating]
    weight: float


ANSWERS: Final = "answers.parquet"
SCHEMA: Final = arrow_schema(ScoredPair)
CATEGORIES = ("subset", "chosen_source", "rejected_source")
MEASURED = (
    *("chosen_score", "rejected_score", "chosen_tokens", "rejected_tokens", "correct", "margin", "weight"),
    *("comparison", "chosen_answer", "rejected_answer", *CATEGORIES),
)
"""Columns that metrics are computed from, besides `prompt_id`."""
Ids = npt.NDArray[np.uint64]
_REMEDY = "delete it and run the evaluate stage again"


def as_tables(pairs: Iterable[ScoredPair], size: int = 4096) -> Iterator[pa.Table]:
    """The pairs as tables of up to `size` rows."""
    rows = iter(pairs)
    while chunk := list(islice(rows, size)):
        columns = [pa.array([getattr(row, field.name) for row in chunk], field.type) for field in SCHEMA]
        yield pa.Table.from_arrays(columns, schema=SCHEMA)


def write_scores(path: Path, tables: Iterable[pa.Table]) -> None:
    """Write tables of `SCHEMA` as they come."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)


def read_batches(path: Path, columns: Sequence[str], size: int = 1 << 16) -> Iterator[pa.RecordBatch]:
    """Some columns, `size` rows at a time; those of `CATEGORIES` are dictionary arrays.

    Raises:
        UserError: the file is missing, damaged or empty, or lacks a column.
    """
    verify(path, "metrics.json")
    try:
        names = pq.read_schema(path).names
        if missing := [name for name in columns if name not in names]:
            raise UserError(f"{path} has no column {missing[0]!r}; {_REMEDY}")
        with pq.ParquetFile(path, read_dictionary=[name for name in columns if name in CATEGORIES]) as file:
            if not file.metadata.num_rows:
                raise UserError(f"{path} has no pairs; the benchmark or eval split is empty")
            for batch in file.iter_batches(size, columns=columns):
                yield batch.select(columns)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; run the evaluate stage first") from error
    except (OSError, pa.ArrowException) as error:
        if refused_by_system(error):
            raise
        raise UserError(f"{path} is damaged ({first_line(error)}); {_REMEDY}") from error


def read_table(path: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns; raises as `read_batches`."""
    return pa.Table.from_batches(read_batches(path, columns))


def read_ids(path: Path, column: str) -> Ids:
    """`hash_texts` of a column of ids, such as `pair_id`, uint64 [n]; raises as `read_batches`."""
    return np.concatenate([hash_texts(batch.column(0)) for batch in read_batches(path, (column,))])


def read_pair_scores(path: Path) -> tuple[Ids, npt.NDArray[np.float32]]:
    """`hash_texts` of each pair's id, uint64 [n]; the scores of its chosen and rejected answers, float32 [2, n].

    Raises:
        UserError: as `read_batches`, or a score is not finite.
    """
    scores = pa.Table.from_batches(_finite(path, read_batches(path, ("chosen_score", "rejected_score"))))
    return read_ids(path, "pair_id"), np.stack([column.to_numpy() for column in scores.columns])


def read_scores(path: Path) -> "pd.DataFrame":
    """The columns that metrics are computed from, about 60 bytes per pair.

    `CATEGORIES` are categorical, `prompt_id` numbers the prompts from 0 (int32).

    Raises:
        UserError: as `read_batches`, or a score is not finite.
    """
    table = pa.Table.from_batches(_finite(path, read_batches(path, MEASURED))).unify_dictionaries()
    frame: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True, ignore_metadata=True)
    frame["prompt_id"] = np.unique(read_ids(path, "prompt_id"), return_inverse=True)[1].astype(np.int32)
    return frame


def _finite(path: Path, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches of a file; raises `UserError` for a score that is missing or not finite."""
    first = 1
    for batch in batches:
        for name in ("chosen_score", "rejected_score"):
            finite = pc.fill_null(pc.is_finite(batch.column(name)), False)
            if not pc.all(finite).as_py():
                row = first + pc.index(finite, False).as_py()
                raise UserError(f"{path} row {row}: {name} is missing or not finite; {_REMEDY}")
        yield batch
        first += batch.num_rows
