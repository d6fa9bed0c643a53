"""The formats whose row is several answers, and what says which are better: scores, ranks or two lists."""

from collections.abc import Iterator
from itertools import combinations
from math import lcm
from typing import Any, Final, NamedTuple

from rewardline.data.conversation import Message, Reject, answer, clean, kind
from rewardline.data.formats.answer_columns import answer_columns
from rewardline.data.formats.best_answer import Answers, answers_of, best_of, places
from rewardline.data.formats.chosen_rejected import Draft, Drafts, explicit_prompt
from rewardline.data.formats.drafts import source_name
from rewardline.data.formats.fields import Fields, Record, number, walk
from rewardline.data.formats.options import Options
from rewardline.data.formats.two_answers import is_number

SCORE_KEYS: Final = ("score", "rating", "pm_score", "reward")
RANK_KEYS: Final = ("rank",)
SOURCE_KEYS: Final = ("model",)


class Duel(NamedTuple):
    """Two of several answers, by their positions."""

    better: int
    worse: int
    margin: float
    tied: bool


def duels(values: list[float], options: Options) -> Iterator[Duel]:
    """The pairs that `pairing` wants of answers with these values, the best first; ties within each level."""
    options.check_count(len(values))
    levels: dict[float, list[int]] = {value: [] for value in sorted(values, reverse=True)}
    for place, value in enumerate(values):
        levels[value].append(place)
    heights = list(levels)
    for level in levels.values():
        if options.pairing != "best_worst" or len(heights) == 1:
            for one, two in combinations(level, 2):
                yield Duel(one, two, 0.0, True)
    for i, j in combinations(range(len(heights)), 2):
        high, low = levels[heights[i]], levels[heights[j]]
        if options.pairing == "best_worst":
            if (i, j) != (0, len(heights) - 1):
                continue
            high, low = high[:1], low[-1:]
        if options.pairing == "adjacent" and j != i + 1:
            continue
        for better, worse in crossed(len(high), len(low)):
            yield Duel(high[better], low[worse], heights[i] - heights[j], False)


