"""What numbers mean in a data set, decided once by the rows looked at, and only where they and the names state it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from rewardline.data.conversation import Reject
from rewardline.data.formats.answer_columns import answer_keys
from rewardline.data.formats.fields import Fields, Record
from rewardline.data.formats.options import code
from rewardline.data.formats.two_answers import (
    NUMERIC,
    SHIFTED,
    SIGNED,
    is_number,
    label_of,
    mapped_names,
    side_words,
)

COUNTED = ("choice", "winner")  # keys whose 0 and 1 are no "no" and "yes"
COUNTS = "the list votes"
ASKED = "values: {first: ..., second: ..., tie: ...}"


class Coding(NamedTuple):
    """The `values` to read a data set with (none if they need none), or `hint`: what the user has to say."""

    values: dict[str, Any]
    hint: str = ""


class _Label(NamedTuple):
    key: str
    names: tuple[str, str]
    value: Any


def preference_coding(records: list[Record], fields: Fields) -> Coding:
    """How the rows say which of two answers won."""
    labels = [label for record in records if isinstance(record, dict) for label in _labels(record, fields)]
    kinds = {(label.key, label.names) for label in labels if is_number(label.value)}
    codings = []
    for key, names in sorted(kinds):
        found = [label.value for label in labels if (label.key, label.names) == (key, names)]
        codings.append(_coding(found, key, names))
    if not codings:
        return Coding({})
    unclear = next((each for each in codings if each.hint), None)
    if unclear is not None or all(each == codings[0] for each in codings):
        return unclear or codings[0]
    return Coding({}, f"{ASKED}; its rows do not agree on what numbers mean")


def _labels(record: Record, fields: Fields) -> Iterator[_Label]:
    try:
        value, key = label_of(record, fields), fields.key(record, "preference")
        if fields.mapped("answer_a"):
            names = mapped_names(record, fields)
        elif fields.mapped("answers"):
            names = ("answer 1", "answer 2")
        else:
            (two,) = answer_keys(tuple(record))
            names = two.one, two.two
    except (Reject, ValueError):
        return
    for each in value if isinstance(value, list) else [value]:
        # Two numbers under "votes" may be how many votes each answer has.
        yield _Label(COUNTS if isinstance(value, list) and key == "votes" else key, names, each)


def _coding(labels: list[Any], key: str, names: tuple[str, str]) -> Coding:
    numbers = {code(label): float(label) for label in labels if is_number(label)}
    least, most = min(numbers.values()), max(numbers.values())
    ends = names[0][-1:], names[1][-1:]
    asked = f"{ASKED}, for what {key or 'the preference'} holds ({', '.join(sorted(numbers)[:8])})"
    if key == COUNTS:
        asked += "; or fields: {votes_a: votes[0], votes_b: votes[1]} if they are counts"
    elif (key, names[0]) in SIGNED:
        if least < 0:
            return Coding({"signed": SIGNED[key, names[0]]})
    elif (key, names[0]) == SHIFTED:
        if most > 1 and all(number == 0 or 1 <= number <= 2 for number in numbers.values()):
            return Coding({})
    elif (key, names[0]) in NUMERIC:
        return Coding({})
    elif (ends == ("1", "2") and numbers.keys() == {"1", "2"}) or (
        ends == ("0", "1") and key in COUNTED and "0" in numbers and numbers.keys() <= {"0", "1"}
    ):
        first, second, tie = map(sorted, side_words(names))
        return Coding({"first": [*first, ends[0]], "second": [*second, ends[1]], "tie": tie})
    if least < 0 or (key, names[0]) in SIGNED:
        asked += "; or values: {signed: first} or {signed: second}, the better one where it is above 0"
    return Coding({}, asked)
