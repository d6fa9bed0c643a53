"""`suspects.parquet`: the pairs whose label is most probably wrong, with their texts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import pyarrow as pa
import pyarrow.parquet as pq

from rewardline.core.artifacts import verify
from rewardline.core.errors import UserError, first_line, refused_by_system
from rewardline.core.files import atomic_file
from rewardline.data.schema import PAIR_SCHEMA, Message, arrow_schema


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row: a pair that `runs` trained runs scored, of which `against` prefer the rejected answer.

    `probability`: that the label is wrong. The margins, chosen minus rejected, are in units of each run's root mean
    square: mean and standard deviation over the runs.
    """

    benchmark: str
    mixture: str | None
    pair_id: str
    dataset: str
    subset: str
    runs: Annotated[int, pa.int32()]
    against: Annotated[int, pa.int32()]
    probability: float
    margin_mean: float
    margin_std: float
    prompt: list[Message]
    chosen: str
    rejected: str
    file: str
    row: int


SUSPECTS: Final = "suspects.parquet"
SCHEMA: Final = arrow_schema(Suspect)
PAIR_COLUMNS: Final = [name for name in SCHEMA.names if name in PAIR_SCHEMA.names]
"""The columns that are those of the pair."""


def write_suspects(path: Path, suspects: Sequence[Suspect]) -> None:
    """Write the file; it appears complete or not at all."""
    with atomic_file(path) as partial:
        pq.write_table(pa.Table.from_pylist(list(map(asdict, suspects)), schema=SCHEMA), partial, compression="zstd")


def read_suspects(path: Path) -> list[Suspect]:
    """Read the file.

    Raises:
        UserError: it is missing, damaged or another file.
    """
    verify(path, "comparisons.json", "audit.json")
    try:
        return [Suspect(**row) for row in pq.read_table(path, columns=SCHEMA.names).to_pylist()]
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; run the compare stage first") from error
    except (OSError, pa.ArrowException, TypeError) as error:
        if refused_by_system(error):
            raise
        remedy = "delete it and run the compare stage again"
        raise UserError(f"{path} is damaged ({first_line(error)}); {remedy}") from error
