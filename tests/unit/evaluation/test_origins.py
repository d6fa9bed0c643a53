from pathlib import Path

import pytest

from rewardline.core.errors import UserError
from rewardline.data.pairs.store import PartWriter
from rewardline.data.schema import Pair
from rewardline.evaluation.origins import with_origins

from support.pairs import pair_rows


def written(folder: Path, count: int) -> Path:
    writer = PartWriter(folder, Pair, rows_per_part=3, batch=2)
    for k, row in enumerate(pair_rows(count)):
        writer.add(Pair(**{**row, "pair_id": f"p{k}", "chosen_source": "one" if k % 2 else None}))
    writer.close()
    return folder


def test_scored_pairs_find_their_rows_and_dropped_ones_are_passed_over(tmp_path: Path) -> None:
    scored = [{"pair_id": f"p{k}", "chosen_score": float(k)} for k in (1, 2, 6)]
    found = list(with_origins(scored, written(tmp_path / "eval", 8)))
    assert [row["row"] for row in found] == [2, 3, 7]
    assert [row["chosen_source"] for row in found] == ["one", None, None]
    assert [row["chosen_score"] for row in found] == [1, 2, 6]


def test_a_scored_pair_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lacks pair p9 of the tokens"):
        list(with_origins([{"pair_id": "p9"}], written(tmp_path / "eval", 4)))
