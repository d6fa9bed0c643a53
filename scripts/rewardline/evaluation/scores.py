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

from rewardline.core.errors import UserError, first_line
from rewardline.data.schema import AnswerPosition, arrow_schema

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


SCHEMA: Final = arrow_schema(ScoredPair)
NEEDED = ("prompt_id", "subset", "chosen_score", "rejected_score", "chosen_tokens", "rejected_tokens", "correct")
MEASURED = (
    *NEEDED,
    *("margin", "weight", "comparison", "chosen_answer", "rejected_answer", "chosen_source", "rejected_source"),
)
"""Columns that metrics are computed from; those that are not `NEEDED` may be missing."""
CATEGORIES = ("subset", "chosen_source", "rejected_source")
Column = (
    npt.NDArray[np.float32]
    | npt.NDArray[np.float64]
    | npt.NDArray[np.int32]
    | npt.NDArray[np.int64]
    | npt.NDArray[np.uint64]
)
_REMEDY = "delete it and run the evaluate stage again"


@dataclass(frozen=True)
class PairScores:
    """The scores of a file's pairs: `ids` are `hash_texts` of their ids, uint64 [n]; both scores are float32 [n]."""

    ids: npt.NDArray[np.uint64]
    chosen: npt.NDArray[np.float32]
    rejected: npt.NDArray[np.float32]


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


def read_batches(
    path: Path, columns: Sequence[str], needed: Sequence[str] | None = None, size: int = 1 << 16
) -> Iterator[pa.RecordBatch]:
    """Some columns, `size` rows at a time; those that are not `needed` (by default all are) may be missing.

    Raises:
        UserError: the file is missing, damaged or empty, or lacks a needed column.
    """
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            for name in columns if needed is None else needed:
                if name not in names:
                    raise UserError(f"{path} has no column {name!r}; {_REMEDY}")
            if not file.metadata.num_rows:
                raise UserError(f"{path} has no pairs; the benchmark or eval split is empty")
            present = [name for name in columns if name in names]
            for batch in file.iter_batches(size, columns=present):
                yield batch.select(present)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; run the evaluate stage first") from error
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is damaged ({first_line(error)}); {_REMEDY}") from error


def read_table(path: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns; raises as `read_batches`."""
    return pa.Table.from_batches(list(read_batches(path, columns)))


def read_ids(path: Path, column: str) -> npt.NDArray[np.uint64]:
    """`hash_texts` of `pair_id` or `prompt_id`, uint64 [n]; raises as `read_batches`."""
    return np.concatenate([hash_texts(batch.column(0)) for batch in read_batches(path, (column,))])


def read_pair_scores(path: Path) -> PairScores:
    """The scores of all pairs.

    Raises:
        UserError: as `read_batches`, or a score is not finite.
    """
    batches = _finite(path, read_batches(path, ("pair_id", "chosen_score", "rejected_score")))
    ids, chosen, rejected = zip(
        *((hash_texts(batch.column(0)), batch.column(1).to_numpy(), batch.column(2).to_numpy()) for batch in batches),
        strict=True,
    )
    return PairScores(np.concatenate(ids), np.concatenate(chosen), np.concatenate(rejected))


def read_scores(path: Path) -> "pd.DataFrame":
    """The columns that metrics are computed from, as far as the file has them: about 60 bytes a pair.

    `CATEGORIES` are categories, `prompt_id` is a number for each prompt, from 0 (int32), and a missing integer is -1.

    Raises:
        UserError: as `read_batches`, or a score is not finite.
    """
    import pandas as pd  # here and below, as others read this file without it

    arrays: dict[str, Column] = {}
    codes: dict[str, dict[str, int]] = {name: {} for name in CATEGORIES}
    first = 0
    for batch in _finite(path, read_batches(path, MEASURED, NEEDED)):
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            column: Column
            if name in codes:
                column = _codes(values, codes[name])
            else:
                column = hash_texts(values) if name == "prompt_id" else _numbers(values, SCHEMA.field(name).type)
            if not first:  # all at once, as pieces that are put together later take twice the memory
                arrays[name] = np.empty(pq.read_metadata(path).num_rows, column.dtype)
            arrays[name][first : first + len(column)] = column
        first += batch.num_rows
    frame = pd.DataFrame(arrays, copy=False)
    for name in codes.keys() & arrays.keys():
        frame[name] = pd.Categorical.from_codes(frame[name], list(codes[name]))
    if "prompt_id" in frame:
        frame["prompt_id"] = np.unique(frame["prompt_id"], return_inverse=True)[1].astype(np.int32)
    return frame


def hash_texts(texts: pa.Array) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each text, which represents ids where there are millions: uint64 [n], 0 for null."""
    import pandas as pd

    encoded = texts.cast(pa.string()).dictionary_encode()
    different = np.array(encoded.dictionary.to_pylist(), dtype=object)
    hashes = np.append(pd.util.hash_array(different, categorize=False), np.uint64(0))
    result: npt.NDArray[np.uint64] = hashes[encoded.indices.fill_null(len(different)).to_numpy()]
    return result


def _finite(path: Path, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches of a file; raises `UserError` for a score that is missing or not finite."""
    first = 1
    for batch in batches:
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            if name.endswith("_score") and not pc.all(usable := pc.fill_null(pc.is_finite(values), False)).as_py():
                row = first + pc.index(usable, False).as_py()
                raise UserError(f"{path} row {row}: {name} is missing or not finite; {_REMEDY}")
        yield batch
        first += batch.num_rows


def _codes(values: pa.Array, known: dict[str, int]) -> npt.NDArray[np.int32]:
    """A number for each text, from 0 as they come; -1 for null. `known` gets those that are new."""
    encoded = values.cast(pa.string()).dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    codes = np.array([known.setdefault(text, len(known)) for text in texts] + [-1], dtype=np.int32)
    result: npt.NDArray[np.int32] = codes[encoded.indices.fill_null(len(texts)).to_numpy()]
    return result


def _numbers(values: pa.Array, kind: pa.DataType) -> Column:
    """A column of numbers of this type; -1 for a missing integer, NaN for another missing number."""
    if pa.types.is_integer(kind):
        values = values.fill_null(-1)
    result: Column = values.cast(kind).to_numpy(zero_copy_only=False)
    return result
