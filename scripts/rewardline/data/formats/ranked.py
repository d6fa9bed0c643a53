"""The formats whose row has several answers, and what says which are better: scores, ranks, the best one or two lists.

The answers are in columns of their own (answer_1 to answer_4), in a list, or in an object.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations, product
from math import lcm, sqrt
from statistics import NormalDist
from typing import Final, NamedTuple

from rewardline.data.conversation import Reject, describe_type, read_answer, read_text
from rewardline.data.formats.drafts import Draft, Drafts, source_name
from rewardline.data.formats.fields import (
    RowFields,
    decimal_sum,
    difference,
    is_number,
    label_text,
    mean,
    read_number,
    read_ratings,
    value_at,
)
from rewardline.data.formats.prompts import required_prompt
from rewardline.data.formats.settings import FormatSettings

STEMS: Final = (
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
"""How the keys of answers begin."""
SCORE_KEYS: Final = ("score", "rating", "pm_score", "reward")
RANK_KEYS: Final = ("rank",)
_FIRST_ENDS: Final = ("_a", "_A", "_0", "_1", "0", "1", " a", " A", " 0", " 1", "-a", "-A", "-0", "-1")
_SOURCE_KEYS: Final = ("model",)
_ID_KEYS: Final = ("response_id", "answer_id", "id", "index")
_MAX_ANSWERS: Final = 2_000  # to one prompt: two million pairs


class NumberingReject(Reject):
    """The best answer is named by a number, and which number the first answer has is not known."""


class AnswerColumn(NamedTuple):
    """The key of one of several answers, how it ends, and the keys that may hold its score."""

    key: str
    end: str
    scores: tuple[str, ...]


class AnswerList(NamedTuple):
    """Several answers as a row has them; `names` are the names of each, apart from its number."""

    items: list[object]
    names: list[tuple[str, ...]]
    scores: list[object] | None = None


class RankedPair(NamedTuple):
    """Two of several answers, by their indices. `confidence` is 0.5 for a tie."""

    better: int
    worse: int
    margin: float
    confidence: float | None = None


@lru_cache(maxsize=1024)
def answer_columns(keys: tuple[str, ...]) -> list[list[AnswerColumn]]:
    """Three or more of a row's keys that continue each other, such as answer_1 to answer_4; not to be changed."""
    found = []
    for stem, first in product(STEMS, _FIRST_ENDS):
        ends = [first]
        while stem + ends[-1] in keys:
            ends.append(_next_end(ends[-1]))
        if len(ends) > 3:
            ends.pop()
            found.append([AnswerColumn(stem + end, end.lstrip("_ -").lower(), score_keys(stem, end)) for end in ends])
    return [columns for columns in found if not any(set(columns) < set(longer) for longer in found)]


def _next_end(end: str) -> str:
    digits = end.lstrip("_ -")
    if digits.isdigit():
        return end[: len(end) - len(digits)] + str(int(digits) + 1)
    return end[:-1] + chr(ord(end[-1]) + 1)


def score_keys(stem: str, end: str) -> tuple[str, ...]:
    """The keys that may hold the score of an answer under `stem + end`."""
    return f"{stem}{end}_rating", f"{stem}{end}_score", f"score{end}", f"rating{end}"


def read_answers(row: RowFields) -> object:
    """The answers of a row: an `AnswerList` from columns or an object of texts, else the value where they should be."""
    record, found = row.record, answer_columns(row.keys)
    if not row.mapped("answers") and len(found) == 1:
        (columns,) = found
        names = [(column.key.lower(), column.end, f"model_{column.end}") for column in columns]
        keys = [next((key for key in column.scores if key in record), None) for column in columns]
        scores = [record[key] if key else None for key in keys] if any(keys) else None
        return AnswerList([record[column.key] for column in columns], [*names], scores)
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
    """The label of the best answer, or the list of those of the best ones; None if the row has none."""
    if row.present("best"):
        return row.optional("best")
    if answer_columns(row.keys) and row.present("preference"):
        return row.optional("preference")
    # Questions with choices have the label of the right one as their answer.
    return row.record.get("answer") if "choices" in row.record else None


