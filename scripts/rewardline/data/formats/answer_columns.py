"""Answers that stand in columns of their own: answer_a and answer_b, response_1 to response_4."""

from functools import lru_cache
from itertools import product
from typing import Final, NamedTuple

_STEMS: Final = (
    "answer",
    "response",
    "output",
    "completion",
    "conversation",
    "conv",
    "human_ref",
    "sample",
    "candidate",
)
_ENDS: Final = (("_a", "_b"), ("_A", "_B"), ("_0", "_1"), ("_1", "_2"), ("1", "2"), ("0", "1"))
_FIRST: Final = ("_a", "_A", "_0", "_1", "0", "1")


class Two(NamedTuple):
    """The keys of two answers, and those that would hold their scores and the counts of their votes."""

    one: str
    two: str
    scores: tuple[str, str]
    votes: tuple[str, str]


class Column(NamedTuple):
    """The key of one of several answers, how it ends, and the keys that may hold its score."""

    key: str
    end: str
    scores: tuple[str, ...]


@lru_cache(maxsize=1024)
def answer_keys(names: tuple[str, ...]) -> list[Two]:
    """The pairs of keys among `names` that hold two answers and no more; not to be changed."""
    several = {column.key for family in answer_columns(names) for column in family}
    found = [
        Two(stem + one, stem + two, _score_keys(stem, one, two, names), (f"votes{one}", f"votes{two}"))
        for stem, (one, two) in product(_STEMS, _ENDS)
        if stem + one in names and stem + two in names and stem + one not in several
    ]
    return found + [
        Two(f"left_{stem}", f"right_{stem}", ("left_score", "right_score"), ("left_votes", "right_votes"))
        for stem in _STEMS
        if f"left_{stem}" in names and f"right_{stem}" in names
    ]


@lru_cache(maxsize=1024)
def answer_columns(names: tuple[str, ...]) -> list[list[Column]]:
    """Three or more keys among `names` that go on from each other, such as answer_1 to answer_4; not to be changed."""
    found = []
    for stem, first in product(_STEMS, _FIRST):
        ends = [first]
        while stem + ends[-1] in names:
            ends.append(_after(ends[-1]))
        if len(ends) > 3:
            found.append([Column(stem + end, end.lstrip("_").lower(), _own_scores(stem, end)) for end in ends[:-1]])
    return [family for family in found if not any(_within(family, other) for other in found if other is not family)]


def _within(family: list[Column], other: list[Column]) -> bool:
    return {column.key for column in family} < {column.key for column in other}


def _after(end: str) -> str:
    digits = end.lstrip("_")
    if digits.isdigit():
        return end[: len(end) - len(digits)] + str(int(digits) + 1)
    return end[:-1] + chr(ord(end[-1]) + 1)


def _own_scores(stem: str, end: str) -> tuple[str, ...]:
    return f"{stem}{end}_rating", f"{stem}{end}_score", f"score{end}", f"rating{end}"


def _score_keys(stem: str, one: str, two: str, names: tuple[str, ...]) -> tuple[str, str]:
    for keys in zip(_own_scores(stem, one), _own_scores(stem, two), strict=True):
        if all(key in names for key in keys):
            return keys
    return f"score{one}", f"score{two}"
