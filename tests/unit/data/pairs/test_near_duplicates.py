from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from rewardline.data.pairs.identity import Hashes, word_hashes
from rewardline.data.pairs.near_duplicates import (
    SIGNATURE,
    SignatureFiles,
    distinct_shingles,
    groups,
    jaccard,
    near,
    signatures,
    with_contexts,
)

VOCABULARY = [f"word{k}" for k in range(2000)]


def text(seed: int, words: int = 60) -> list[str]:
    return [VOCABULARY[k] for k in np.random.default_rng(seed).integers(len(VOCABULARY), size=words)]


def found(
    folder: Path,
    texts: list[str],
    threshold: float = 0.8,
    ids: list[int] | None = None,
    contexts: list[int] | None = None,
) -> dict[int, int]:
    """Group of each prompt that has one; the signatures are in two files."""
    rows = with_contexts(signatures([word_hashes(one) for one in texts]), contexts or [0] * len(texts))
    paths = [folder / "one.bin", folder / "two.bin"]
    half = len(texts) // 2
    for path, part in zip(paths, (rows[:half], rows[half:]), strict=True):
        path.write_bytes(part.tobytes())
    numbers = np.array(ids or [10 * k for k in range(len(texts))], dtype=np.uint64)
    with ExitStack() as stack:
        table = groups(numbers, SignatureFiles(paths, stack), threshold)
    return {int(member): int(group) for member, group in table}


def test_planted_near_duplicates_are_found_among_many(tmp_path: Path) -> None:
    texts = [text(seed) for seed in range(300)]
    changed = [list(one) for one in texts[:40]]
    for one in changed:
        one[30] = "changed"  # 2 of 59 word pairs
    table = found(tmp_path, [" ".join(one) for one in texts + changed])
    assert table == {10 * k: 10 * (k % 300) for k in (*range(40), *range(300, 340))}


def test_similarity_below_the_threshold_does_not_link(tmp_path: Path) -> None:
    texts = [text(seed) for seed in range(100)]
    halved = [one[:30] + text(1000 + k, 30) for k, one in enumerate(texts)]
    assert found(tmp_path, [" ".join(one) for one in texts + halved]) == {}


def test_groups_are_joined_through_others(tmp_path: Path) -> None:
    words = text(1, 100)
    chain = [" ".join(words[start : start + 60]) for start in range(0, 30, 3)]
    assert set(found(tmp_path, chain).values()) == {0}


def test_texts_in_different_contexts_are_not_compared(tmp_path: Path) -> None:
    one = " ".join(text(1))
    assert found(tmp_path, [one, one + " more", one + " again"], contexts=[7, 7, 8]) == {0: 0, 10: 0}


def test_what_is_near_is_near_itself_and_not_through_others(tmp_path: Path) -> None:
    words = text(1, 100)
    chain = [" ".join(words[start : start + 60]) for start in range(0, 40, 3)]
    path = tmp_path / "all.bin"
    path.write_bytes(with_contexts(signatures([word_hashes(one) for one in chain]), [0] * len(chain)).tobytes())
    ids = np.arange(len(chain), dtype=np.uint64)
    with ExitStack() as stack:
        close = near(ids, ids == 0, SignatureFiles([path], stack), 0.8)
    assert {number for number, _ in close} <= {1, 2, 3}
    assert (1, 0) in close


def test_one_prompt_in_two_parts_is_no_group(tmp_path: Path) -> None:
    assert found(tmp_path, ["one and the same text"] * 2, ids=[5, 5]) == {}


def test_texts_without_words_are_like_nothing(tmp_path: Path) -> None:
    assert found(tmp_path, ["???", "!!!", "...", "a"]) == {}


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_signatures_estimate_the_jaccard_index(share: float) -> None:
    def words(first: int, last: int) -> Hashes:
        return word_hashes(" ".join(VOCABULARY[first:last]))

    size = 400
    shift = round(size * (1 - share) / (1 + share))
    one, other = words(0, size), words(shift, size + shift)
    exact = jaccard(distinct_shingles(one), distinct_shingles(other))
    assert abs(exact - share) < 0.02
    rows = signatures([one, other])
    assert rows.shape == (2, SIGNATURE)
    assert abs((rows[0] == rows[1]).mean() - exact) < 0.15


def test_signatures_do_not_depend_on_neighbours() -> None:
    texts = [word_hashes(" ".join(text(seed))) for seed in range(5)]
    together = signatures(texts)
    assert all(np.array_equal(signatures([one])[0], row) for one, row in zip(texts, together, strict=True))