def best_indices(best: object, answers: AnswerList, first_number: int | None) -> set[int]:
    """The indices of the answers with this label, or with these.

    Rejects a label that no answer has, and a number unless `first_number`, that of the first answer, is known.
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


def ranked_pairs(values: Sequence[float], settings: FormatSettings) -> Iterator[RankedPair]:
    """The pairs that `pairing` asks for of answers with these values, the best first; ties within each level."""
    check_count(len(values))
    levels: dict[float, list[int]] = {value: [] for value in sorted(values, reverse=True)}
    for index, value in enumerate(values):
        levels[value].append(index)
    heights = list(levels)
    for level in levels.values():
        if settings.pairing != "best_worst" or len(heights) == 1:
            for one, two in combinations(level, 2):
                yield RankedPair(one, two, 0.0, 0.5)
    for i, j in combinations(range(len(heights)), 2):
        high, low = levels[heights[i]], levels[heights[j]]
        if settings.pairing == "best_worst":
            if (i, j) != (0, len(heights) - 1):
                continue
            high, low = high[:1], low[-1:]
        if settings.pairing == "adjacent" and j != i + 1:
            continue
        for better, worse in _crossed(len(high), len(low)):
            yield RankedPair(high[better], low[worse], difference(heights[i], heights[j]))


def lead_confidence(better: Sequence[float], worse: Sequence[float]) -> float | None:
    """The probability that an answer with these ratings is better than another, by the normal distribution.

    The standard error of the difference of their means comes from the pooled variance of the ratings of one answer.
    None where no answer has several ratings, or raters agree: then nothing is known of the error.
    """
    freedom = len(better) + len(worse) - 2
    squares = sum(sum((one - mean(ratings)) ** 2 for one in ratings) for ratings in (better, worse))
    if not freedom or squares <= 0:
        return None
    error = sqrt(squares / freedom * (1 / len(better) + 1 / len(worse)))
    return NormalDist().cdf(difference(mean(better), mean(worse)) / error)


def _crossed(one: int, two: int) -> Iterator[tuple[int, int]]:
    """Each of `one` things with each of `two`; the first pairs use every thing before one comes again."""
    round_ = lcm(one, two)
    for n in range(one * two):
        yield n % one, (n + n // round_) % two


def check_count(answers: int) -> None:
    """Reject more answers to one prompt than can be compared with each other."""
    if answers > _MAX_ANSWERS:
        raise Reject("too_many_answers", f"{answers:,} answers to one prompt; {_MAX_ANSWERS:,} can be compared")


def read_ranked(row: RowFields) -> Drafts:
    """Answers from best to worst, or with a score or a rank (1 is best) for each, or with the best one named.

    An answer without a text, a score or a rank costs only its own pairs.
    """
    prompt = required_prompt(row)
    found = read_answers(row)
    scores, ranks = read_order(row, "scores"), read_order(row, "ranks")
    if isinstance(found, dict) and scores is None and ranks is None:
        scores, found = list(found.values()), list(found)  # {answer: score}
    if isinstance(found, str) and row.settings.separator:
        found = _split(found, "answers", row.settings.separator)
    if isinstance(found, list):
        found = AnswerList(found, [()] * len(found))
    if not isinstance(found, AnswerList):
        raise Reject("not_list", f"answers is {describe_type(found)}, not a list of answers")
    items = found.items
    check_count(len(items))
    if len(items) < 2:
        raise Reject("one_answer", f"a ranking needs two answers; the row has {len(items)}")
    if scores is None and ranks is None:
        scores = found.scores
    if row.settings.attributes:
        scores = [weighted_sum(item, row.settings.attributes, f"answer {n}") for n, item in enumerate(items, 1)]
    elif scores is None and ranks is None:
        scores, ranks = column(items, SCORE_KEYS), column(items, RANK_KEYS)
        scores = scores or column(items, row.settings.more_score_keys)
    values: list[float | Reject]
    best = None
    if scores is not None or ranks is not None:
        values = _values(len(items), scores, ranks)
    elif (best := best_label(row)) is not None:
        winners = best_indices(best, found, stated_first_number(row.settings))
        values = [float(n in winners) for n in range(len(items))]
    elif row.mapped("best"):
        raise Reject("no_order", "no answer is named as the best one")
    elif any(isinstance(item, dict) for item in items) or answer_columns(row.keys):
        raise Reject("no_order", "the row does not say which answer is better: set `fields: {scores: ...}`")
    else:
        values = [-float(n) for n in range(len(items))]
    kept: list[tuple[str, float, str, tuple[float, ...], int]] = []
    for n, (item, value, source) in enumerate(zip(items, values, _sources(row, items), strict=True), 1):
        try:
            if isinstance(value, Reject):
                raise value
            if not (text := read_answer(item, f"item {n} of answers")):
                raise Reject("empty_answer", f"item {n} of answers is empty")
            given = scores[n - 1] if scores else None
            ratings = read_ratings(given, f"item {n} of scores") if isinstance(given, list) else (value,)
            kept.append((text, value, source, ratings, n - 1))
        except Reject as reject:
            yield reject
    for better, worse, margin, confidence in ranked_pairs([value for _, value, *_ in kept], row.settings):
        if best is not None and confidence is not None:
            continue  # two of the others are no tie: only the best one is known
        (chosen, gold, chosen_source, high, first), (rejected, other_gold, rejected_source, low, second) = (
            kept[better],
            kept[worse],
        )
        yield Draft(
            prompt,
            chosen,
            rejected,
            None if scores is None else margin,
            lead_confidence(high, low) if confidence is None else confidence,
            sources=(chosen_source, rejected_source),
            positions=(first, second, len(items)),
            golds=(gold, other_gold),
        )


def stated_first_number(settings: FormatSettings) -> int | None:
    """The number of the first answer, as the settings' `values` have it."""
    start = settings.values.get("start")
    return int(start) if isinstance(start, int | float) else None