def crossed(one: int, two: int) -> Iterator[tuple[int, int]]:
    """Each of `one` things with each of `two`; the first pairs use every thing before one comes again."""
    if one and two:
        round_ = lcm(one, two)
        for n in range(one * two):
            yield n % one, (n + n // round_) % two


def ranked(record: Record, fields: Fields, options: Options) -> Drafts:
    """Answers from best to worst, or with a score or a rank (1 is best) for each, or with the best one named.

    An answer without a text, a score or a rank costs only its own pairs.
    """
    shared = _required_prompt(record, fields)
    found = answers_of(record, fields)
    scores, ranks = (orders(record, fields, name) for name in ("scores", "ranks"))
    if isinstance(found, dict) and scores is None and ranks is None:
        scores, found = list(found.values()), list(found)  # {answer: score}
    if isinstance(found, str) and options.separator:
        found = _split(found, "answers", options.separator)
    items = found.items if isinstance(found, Answers) else found
    if not isinstance(items, list):
        raise Reject("not_list", f"answers is {kind(items)}, not a list of answers")
    options.check_count(len(items))
    if len(items) < 2:
        raise Reject("one_answer", f"a ranking needs two answers; the row has {len(items)}")
    if isinstance(found, Answers) and scores is None and ranks is None:
        scores = found.scores
    if options.attributes:
        scores = [weighted(item, options.attributes, f"answer {n}") for n, item in enumerate(items, 1)]
    elif scores is None and ranks is None:
        scores, ranks = column(items, SCORE_KEYS), column(items, RANK_KEYS)
    best = best_of(record, fields) if scores is None and ranks is None else None
    if fields.mapped("best") and best is None and scores is None and ranks is None:
        raise Reject("no_order", "nothing says which answer is the best one")
    if scores is not None or ranks is not None:
        values = [*_orders_in(items, scores, ranks)]
    elif best is not None:
        named = found if isinstance(found, Answers) else Answers(items, [()] * len(items))
        winners = places(best, named, options.values.get("start"))
        values = [float(n in winners) for n in range(len(items))]
    elif any(isinstance(item, dict) for item in items) or answer_columns(tuple(record)):
        raise Reject("no_order", "nothing says which answer is better: set `fields: {scores: ...}`")
    else:
        values = [-float(n) for n in range(len(items))]
    written = _sources(record, fields, items)
    texts, kept, sources = [], [], []
    for n, (item, value) in enumerate(zip(items, values, strict=True), 1):
        try:
            if isinstance(value, Reject):
                raise value
            if not (text := answer(item, f"item {n} of answers")):
                raise Reject("empty_answer", f"item {n} of answers is empty")
            texts.append(text)
            kept.append(value)
            sources.append(written[n - 1])
        except Reject as reject:
            yield reject
    for duel in duels(kept, options):
        if duel.tied and best is not None:
            continue  # they are no equals: only the best one is known
        if duel.tied and options.ties == "drop":
            yield Reject("tie", "the answers are tied")
        else:
            margin = duel.margin if scores is not None else None
            better, worse = duel.better, duel.worse
            sure = 0.5 if duel.tied else None
            yield Draft(shared, texts[better], texts[worse], margin, sure, sources=(sources[better], sources[worse]))


def _orders_in(items: list[Any], scores: Any, ranks: Any) -> Iterator[float | Reject]:
    """What each answer is worth, or why that is not known; rejects scores and ranks that contradict each other."""
    given = {name: values for name, values in (("scores", scores), ("ranks", ranks)) if values is not None}
    for name, values in given.items():
        if not isinstance(values, list) or len(values) != len(items):
            has = f"{len(values)} items" if isinstance(values, list) else kind(values)
            raise Reject("bad_number", f"{name} should be {len(items)} numbers, one for each answer, but is {has}")
    worths: list[float | Reject] = []
    for n in range(len(items)):
        value = next(iter(given.values()))[n]
        try:
            worth = number(int(value) if isinstance(value, bool) else value, f"item {n + 1} of {next(iter(given))}")
            worths.append(worth if scores is not None else -worth)
        except Reject as reject:
            worths.append(reject)
    if scores is not None and ranks is not None:
        both = [(worth, rank) for worth, rank in zip(worths, ranks, strict=True) if not isinstance(worth, Reject)]
        ordered = [(worth, float(rank)) for worth, rank in both if is_number(rank)]
        if any((one[0] - two[0]) * (one[1] - two[1]) > 0 for one, two in combinations(ordered, 2)):
            raise Reject("contradiction", "by its scores one answer is better, by its ranks (1 is best) another")
    yield from worths


def _sources(record: Record, fields: Fields, items: list[Any]) -> list[str]:
    """Who wrote each answer, empty where that is not known."""
    given = fields.required(record, "sources") if fields.mapped("sources") else column(items, SOURCE_KEYS)
    if given is None:
        return [""] * len(items)
    if not isinstance(given, list) or len(given) != len(items):
        raise Reject("bad_sources", f"sources should be a list with a name for each of the {len(items)} answers")
    return [source_name(one) for one in given]


def orders(record: Record, fields: Fields, name: str) -> Any:
    """The scores or ranks of the answers; what has a usual name and is no list is about something else."""
    found = fields.optional(record, name)
    if fields.mapped(name) and not isinstance(found, list):
        raise Reject("no_order", f"{name} is {kind(found)}, not a list with a number for each answer")
    return found if isinstance(found, list) else None


def weighted(value: Any, attributes: dict[str, float], what: str) -> float:
    """The weighted sum of an answer's attributes."""
    return sum(weight * number(walk(value, path), f"{path} of {what}") for path, weight in attributes.items())


def column(items: list[Any], keys: tuple[str, ...]) -> list[Any] | None:
    """The values of the one of `keys` that all of `items` have; null if there is none, or more than one."""
    found = [key for key in keys if all(isinstance(item, dict) and key in item for item in items)]
    found = [key for key in found if any(item[key] is not None for item in items)]
    return [item[found[0]] for item in items] if len(found) == 1 else None


def good_bad(record: Record, fields: Fields, options: Options) -> Drafts:
    """Good and bad answers, each with each."""
    shared = _required_prompt(record, fields)
    good, bad = (_answers(fields.required(record, name), name, options) for name in ("good", "bad"))
    options.check_count(max(len(good), len(bad)))
    for n, m in crossed(len(good), len(bad)):
        yield Draft(shared, good[n], bad[m], places=(n, m, len(good) + len(bad)))


def _required_prompt(record: Record, fields: Fields) -> list[Message]:
    fields.required(record, "prompt")
    return explicit_prompt(record, fields) or []


def _answers(value: Any, what: str, options: Options) -> list[str]:
    """A list of answers, or one that is not in a list."""
    if isinstance(value, str) and options.separator:
        value = _split(value, what, options.separator)
    elif isinstance(value, str | dict):
        value = [value]
    if not isinstance(value, list):
        raise Reject("not_list", f"{what} is {kind(value)}, not a list of answers")
    return [answer(item, f"item {n} of {what}") for n, item in enumerate(value, 1)]


def _split(value: str, what: str, separator: str) -> list[str]:
    return [piece for piece in clean(value, what).split(separator) if piece.strip()]
