"""Several answers to a prompt: in columns of their own, in a list or in an object; and which of them is the best."""

from collections.abc import Iterable
from functools import lru_cache
from itertools import product
from typing import Final, NamedTuple

from rewardline.data.conversation import Reject, describe_type
from rewardline.data.formats.fields import RowFields, is_number, label_text

_STEMS = ("answer", "response", "output", "completion", "conversation", "conv", "human_ref", "sample", "candidate")
_ENDS: Final = (("_a", "_b"), ("_A", "_B"), ("_0", "_1"), ("_1", "_2"), ("1", "2"), ("0", "1"))
_FIRST_ENDS: Final = ("_a", "_A", "_0", "_1", "0", "1")


class NumberingReject(Reject):
    """The best answer is named by a number, and which number the first answer has is not known."""


class TwoAnswerKeys(NamedTuple):
    """The keys of two answers, and those that would hold their scores and the counts of their votes."""

    first: str
    second: str
    scores: tuple[str, str]
    votes: tuple[str, str]


class AnswerColumn(NamedTuple):
    """The key of one of several answers, how it ends, and the keys that may hold its score."""

    key: str
    end: str
    scores: tuple[str, ...]


class AnswerList(NamedTuple):
    """Several answers as a row has them; `names` are what else than its number may name each."""

    items: list[object]
    names: list[tuple[str, ...]]
    scores: list[object] | None = None


@lru_cache(maxsize=1024)
def two_answer_keys(keys: tuple[str, ...]) -> list[TwoAnswerKeys]:
    """Those among a row's keys that hold two answers and no more; not to be changed."""
    several = {column.key for columns in answer_columns(keys) for column in columns}
    found = [
        TwoAnswerKeys(stem + one, stem + two, _two_score_keys(stem, one, two, keys), (f"votes{one}", f"votes{two}"))
        for stem, (one, two) in product(_STEMS, _ENDS)
        if stem + one in keys and stem + two in keys and stem + one not in several
    ]
    return found + [
        TwoAnswerKeys(f"left_{stem}", f"right_{stem}", ("left_score", "right_score"), ("left_votes", "right_votes"))
        for stem in _STEMS
        if f"left_{stem}" in keys and f"right_{stem}" in keys
    ]


@lru_cache(maxsize=1024)
def answer_columns(keys: tuple[str, ...]) -> list[list[AnswerColumn]]:
    """Three or more of a row's keys that continue each other, such as answer_1 to answer_4; not to be changed."""
    found = []
    for stem, first in product(_STEMS, _FIRST_ENDS):
        ends = [first]
        while stem + ends[-1] in keys:
            ends.append(_next_end(ends[-1]))
        if len(ends) > 3:
            ends.pop()
            found.append([AnswerColumn(stem + end, end.lstrip("_").lower(), _score_keys(stem, end)) for end in ends])
    sets = [{column.key for column in columns} for columns in found]
    return [columns for columns, own in zip(found, sets, strict=True) if not any(own < other for other in sets)]


def _next_end(end: str) -> str:
    digits = end.lstrip("_")
    if digits.isdigit():
        return end[: len(end) - len(digits)] + str(int(digits) + 1)
    return end[:-1] + chr(ord(end[-1]) + 1)


def _score_keys(stem: str, end: str) -> tuple[str, ...]:
    return f"{stem}{end}_rating", f"{stem}{end}_score", f"score{end}", f"rating{end}"


def _two_score_keys(stem: str, one: str, two: str, keys: tuple[str, ...]) -> tuple[str, str]:
    for both in zip(_score_keys(stem, one), _score_keys(stem, two), strict=True):
        if all(key in keys for key in both):
            return both
    return f"score{one}", f"score{two}"


