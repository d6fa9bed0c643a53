from itertools import pairwise
from pathlib import Path

import pytest

from rewardline.core.errors import UserError
from rewardline.core.files import write_json
from rewardline.core.hashing import canonical
from rewardline.data.pairs import candidates
from rewardline.data.pairs.accounting import RowAccount, balance
from rewardline.data.pairs.candidates import Candidate, CandidateReader, CandidateWriter
from rewardline.data.pairs.external_sort import bucket_count
from rewardline.data.pairs.identity import prompt_identity
from rewardline.data.pairs.store import read_part


def candidate(number: int, row: int, dataset: str = "d", rows: int = 1) -> Candidate:
    turns = [{"role": "user", "content": f"prompt {number}"}]
    return Candidate(
        prompt_identity(turns),
        canonical(turns),
        f"good {row}",
        "bad",
        None,
        1.0,
        1.0,
        "s",
        dataset,
        "f",
        row,
        [{"file": "f", "row": row + k} for k in range(1, rows)],
    )


def written(folder: Path, pairs: list[Candidate], rows: int) -> CandidateReader:
    folder.mkdir()
    writer = CandidateWriter(folder, rows, 0)
    for pair in pairs:
        writer.add(pair)
    writer.close()
    write_json(folder / "manifest.json", {"characters": writer.characters})
    return CandidateReader(folder)


@pytest.mark.parametrize("rows", [10, 100_000])
def test_all_is_read_back_in_order_by_range_and_by_prompt(tmp_path: Path, rows: int) -> None:
    pairs = [candidate(k % 700, k) for k in range(2000)]
    reader = written(tmp_path / "c", pairs, rows)
    ordered = sorted(pairs, key=lambda pair: pair.order)
    assert reader.between(0, 2**64) == ordered
    edges = [0, 2**60, 2**63, 2**63 + 7, 2**64]
    parts = [reader.between(low, high) for low, high in pairwise(edges)]
    assert [pair for part in parts for pair in part] == ordered
    assert [reader.count(low, high) for low, high in pairwise(edges)] == [len(p) for p in parts]
    wanted = [pairs[3].prompt_id, pairs[600].prompt_id, 12345]
    assert reader.of(wanted) == [pair for pair in ordered if pair.prompt_id in wanted]


def test_nothing_is_left_beside_the_files_and_no_rows_are_fine(tmp_path: Path) -> None:
    assert written(tmp_path / "c", [], 0).between(0, 2**64) == []
    names = {"candidates.arrow", "rows.npy", "prompts.npy", "signatures.bin", "manifest.json", "batches.npy"}
    assert {path.name for path in (tmp_path / "c").iterdir()} == names


@pytest.mark.parametrize("content", [None, b"PAR1"])
def test_what_cannot_be_read_is_named_with_a_remedy(tmp_path: Path, content: bytes | None) -> None:
    reader = written(tmp_path / "c", [candidate(1, 1)], 1)
    rows, part = tmp_path / "c" / "candidates.arrow", tmp_path / "part-00000.parquet"
    rows.unlink()
    if content is not None:
        rows.write_bytes(content)
        part.write_bytes(content)
    remedy = r"cannot be read \(.+\); delete its folder and run again$"
    with pytest.raises(UserError, match=rf"{rows} {remedy}"):
        reader.between(0, 2**64)
    with pytest.raises(UserError, match=rf"{part} {remedy}"):
        list(read_part(part))


def test_buckets_are_bounded_by_rows_and_by_text() -> None:
    assert bucket_count(0, 0) == 1
    assert bucket_count(1_000_000, 0) == 50
    assert bucket_count(10, 1 << 30) > 20
    assert candidates._BATCH * 100_000 < 1 << 30


def test_a_row_counts_as_used_if_any_shard_uses_it(tmp_path: Path) -> None:
    """Row 1 gives two pairs in two shards; rows 2 and 3 lose all; row 4 stands for five rows."""
    shards = []
    plans: list[list[tuple[Candidate, str | None]]] = [
        [(candidate(1, 1), "duplicate"), (candidate(1, 2), "tie"), (candidate(1, 2), "duplicate")],
        [(candidate(2, 1), None), (candidate(2, 3, "e"), "duplicate"), (candidate(2, 4, rows=5), None)],
        [],
    ]
    for number, plan in enumerate(plans):
        account = RowAccount(["d", "e"])
        for pair, reason in plan:
            if reason is None:
                account.use(pair)
            else:
                account.leave_out(pair, reason)
        shards.append((tmp_path / f"{number}.npy", account.save(tmp_path / f"{number}.npy")))
    left_out, used, pairs = balance(shards, ["d", "e"])
    assert used == {"d": 6, "e": 0}
    assert left_out == {"d": {"tie": 1}, "e": {"duplicate": 1}}
    assert pairs == {"duplicate": 2}
