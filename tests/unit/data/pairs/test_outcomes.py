from pathlib import Path

from rewardline.data.pairs.outcomes import RowOutcomes, total
from rewardline.data.schema import Candidate

from support.pairs import candidate


def pair(prompt: int, row: int, dataset: str = "d", rows: int = 1) -> Candidate:
    return candidate(f"prompt {prompt}", "good", "bad", dataset, row, rows)


def test_a_row_counts_as_used_if_any_shard_uses_it(tmp_path: Path) -> None:
    """Row 1 gives two pairs in two shards; rows 2 and 3 lose all; row 4 is the first of five rows of a pair."""
    shards = []
    plans: list[list[tuple[Candidate, str | None]]] = [
        [(pair(1, 1), "duplicate"), (pair(1, 2), "tie"), (pair(1, 2), "duplicate")],
        [(pair(2, 1), None), (pair(2, 3, "e"), "duplicate"), (pair(2, 4, rows=5), None)],
        [],
    ]
    for number, plan in enumerate(plans):
        outcomes = RowOutcomes(["d", "e"])
        for one, reason in plan:
            outcomes.add(one, reason)
        shards.append(tmp_path / f"{number}.npy")
        outcomes.save(shards[-1])
    totals = total(shards, ["d", "e"])
    assert totals.used == {"d": 6, "e": 0}
    assert totals.left_out == {"d": {"tie": 1}, "e": {"duplicate": 1}}
    assert totals.pairs_left_out == {"duplicate": 2}
