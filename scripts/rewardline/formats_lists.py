"""The formats whose row is several answers, and what says which are better: scores, ranks or two lists."""

from collections.abc import Iterator
from itertools import combinations
from math import lcm
from typing import Any, Final, NamedTuple

from rewardline.formats_fields import Fields, Record, number, numbers, walk
from rewardline.formats_options import Options
from rewardline.formats_pairs import Draft, Drafts, explicit_prompt
from rewardline.formats_text import Message, Reject, answer, clean, kind

SCORE_KEYS: Final = ("score", "rating", "pm_score", "reward")
RANK_KEYS: Final = ("rank",)


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
    """Answers from best to worst, or with a score or a rank (1 is best) for each."""
    shared = _required_prompt(record, fields)
    items = unfolded(fields.required(record, "answers"))
    scores, ranks = (orders(record, fields, name) for name in ("scores", "ranks"))
    if isinstance(items, dict) and scores is None and ranks is None:
        scores, items = list(items.values()), list(items)  # {answer: score}
    texts = _answers(items, "answers", options)
    if len(texts) < 2:
        raise Reject("one_answer", f"a ranking needs two answers; the row has {len(texts)}")
    if options.attributes:
        scores = [weighted(item, options.attributes, f"answer {n}") for n, item in enumerate(items, 1)]
    elif scores is None and ranks is None and any(isinstance(item, dict) for item in items):
        scores, ranks = column(items, SCORE_KEYS), column(items, RANK_KEYS)
        if scores is None and ranks is None:
            raise Reject("no_order", "the answers are objects without a score or a rank: set `fields: {scores: ...}`")
    if scores is not None:
        values = numbers(scores, len(texts), "scores")
    elif ranks is not None:
        values = [-rank for rank in numbers(ranks, len(texts), "ranks")]
    else:
        values = [-float(n) for n in range(len(texts))]
    for duel in duels(values, options):
        if duel.tied and options.ties == "drop":
            yield Reject("tie", "the answers are tied")
        else:
            margin = duel.margin if scores is not None else None
            yield Draft(shared, texts[duel.better], texts[duel.worse], margin, 0.5 if duel.tied else None)


def orders(record: Record, fields: Fields, name: str) -> Any:
    """The scores or ranks of the answers; what has a usual name and is no list is about something else."""
    found = fields.optional(record, name)
    return found if fields.mapped(name) or isinstance(found, list) else None


def weighted(value: Any, attributes: dict[str, float], what: str) -> float:
    """The weighted sum of an answer's attributes."""
    return sum(weight * number(walk(value, path), f"{path} of {what}") for path, weight in attributes.items())


def unfolded(items: Any) -> Any:
    """A list of objects for an object of lists of one length, as some Parquet files hold it."""
    if not isinstance(items, dict) or not items or not all(isinstance(value, list) for value in items.values()):
        return items
    size = len(next(iter(items.values())))
    if any(len(value) != size for value in items.values()):
        return items
    return [dict(zip(items, values, strict=True)) for values in zip(*items.values(), strict=True)]


def column(items: list[Any], keys: tuple[str, ...]) -> list[Any] | None:
    """The values of the one of `keys` that all of `items` have; null if there is none, or more than one."""
    found = [key for key in keys if all(isinstance(item, dict) and item.get(key) is not None for item in items)]
    return [item[found[0]] for item in items] if len(found) == 1 else None


def good_bad(record: Record, fields: Fields, options: Options) -> Drafts:
    """Good and bad answers, each with each."""
    shared = _required_prompt(record, fields)
    good, bad = (_answers(fields.required(record, name), name, options, alone=True) for name in ("good", "bad"))
    options.check_count(max(len(good), len(bad)))
    for n, m in crossed(len(good), len(bad)):
        yield Draft(shared, good[n], bad[m])


def _required_prompt(record: Record, fields: Fields) -> list[Message]:
    fields.required(record, "prompt")
    return explicit_prompt(record, fields) or []


def _answers(value: Any, what: str, options: Options, alone: bool = False) -> list[str]:
    """A list of answers; `alone` allows one answer that is not in a list."""
    if isinstance(value, str) and options.separator:
        value = [piece for piece in clean(value, what).split(options.separator) if piece.strip()]
    elif alone and isinstance(value, str | dict):
        value = [value]
    if not isinstance(value, list):
        raise Reject("not_list", f"{what} is {kind(value)}, not a list of answers")
    return [answer(item, f"item {n} of {what}") for n, item in enumerate(value, 1)]
