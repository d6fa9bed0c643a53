"""The scores of a shard of rows, as its folder holds them."""

from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa
from pydantic import Field

from rewardline.core.artifacts import Manifest
from rewardline.data.parquet import PartEntry


@dataclass(frozen=True, slots=True)
class RowScores:
    """The scores of a row's answers, or why it has none: a code to count by, and a sentence."""

    scores: Annotated[list[float] | None, pa.list_(pa.float32())]
    reason: str | None
    detail: str | None


class ScoredRows(Manifest):
    """The manifest of a shard of scored rows.

    `names` are those of all their scores; `cut` is the number of prompts that lost their beginning. `reads_names`:
    whether names of systems were system prompts, see `rows.parse_row`.
    """

    rows: int
    names: list[str]
    cut: int
    reads_names: bool = Field(False, exclude_if=lambda reads_names: not reads_names)
    parts: list[PartEntry]