def _values(count: int, scores: list[object] | None, ranks: list[object] | None) -> list[float | Reject]:
    """The value of each answer, or why it has none; rejects scores and ranks that contradict each other."""
    for name, given in (("scores", scores), ("ranks", ranks)):
        if given is not None and len(given) != count:
            raise Reject("bad_number", f"{name} should be {count} numbers, one for each answer, not {len(given)}")
    name, numbers, sign = ("scores", scores, 1.0) if scores is not None else ("ranks", ranks or [], -1.0)
    values: list[float | Reject] = []
    for n, number in enumerate(numbers, 1):
        try:
            number = int(number) if isinstance(number, bool) else number
            values.append(sign * mean(read_ratings(number, f"item {n} of {name}")))
        except Reject as reject:
            values.append(reject.with_traceback(None))
    if scores is not None and ranks is not None:
        both = [
            (value, read_number(rank, "a rank"))
            for value, rank in zip(values, ranks, strict=True)
            if not isinstance(value, Reject) and is_number(rank)
        ]
        if any((one[0] - two[0]) * (one[1] - two[1]) > 0 for one, two in combinations(both, 2)):
            raise Reject("contradiction", "by its scores one answer is better, by its ranks (1 is best) another")
    return values


def _sources(row: RowFields, items: list[object]) -> list[str]:
    """Who wrote each answer, empty where that is not known."""
    given = row.required("sources") if row.mapped("sources") else column(items, _SOURCE_KEYS)
    if given is None:
        return [""] * len(items)
    if not isinstance(given, list) or len(given) != len(items):
        raise Reject("bad_sources", f"sources should be a list with a name for each of the {len(items)} answers")
    return [source_name(one) for one in given]


def read_order(row: RowFields, name: str) -> list[object] | None:
    """The scores or ranks of the answers; a value that is not a list and not mapped is ignored."""
    found = row.optional(name)
    if isinstance(found, list):
        return found
    if row.mapped(name):
        raise Reject("no_order", f"{name} is {describe_type(found)}, not a list with a number for each answer")
    return None