def read_answers(row: RowFields) -> object:
    """The answers of a row: an `AnswerList` from columns or an object of texts, else the value where they should be."""
    record = row.record
    found = answer_columns(tuple(record))
    if not row.mapped("answers") and len(found) == 1:
        (columns,) = found
        items: list[object] = [record[column.key] for column in columns]
        names: list[tuple[str, ...]] = [(column.key.lower(), column.end, f"model_{column.end}") for column in columns]
        scores: list[object] = [
            next((record[key] for key in column.scores if key in record), None) for column in columns
        ]
        scored = any(key in record for column in columns for key in column.scores)
        return AnswerList(items, names, scores if scored else None)
    value = as_objects(row.required("answers"))
    if isinstance(value, dict) and value and all(isinstance(text, str) for text in value.values()):
        return AnswerList(list(value.values()), [(name.lower(),) for name in value])
    if isinstance(value, list):
        return AnswerList(value, [_labels_of(item) for item in value])
    return value


def _labels_of(item: object) -> tuple[str, ...]:
    """The labels of an answer that is an object, as ARC has them."""
    if not isinstance(item, dict):
        return ()
    return tuple(label_text(item[key]) for key in ("label", "id") if item.get(key) is not None)


def as_objects(items: object) -> object:
    """A list of objects for an object of lists of one length, as some Parquet files hold it; all else as it is."""
    if not isinstance(items, dict) or not items or not all(isinstance(values, list) for values in items.values()):
        return items
    if len({len(values) for values in items.values()}) > 1:
        return items
    return [dict(zip(items, values, strict=True)) for values in zip(*items.values(), strict=True)]


def best_label(row: RowFields) -> object:
    """What names the best answer, or the list of the best ones; None if nothing does."""
    if row.mapped("best") or row.present("best"):
        return row.optional("best")
    if answer_columns(tuple(row.record)) and row.present("preference"):
        return row.optional("preference")
    if "choices" in row.record and "answer" in row.record:
        return row.record["answer"]  # questions with choices
    return None


def best_indices(best: object, answers: AnswerList, first_number: int | None) -> set[int]:
    """The indices of the best answers.

    Rejects what names none of them, and a number unless `first_number`, that of the first answer, is known.
    """
    return {_index(label, answers, first_number) for label in (best if isinstance(best, list) else [best])}


def _index(best: object, answers: AnswerList, first_number: int | None) -> int:
    label = label_text(best)
    found = [n for n, names in enumerate(answers.names) if label in names and not is_number(best)]
    found = found or [n for n, item in enumerate(answers.items) if isinstance(best, str) and item == best]
    if not found and is_number(best):
        if first_number is None or not label.isdigit():
            detail = f"which answer is number {label}? set `values: {{start: 0}}` or `{{start: 1}}`"
            raise NumberingReject("bad_best", detail)
        found = [int(label) - first_number]
    elif not found and len(label) == 1 and label.isascii() and label.isalpha():
        found = [ord(label) - ord("a")]
    if len(found) != 1 or not 0 <= found[0] < len(answers.items):
        shown = repr(label[:50]) if isinstance(best, str | int | float) else describe_type(best)
        reason = "unknown_code" if is_number(best) else "bad_best"
        raise Reject(reason, f"which of {len(answers.items)} answers is {shown}?")
    return found[0]


def first_number(rows: Iterable[RowFields], keys: Iterable[str] = ()) -> int | None:
    """The number of the first answer, as the rows state it; `keys` are further ones that may number the best answer.

    Counting starts at 0 where a 0 occurs, and at 1 where the number of the last answer occurs and no 0.
    """
    zero = last = beyond = False
    for row in rows:
        try:
            answers, best = read_answers(row), best_label(row)
        except Reject:
            continue
        if not isinstance(answers, AnswerList):
            continue
        values = [best, *(row.record.get(key) for key in keys)]
        labels = [label for value in values for label in (value if isinstance(value, list) else [value])]
        for number in (label_text(label) for label in labels if is_number(label)):
            zero |= number == "0"
            last |= number == str(len(answers.items))
            beyond |= not number.isdigit() or int(number) > len(answers.items)
    return None if zero == last or beyond else int(last)
