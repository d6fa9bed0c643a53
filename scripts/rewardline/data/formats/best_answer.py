"""Which of several answers is the best, by its number, its letter, its key or its text."""

from typing import Any, NamedTuple

from rewardline.data.conversation import Reject, kind
from rewardline.data.formats.answer_columns import answer_columns
from rewardline.data.formats.fields import Fields, Record
from rewardline.data.formats.options import code
from rewardline.data.formats.two_answers import is_number


class Answers(NamedTuple):
    """Several answers as a row has them; `names` are what else than its number may name each."""

    items: list[Any]
    names: list[tuple[str, ...]]
    scores: list[Any] | None = None


def answers_of(record: Record, fields: Fields) -> Any:
    """The answers of a row: `Answers` from columns or an object of texts, else what stands where they should."""
    found = answer_columns(tuple(record))
    if not fields.mapped("answers") and len(found) == 1:
        (columns,) = found
        items = [record[column.key] for column in columns]
        names: list[tuple[str, ...]] = [(column.key.lower(), column.end, f"model_{column.end}") for column in columns]
        scores = [next((record[key] for key in column.scores if key in record), None) for column in columns]
        known = any(key in record for column in columns for key in column.scores)
        return Answers(items, names, scores if known else None)
    value = unfolded(fields.required(record, "answers"))
    if isinstance(value, dict) and value and all(isinstance(text, str) for text in value.values()):
        return Answers(list(value.values()), [(name.lower(),) for name in value])
    if isinstance(value, list):
        return Answers(value, [_labels(item) for item in value])
    return value


def _labels(item: Any) -> tuple[str, ...]:
    """The labels of an answer that is an object, as ARC has them."""
    return (
        tuple(code(item[key]) for key in ("label", "id") if item.get(key) is not None) if isinstance(item, dict) else ()
    )


def unfolded(items: Any) -> Any:
    """A list of objects for an object of lists of one length, as some Parquet files hold it."""
    if not isinstance(items, dict) or not items or not all(isinstance(value, list) for value in items.values()):
        return items
    size = len(next(iter(items.values())))
    if any(len(value) != size for value in items.values()):
        return items
    return [dict(zip(items, values, strict=True)) for values in zip(*items.values(), strict=True)]


def best_of(record: Record, fields: Fields) -> Any:
    """What names the best answer, or the list of the best ones; null if nothing does."""
    if not fields.mapped("best") and fields.present(record, "best"):
        return fields.optional(record, "best")
    if not fields.mapped("best") and answer_columns(tuple(record)) and fields.present(record, "preference"):
        return fields.optional(record, "preference")
    if "choices" in record and "answer" in record and not fields.mapped("best"):
        return record["answer"]  # questions with choices
    return fields.optional(record, "best")


def places(best: Any, answers: Answers, start: int | None) -> set[int]:
    """The positions of the best answers; rejects what names none of them, and a number unless `start` is known."""
    return {_place(each, answers, start) for each in (best if isinstance(best, list) else [best])}


def _place(best: Any, answers: Answers, start: int | None) -> int:
    label = code(best)
    found = [n for n, names in enumerate(answers.names) if label in names and not is_number(best)]
    found = found or [n for n, item in enumerate(answers.items) if isinstance(best, str) and item == best]
    if not found and is_number(best):
        if start is None or not label.isdigit():
            raise Reject("bad_best", f"which answer is number {label}? set `values: {{start: 0}}` or `{{start: 1}}`")
        found = [int(label) - start]
    elif not found and len(label) == 1 and label.isascii() and label.isalpha():
        found = [ord(label) - ord("a")]
    if len(found) != 1 or not 0 <= found[0] < len(answers.items):
        shown = repr(label[:50]) if isinstance(best, str | int | float) else kind(best)
        reason = "unknown_code" if is_number(best) else "bad_best"
        raise Reject(reason, f"which of {len(answers.items)} answers is {shown}?")
    return found[0]


def start_of(records: list[Record], fields: Fields, names: tuple[str, ...] = ()) -> tuple[int | None, str]:
    """The number of the first answer, as the rows state it, and what to ask for where they do not.

    Counting starts at 0 where a 0 occurs, and at 1 where the number of the last answer occurs and no 0.
    """
    zero = last = beyond = numbered = False
    for record in records:
        try:
            answers = answers_of(record, fields)
            found = [best_of(record, fields), *(record.get(name) for name in names)]
        except Reject:
            continue
        for best in (each for value in found for each in (value if isinstance(value, list) else [value])):
            if isinstance(answers, Answers) and is_number(best):
                numbered = True
                zero |= code(best) == "0"
                last |= code(best) == str(len(answers.items))
                beyond |= not code(best).isdigit() or int(code(best)) > len(answers.items)
    if not numbered:
        return None, ""
    if zero == last or beyond:
        return None, "values: {start: 0} or {start: 1}, the number of the first answer"
    return int(last), ""
