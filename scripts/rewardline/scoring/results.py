"""The scores of a shard of rows, as its folder holds them."""

from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa

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

    `names` are those of all their scores; `cut` is the number of prompts that lost their beginning.
    """

    rows: int
    names: list[str]
    cut: int
    parts: list[PartEntry]
