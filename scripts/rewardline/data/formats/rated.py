"""Single answers with what is said of each: a label, a score, or values of several attributes."""

from collections.abc import Sequence
from contextlib import suppress

from rewardline.data.conversation import Reject, is_conversation, read_answer
from rewardline.data.formats.drafts import Draft, Drafts
from rewardline.data.formats.fields import RowFields, mean, read_ratings, value_at
from rewardline.data.formats.grouped import answer_ratings, prompt_and_answer
from rewardline.data.formats.prompts import explicit_prompt, required_prompt, split_sides
from rewardline.data.formats.ranked import SCORE_KEYS, AnswerList, check_count, column, read_answers, read_order
from rewardline.data.formats.settings import LABEL
from rewardline.data.schema import Message

SIDES = ("chosen", "rejected")
Ratings = tuple[tuple[str, float], ...]


def read_rated(row: RowFields) -> Drafts:
    """The answer of a row, or each of its answers, with its ratings; an answer without any is left out.

    A row with `chosen` and `rejected` has two. A rating is at its path in the answer, if that is an object; else in the
    row, which for several answers has a list of them there.
    """
    single = ("answer", "conversation")
    several = not any(row.mapped(name) for name in single) and (
        row.mapped("answers") or not any(row.present(name) for name in single) or all(map(row.present, SIDES))
    )
    if not several:
        prompt, text = prompt_and_answer(row)
        yield _draft(row, prompt, text, _ratings(row), 0, 1)
        return
    prompt, items, texts = _answers(row)
    scores = read_order(row, "scores") if not row.settings.ratings else None
    if not row.settings.ratings and scores is None:
        scores = column(items, SCORE_KEYS)
    for n, (item, text) in enumerate(zip(items, texts, strict=True)):
        try:
            yield _draft(row, prompt, text, _ratings_of_item(row, item, n, len(items), scores), n, len(items))
        except Reject as reject:
            yield reject


def _draft(row: RowFields, prompt: list[Message], text: str, ratings: Ratings, n: int, count: int) -> Draft:
    if not ratings:
        names = ", ".join(row.settings.ratings) or LABEL
        raise Reject("no_rating", f"it has no value for {names}")
    if row.settings.scale:
        ratings = tuple((name, _on_scale(name, value, row.settings.scale)) for name, value in ratings)
    return Draft(prompt, text, "", positions=(n, n, count), ratings=ratings)


def _on_scale(name: str, value: float, scale: Sequence[float]) -> float:
    """A rating as a share of its scale."""
    low, high = scale
    if not low <= value <= high:
        raise Reject("off_scale", f"{name} is {value:g}, outside the scale from {low:g} to {high:g}")
    return (value - low) / (high - low)


def _answers(row: RowFields) -> tuple[list[Message], list[object], list[str]]:
    """The prompt of a row with several answers, the answers as it has them, and their texts."""
    if not row.mapped("answers") and all(map(row.present, SIDES)):
        items = [row.required(side) for side in SIDES]
    else:
        found = read_answers(row)
        if not isinstance(found, AnswerList):
            raise Reject("no_answer", "the row has neither an answer nor a list of answers")
        items = found.items
    check_count(len(items))
    names = [f"answer {n}" for n in range(1, len(items) + 1)]
    if len(items) > 1 and any(map(is_conversation, items)):
        prompt, texts = split_sides(explicit_prompt(row, items), items, names)
        return prompt, items, texts
    return required_prompt(row), items, [read_answer(item, name) for item, name in zip(items, names, strict=True)]


def _ratings(row: RowFields) -> Ratings:
    """The ratings of the only answer of a row."""
    if not row.settings.ratings:
        values, _ = answer_ratings(row)
        return ((LABEL, mean(values)),)
    return _known({name: _value(row, path) for name, path in row.settings.ratings.items()})


def _ratings_of_item(row: RowFields, item: object, n: int, count: int, scores: list[object] | None) -> Ratings:
    """The ratings of answer `n` of `count`; `scores`: where the settings name no ratings, a number for each answer."""
    if not row.settings.ratings:
        if scores is None or len(scores) != count:
            raise Reject("no_rating", "the row has no score for each answer: set `ratings: {name: path}`")
        return _known({LABEL: scores[n]})
    values: dict[str, object] = {}
    for name, path in row.settings.ratings.items():
        if isinstance(item, dict):
            with suppress(Reject):
                values[name] = value_at(item, path)
        if name not in values:
            found = _value(row, path)
            values[name] = found[n] if isinstance(found, list) and len(found) == count else None
    return _known(values)


def _value(row: RowFields, path: str) -> object:
    """The value at a path of a row, None where it has none."""
    with suppress(Reject):
        return row.value(path)
    return None


def _known(values: dict[str, object]) -> Ratings:
    """Those ratings that are there; of several raters, their mean."""
    found = []
    for name, value in values.items():
        if value == [] or _is_missing(value):
            continue
        given = [int(one) if isinstance(one, bool) else one for one in (value if isinstance(value, list) else [value])]
        given = [one for one in given if not _is_missing(one)]
        if given:
            found.append((name, mean(read_ratings(given, name))))
    return tuple(found)


def _is_missing(value: object) -> bool:
    return value is None or (
        isinstance(value, str) and value.strip().lower() in ("", "n/a", "na", "none", "null", "nan")
    )
