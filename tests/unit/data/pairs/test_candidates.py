from itertools import pairwise
from pathlib import Path

import pytest

from rewardline.core.errors import UserError
from rewardline.data.pairs import candidates, external_sort
from rewardline.data.pairs.candidates import CandidateReader, CandidateWriter, compared, messages
from rewardline.data.pairs.external_sort import bucket_count
from rewardline.data.pairs.identity import hash_id, prompt_identity
from rewardline.data.parquet import read_rows
from rewardline.data.schema import Candidate, Message

from support.pairs import candidate, candidates_manifest


def numbered(number: int, row: int) -> Candidate:
    return candidate(f"prompt {number}", f"good {row}", "bad", row=row)


def written(folder: Path, pairs: list[Candidate], rows: int) -> CandidateReader:
    folder.mkdir()
    writer = CandidateWriter(folder, rows, 0)
    for pair in pairs:
        writer.add(pair)
    writer.close()
    candidates_manifest(folder, writer.rows, writer.characters)
    return CandidateReader(folder)


def test_a_prompt_is_compared_by_its_identity_words_and_system_messages() -> None:
    prompt: list[Message] = [
        {"role": "system", "content": "Be kind!"},
        {"role": "user", "content": "Why?"},
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Well?"},
    ]
    found = compared(prompt)
    assert found == (prompt_identity(prompt), "why well", "be kind be brief", hash_id("be kind", "be brief"))
    assert compared(prompt[1:2]) == (prompt_identity(prompt[1:2]), "why", "", 0)


@pytest.mark.parametrize("rows", [10, 100_000])
def test_all_is_read_back_in_order_by_range_and_by_prompt(tmp_path: Path, rows: int) -> None:
    pairs = [numbered(k % 700, k) for k in range(2000)]
    reader = written(tmp_path / "c", pairs, rows)
    ordered = sorted(pairs, key=lambda pair: pair.order)
    assert reader.between(0, 2**64) == ordered
    edges = [0, 2**60, 2**63, 2**63 + 7, 2**64]
    parts = [reader.between(low, high) for low, high in pairwise(edges)]
    assert [pair for part in parts for pair in part] == ordered
    assert [reader.count(low, high) for low, high in pairwise(edges)] == [len(p) for p in parts]
    prompts = [pairs[3].prompt_id, pairs[600].prompt_id, 12345]
    assert reader.of(prompts) == [pair for pair in ordered if pair.prompt_id in prompts]


def test_nothing_is_left_beside_the_files_and_no_rows_are_fine(tmp_path: Path) -> None:
    assert written(tmp_path / "c", [], 0).between(0, 2**64) == []
    names = {"candidates.arrow", "rows.npy", "prompts.npy", "signatures.bin", "manifest.json", "batches.npy"}
    names |= {"words.bin", "word_counts.npy"}
    assert {path.name for path in (tmp_path / "c").iterdir()} == names


@pytest.mark.parametrize("content", [None, b"PAR1"])
def test_what_cannot_be_read_is_named_with_a_remedy(tmp_path: Path, content: bytes | None) -> None:
    reader = written(tmp_path / "c", [numbered(1, 1)], 1)
    rows, part = tmp_path / "c" / "candidates.arrow", tmp_path / "part-00000.parquet"
    rows.unlink()
    if content is not None:
        rows.write_bytes(content)
        part.write_bytes(content)
    remedy = r"cannot be read \(.+\); delete its folder and run again$"
    with pytest.raises(UserError, match=rf"{rows} is damaged \(.+\)\. .*snakemake"):
        reader.between(0, 2**64)
    with pytest.raises(UserError, match=rf"{part} {remedy}"):
        list(read_rows(part))


def test_every_byte_of_the_candidates_is_verified(tmp_path: Path) -> None:
    written(tmp_path / "c", [numbered(k, k) for k in range(600)], 600)
    path = tmp_path / "c" / "candidates.arrow"
    before, manifest = path.read_bytes(), path.with_name("manifest.json").read_bytes()
    for offset in {*range(0, len(before), 97), len(before) - 1}:
        path.write_bytes(before[:offset] + bytes([before[offset] ^ 4]) + before[offset + 1 :])
        with pytest.raises(UserError, match=r"candidates\.arrow is damaged"):
            CandidateReader(tmp_path / "c").between(0, 2**64)
        path.with_name("manifest.json").write_bytes(manifest)
    path.write_bytes(before)
    assert len(CandidateReader(tmp_path / "c").between(0, 2**64)) == 600


def test_a_bucket_that_gets_too_large_is_split_and_keeps_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external_sort, "_ROWS", 50)
    monkeypatch.setattr(external_sort, "_WAITING_ROWS", 70)
    pairs = [numbered(k * 7919 % 900, k) for k in range(2000)]
    reader = written(tmp_path / "c", pairs, 10)
    assert reader.between(0, 2**64) == sorted(pairs, key=lambda pair: pair.order)


@pytest.mark.parametrize("rows", [10, 100_000])
def test_candidates_in_columns_are_written_as_one_by_one(tmp_path: Path, rows: int) -> None:
    pairs = [numbered(k * 7919 % 700, k)._replace(margin=float(k) if k % 3 else None) for k in range(2000)]
    one_by_one = written(tmp_path / "rows", pairs, rows)
    (tmp_path / "columns").mkdir()
    writer = CandidateWriter(tmp_path / "columns", rows, 0)
    names = "file", "row", "prompt", "chosen", "rejected", "margin"
    for start in range(0, len(pairs), 300):
        writer.add(pairs[start])
        some = pairs[start + 1 : start + 300]
        prompts = [compared(messages(pair.prompt)) for pair in some]
        columns = {name: [getattr(pair, name) for pair in some] for name in names}
        texts = sum(len(pair.prompt) + len(pair.chosen) + len(pair.rejected) for pair in some)
        writer.add_columns(prompts, columns, pairs[0], texts)
    writer.close()
    candidates_manifest(tmp_path / "columns", writer.rows, writer.characters)
    assert CandidateReader(tmp_path / "columns").read(0, 2**64).equals(one_by_one.read(0, 2**64))
    for path in (tmp_path / "rows").iterdir():
        if path.name not in ("candidates.arrow", "batches.npy"):  # nulls may be encoded in several ways
            assert (tmp_path / "columns" / path.name).read_bytes() == path.read_bytes(), path.name


def test_buckets_are_bounded_by_rows_and_by_text() -> None:
    assert bucket_count(0, 0) == 1
    assert bucket_count(1_000_000, 0) == 50
    assert bucket_count(10, 1 << 30) > 20
    assert candidates._BATCH * 100_000 < 1 << 30
