"""Rows of scored pairs: where they come from."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rewardline.core.errors import UserError
from rewardline.data.parquet import PartWriter
from rewardline.data.schema import PAIR_SCHEMA, Pair
from rewardline.evaluation.score_pairs import scored_pairs
from rewardline.scoring.batch_scorer import Scores
from rewardline.tokens.store import Comparison, ComparisonPair

from support.pairs import pair_rows


def written(folder: Path, count: int) -> Path:
    """A folder of pairs."""
    writer = PartWriter[Pair](folder / "eval", PAIR_SCHEMA, part_rows=3, batch_rows=2)
    for k, row in enumerate(pair_rows(count)):
        writer.add(Pair(**{**row, "pair_id": f"p{k}", "chosen_source": "one" if k % 2 else None}))
    writer.close()
    return folder


def scored(*numbers: int) -> Iterator[tuple[Comparison, Scores]]:
    """Comparisons with the pairs of these numbers, which are their chosen scores too."""
    for k in numbers:
        pair = ComparisonPair(
            f"p{k}", dataset="d", subset="s", chosen=1, rejected=0, margin=None, confidence=1.0, weight=1.0
        )
        ids = [np.arange(n, dtype=np.int32) for n in (3, 2, 4)]
        yield (
            Comparison("prompt", ids[0], ids[1:], [pair]),
            np.array([2.0, k], np.float32),
        )


def test_scored_pairs_find_their_rows_and_dropped_ones_are_skipped(tmp_path: Path) -> None:
    found = list(scored_pairs(scored(1, 2, 6), written(tmp_path, 8)))
    assert [row.row for row in found] == [2, 3, 7]
    assert [row.chosen_source for row in found] == ["one", None, None]
    assert [row.chosen_score for row in found] == [1, 2, 6]
    assert [row.correct for row in found] == [0, 0.5, 1]
    assert [(row.comparison, row.chosen_tokens, row.rejected_tokens) for row in found] == [(k, 7, 5) for k in range(3)]


def test_without_pairs_there_are_no_origins() -> None:
    (found,) = scored_pairs(scored(3), None)
    assert (found.pair_id, found.file, found.row, found.place) == ("p3", None, None, None)


def test_a_scored_pair_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lacks pair p9 of the tokens"):
        list(scored_pairs(scored(9), written(tmp_path, 4)))
