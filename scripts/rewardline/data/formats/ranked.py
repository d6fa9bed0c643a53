"""The formats whose row is several answers, and what says which are better: scores, ranks or two lists."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import lcm
from typing import Final, NamedTuple

from rewardline.data.conversation import Reject, describe_type, read_answer, read_text
from rewardline.data.formats.answers import AnswerList, answer_columns, best_indices, best_label, read_answers
from rewardline.data.formats.drafts import Draft, Drafts, source_name
from rewardline.data.formats.fields import RowFields, is_number, read_number, value_at
from rewardline.data.formats.prompts import required_prompt
from rewardline.data.formats.settings import FormatSettings

SCORE_KEYS: Final = ("score", "rating", "pm_score", "reward")
RANK_KEYS: Final = ("rank",)
_SOURCE_KEYS: Final = ("model",)
_MAX_ANSWERS: Final = 2_000  # to one prompt: two million pairs


class RankedPair(NamedTuple):
    """Two of several answers, by their indices."""

    better: int
    worse: int
    margin: float
    tied: bool


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
                yield RankedPair(one, two, 0.0, True)
    for i, j in combinations(range(len(heights)), 2):
        high, low = levels[heights[i]], levels[heights[j]]
        if settings.pairing == "best_worst":
            if (i, j) != (0, len(heights) - 1):
                continue
            high, low = high[:1], low[-1:]
        if settings.pairing == "adjacent" and j != i + 1:
            continue
        for better, worse in _crossed(len(high), len(low)):
            yield RankedPair(high[better], low[worse], heights[i] - heights[j], False)


def _crossed(one: int, two: int) -> Iterator[tuple[int, int]]:
    """Each of `one` things with each of `two`; the first pairs use every thing before one comes again."""
    if one and two:
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
    answers = found if isinstance(found, AnswerList) else None
    items = answers.items if answers else found
    if not isinstance(items, list):
        raise Reject("not_list", f"answers is {describe_type(items)}, not a list of answers")
    check_count(len(items))
    if len(items) < 2:
        raise Reject("one_answer", f"a ranking needs two answers; the row has {len(items)}")
    if answers and scores is None and ranks is None:
        scores = answers.scores
    if row.settings.attributes:
        scores = [weighted_sum(item, row.settings.attributes, f"answer {n}") for n, item in enumerate(items, 1)]
    elif scores is None and ranks is None:
        scores, ranks = column(items, SCORE_KEYS), column(items, RANK_KEYS)
    ordered = scores is not None or ranks is not None
    best = None if ordered else best_label(row)
    values: list[float | Reject]
    if ordered:
        values = _values(len(items), scores, ranks)
    elif best is not None:
        winners = best_indices(best, answers or AnswerList(items, [()] * len(items)), _first_number(row))
        values = [float(n in winners) for n in range(len(items))]
    elif row.mapped("best"):
        raise Reject("no_order", "nothing says which answer is the best one")
    elif any(isinstance(item, dict) for item in items) or answer_columns(tuple(row.record)):
        raise Reject("no_order", "nothing says which answer is better: set `fields: {scores: ...}`")
    else:
        values = [-float(n) for n in range(len(items))]
    sources = _sources(row, items)
    kept: list[tuple[str, float, str]] = []
    for n, (item, value, source) in enumerate(zip(items, values, sources, strict=True), 1):
        try:
            if isinstance(value, Reject):
                raise value
            if not (text := read_answer(item, f"item {n} of answers")):
                raise Reject("empty_answer", f"item {n} of answers is empty")
            kept.append((text, value, source))
        except Reject as reject:
            yield reject
    for pair in ranked_pairs([value for _, value, _ in kept], row.settings):
        if pair.tied and best is not None:
            continue  # they are no equals: only the best one is known
        if pair.tied and row.settings.ties == "drop":
            yield Reject("tie", "the answers are tied")
        else:
            better, worse = kept[pair.better], kept[pair.worse]
            margin, confidence = pair.margin if scores is not None else None, 0.5 if pair.tied else None
            yield Draft(prompt, better[0], worse[0], margin, confidence, sources=(better[2], worse[2]))


def _first_number(row: RowFields) -> int | None:
    """The number of the first answer, as the settings' `values` have it."""
    start = row.settings.values.get("start")
    return int(start) if isinstance(start, int | float) else None


def _values(count: int, scores: list[object] | None, ranks: list[object] | None) -> list[float | Reject]:
    """What each answer is worth, or why that is not known; rejects scores and ranks that contradict each other."""
    for name, given in (("scores", scores), ("ranks", ranks)):
        if given is not None and len(given) != count:
            has = f"{len(given)} items"
            raise Reject("bad_number", f"{name} should be {count} numbers, one for each answer, but is {has}")
    name, numbers, sign = ("scores", scores, 1.0) if scores is not None else ("ranks", ranks or [], -1.0)
    values: list[float | Reject] = []
    for n, number in enumerate(numbers, 1):
        try:
            value = read_number(int(number) if isinstance(number, bool) else number, f"item {n} of {name}")
            values.append(sign * value)
        except Reject as reject:
            values.append(reject)
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
    """The scores or ranks of the answers; what has a usual name and is no list is about something else."""
    found = row.optional(name)
    if isinstance(found, list):
        return found
    if row.mapped(name):
        raise Reject("no_order", f"{name} is {describe_type(found)}, not a list with a number for each answer")
    return None


def weighted_sum(value: object, attributes: Mapping[str, float], what: str) -> float:
    """The weighted sum of an answer's attributes."""
    return sum(weight * read_number(value_at(value, path), f"{path} of {what}") for path, weight in attributes.items())


def column(items: Sequence[object], keys: tuple[str, ...]) -> list[object] | None:
    """The values of the one of `keys` that all of `items` have; None if there is none, or more than one."""
    columns = [
        [item[key] for item in items if isinstance(item, dict)]
        for key in keys
        if all(isinstance(item, dict) and key in item for item in items)
    ]
    columns = [values for values in columns if any(value is not None for value in values)]
    return columns[0] if len(columns) == 1 else None


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
