from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from rewardline.data.pairs.decontamination import BenchmarkPrompts
from rewardline.data.pairs.identity import word_hashes

QUESTION = "why does the moon look larger when it stands near the horizon than when it stands high in the sky"


def index(*prompts: str, n: int | None = 8, near: Sequence[tuple[int, str]] = ()) -> BenchmarkPrompts:
    rows = [("t", 10 + k, word_hashes(text)) for k, text in enumerate(prompts)]
    return BenchmarkPrompts.build(rows, near, n, 0.5)


def test_the_same_prompt_and_one_that_is_nearly_the_same_are_found() -> None:
    prompts = index("a", "b", near=[(77, "t")])
    assert prompts.find(10, partial(word_hashes, "")) == "its prompt is in t"
    assert prompts.find(77, partial(word_hashes, "")) == "its prompt is nearly the same as one of t"
    assert prompts.find(5, partial(word_hashes, "")) is None
    assert prompts.may_have(np.array([10, 77, 5], dtype=np.uint64)).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"Please answer the following. {QUESTION}? Thank you very much for all your help with it.", True),
        (QUESTION.replace("larger", "bigger"), True),
        (" ".join(QUESTION.split()[:12]), False),
        ("why does the sun look larger", False),
        ("", False),
    ],
)
def test_runs_of_words_count_by_their_share_of_the_benchmark_prompt(text: str, found: bool) -> None:
    prompts = index("something short", QUESTION, "something that is long enough to have runs of eight words")
    assert (prompts.find(1, partial(word_hashes, text)) is not None) == found
    assert index(QUESTION, n=None).find(1, partial(word_hashes, text)) is None
    assert prompts.may_have(np.array([1], dtype=np.uint64)).all()  # its words are not known


def test_the_index_is_the_same_after_saving(tmp_path: Path) -> None:
    prompts = index(QUESTION, near=[(4, "t")])
    prompts.save(tmp_path)
    loaded = BenchmarkPrompts.load(tmp_path)
    for number, text in ((10, ""), (4, ""), (1, QUESTION), (1, "no")):
        assert loaded.find(number, partial(word_hashes, text)) == prompts.find(number, partial(word_hashes, text))


def test_without_benchmarks_nothing_is_found(tmp_path: Path) -> None:
    BenchmarkPrompts.build([], [], 8, 0.5).save(tmp_path)
    assert BenchmarkPrompts.load(tmp_path).find(1, partial(word_hashes, QUESTION)) is None


def test_boilerplate_of_a_benchmark_does_not_count() -> None:
    text = "read the text above with care and answer all questions on it in your own words"
    prompts = [f"{text} {QUESTION.replace('moon', word)}" for word in ("moon", "sun")]
    many = index(*prompts, *(f"{text} {k} {k} {k}" for k in range(20)))
    assert many.find(1, partial(word_hashes, f"{text} what now")) is None
    assert many.find(1, partial(word_hashes, QUESTION)) is not None
