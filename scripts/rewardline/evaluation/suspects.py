"""`suspects.parquet`: pairs most likely mislabelled, where most runs prefer the rejected answer, with their texts."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rewardline.core.errors import UserError, first_line
from rewardline.core.files import atomic_file
from rewardline.data.parquet import reading
from rewardline.data.schema import Message, arrow_schema
from rewardline.evaluation.scores import hash_texts

if TYPE_CHECKING:
    from rewardline.evaluation.preferences import Preferences

MOST = 200
"""Suspects of a leaderboard."""


class PairText(TypedDict):
    """What a suspect has of its pair."""

    pair_id: str
    dataset: str
    subset: str
    prompt: list[Message]
    chosen: str
    rejected: str
    file: str
    row: int


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row: a pair that `runs` trained runs scored, of which `against` prefer the rejected answer.

    The margins, chosen minus rejected, are in units of each run's root mean square: mean and standard deviation over
    the runs.
    """

    benchmark: str
    mixture: str | None
    pair_id: str
    dataset: str
    subset: str
    runs: Annotated[int, pa.int32()]
    against: Annotated[int, pa.int32()]
    margin_mean: float
    margin_std: float
    prompt: list[Message]
    chosen: str
    rejected: str
    file: str
    row: int


SCHEMA: Final = arrow_schema(Suspect)


def write_suspects(path: Path, suspects: Sequence[Suspect]) -> None:
    """Write the file; it appears complete or not at all."""
    with atomic_file(path) as partial:
        pq.write_table(pa.Table.from_pylist(list(map(asdict, suspects)), schema=SCHEMA), partial, compression="zstd")


def read_suspects(path: Path) -> list[Suspect]:
    """Read the file.

    Raises:
        UserError: it is missing, damaged or another file.
    """
    try:
        rows = pq.read_table(path, columns=SCHEMA.names).to_pylist()
        return [Suspect(**row) for row in rows]
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; run the compare stage first") from error
    except (OSError, pa.ArrowException, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({first_line(error)}); delete it and run the compare stage again"
        ) from error


def find_suspects(preferences: "Preferences", pairs: Path, benchmark: str, mixture: str | None) -> Iterator[Suspect]:
    """The pairs whose label most runs contradict: first those with the largest share against, at most MOST.

    Among equal shares, first those that more runs scored, then those that runs are surest about (confident
    disagreement, after Northcutt et al. 2021, arXiv 1911.00068). `pairs`: the folder with their texts.

    Raises:
        UserError: a pair is missing, or a file is damaged.
    """
    share = preferences.against / np.maximum(preferences.runs, 1)
    contradicted = np.flatnonzero(share > 0.5)
    order = np.lexsort(
        (
            preferences.pairs[contradicted],
            preferences.margin_mean[contradicted],
            -preferences.runs[contradicted],
            -share[contradicted],
        )
    )[:MOST]
    suspected = contradicted[order]
    texts = _texts(pairs, preferences.pairs[suspected])
    for k in suspected:
        if int(preferences.pairs[k]) not in texts:
            raise UserError(f"{pairs} lacks a pair that was scored; delete results/evals and run again")
        yield Suspect(
            benchmark=benchmark,
            mixture=mixture,
            runs=int(preferences.runs[k]),
            against=int(preferences.against[k]),
            margin_mean=float(preferences.margin_mean[k]),
            margin_std=float(preferences.margin_std[k]),
            **texts[int(preferences.pairs[k])],
        )


def _texts(pairs: Path, ids: npt.NDArray[np.uint64]) -> dict[int, PairText]:
    """The texts of pairs, by the hash of their ids; only row groups that hold one are read in full."""
    texts: dict[int, PairText] = {}
    for part in sorted(pairs.glob("part-*.parquet")) if len(ids) else ():
        with reading(part), pq.ParquetFile(part) as file:
            for group in range(file.num_row_groups):
                present = hash_texts(file.read_row_group(group, columns=["pair_id"]).column(0).combine_chunks())
                rows = np.flatnonzero(np.isin(present, ids))
                if len(rows):
                    table = file.read_row_group(group, columns=list(PairText.__annotations__)).take(rows)
                    texts.update(zip(present[rows].tolist(), table.to_pylist(), strict=True))
    return texts