def weighted_sum(value: object, attributes: Mapping[str, float], what: str) -> float:
    """The weighted sum of an answer's attributes."""
    return decimal_sum(
        (weight, mean(read_ratings(value_at(value, path), f"{path} of {what}"))) for path, weight in attributes.items()
    )


def column(items: Sequence[object], keys: tuple[str, ...]) -> list[object] | None:
    """The values of the one of `keys` that all of `items` have; None if there is none, or more than one."""
    columns = [
        [item[key] for item in items if isinstance(item, dict)]
        for key in keys
        if all(isinstance(item, dict) and key in item for item in items)
    ]
    columns = [values for values in columns if any(value is not None for value in values)]
    return columns[0] if len(columns) == 1 else None


def read_graph(row: RowFields) -> Drafts:
    """Several answers and the preferences between them, each an object with a `chosen` and a `rejected` answer.

    These are numbers of answers from 0, or objects with an id that the answers have too, or else with such a number.
    """
    prompt, answers = required_prompt(row), row.required("answers")
    preferences, sources = row.required("preferences"), None
    if not isinstance(answers, list) or not isinstance(preferences, list):
        name, value = ("preferences", preferences) if isinstance(answers, list) else ("answers", answers)
        raise Reject("not_list", f"{name} is {describe_type(value)}, not a list")
    check_count(len(answers))
    sources = _sources(row, answers)
    edges: list[tuple[int, int]] = []
    for n, preference in enumerate(preferences, 1):
        if not isinstance(preference, dict):
            raise Reject("bad_preference", f"item {n} of preferences is {describe_type(preference)}, not an object")
        better, worse = (
            _node(preference.get(side), answers, f"{side} of preference {n}") for side in ("chosen", "rejected")
        )
        edges.append((better, worse))
    named = {index for edge in edges for index in edge}  # others have no part in the graph
    texts = {index: read_answer(answers[index], f"item {index + 1} of answers") for index in sorted(named)}
    for better, worse in edges:
        yield Draft(
            prompt,
            texts[better],
            texts[worse],
            sources=(sources[better], sources[worse]),
            positions=(better, worse, len(named)),
        )


def _node(value: object, answers: list[object], what: str) -> int:
    """The index of the answer that a side of a preference names."""
    key = next((key for key in _ID_KEYS if isinstance(value, dict) and key in value), None)
    named = value[key] if isinstance(value, dict) and key else value
    ids = [answer.get(key) if isinstance(answer, dict) and key else None for answer in answers]
    if named is not None and ids.count(named) == 1:
        return ids.index(named)
    if (
        isinstance(named, int)
        and not isinstance(named, bool)
        and 0 <= named < len(answers)
        and ids.count(None) == len(ids)
    ):
        return named
    raise Reject("bad_preference", f"{what} names none of {len(answers)} answers: {label_text(named)[:50]!r}")


def read_good_bad(row: RowFields) -> Drafts:
    """Good and bad answers, each with each."""
    prompt = required_prompt(row)
    good, bad = (_answers(row.required(name), name, row.settings.separator) for name in ("good", "bad"))
    check_count(max(len(good), len(bad)))
    for n, m in _crossed(len(good), len(bad)):
        yield Draft(prompt, good[n], bad[m], positions=(n, m, len(good) + len(bad)))


def _answers(value: object, what: str, separator: str | None) -> list[str]:
    """A list of answers, or one that is not in a list."""
    if isinstance(value, str) and separator:
        value = _split(value, what, separator)
    elif isinstance(value, str | dict):
        value = [value]
    if not isinstance(value, list):
        raise Reject("not_list", f"{what} is {describe_type(value)}, not a list of answers")
    return [read_answer(item, f"item {n} of {what}") for n, item in enumerate(value, 1)]


def _split(value: str, what: str, separator: str) -> list[str]:
    return [piece for piece in read_text(value, what).split(separator) if piece.strip()]
