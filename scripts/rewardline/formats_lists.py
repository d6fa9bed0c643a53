"""The formats whose row is several answers, and what says which are better: labels, scores, ranks or two lists."""

from itertools import combinations
from math import lcm
from typing import Any, Final

from rewardline.formats_fields import Fields, Record, answer_keys, number, numbers
from rewardline.formats_pairs import Draft, Drafts, Options, compare, explicit_prompt
from rewardline.formats_text import Message, Reject, answer, clean, kind

FIRST: Final = frozenset({"a", "first", "model_a", "left"})
SECOND: Final = frozenset({"b", "second", "model_b", "right"})
TIE: Final = frozenset({"tie", "tie (bothbad)", "both_bad", "bothbad", "both", "equal", "neither", "draw", "same"})
# What numbers mean in public sets, by the key of the preference and of the first answer; elsewhere `values` must say.
NUMERIC: Final[dict[tuple[str, str], dict[str, int]]] = {
    ("better_response_id", "response_0"): {"0": 0, "1": 1},  # PKU-SafeRLHF
    ("labels", "human_ref_A"): {"1": 0, "0": 1},  # SHP
}
SIGNED: Final = {("overall_preference", "response1"): "second"}  # HelpSteer3: above 0 the second answer is better


def preference(record: Record, fields: Fields, options: Options) -> Drafts:
    """Two answers and who won, by a label or a score for each; or K answers and a label for each two of them."""
    shared = explicit_prompt(record, fields)
    names, answers, scores = _contestants(record, fields)
    label = fields.optional(record, "preference")
    if label is None and None in scores:
        raise Reject("no_preference", "the row has neither a preference nor a score for each answer")
    labels = label if isinstance(label, list) else [label]
    if len(labels) != (needed := len(answers) * (len(answers) - 1) // 2):
        raise Reject("bad_preference", f"{len(answers)} answers need {needed} preferences, not {len(labels)}")
    for (one, two), value in zip(combinations(range(len(answers)), 2), labels, strict=True):
        lead = None if None in scores else float(scores[one] - scores[two])
        if label is None:
            winner = int(lead < 0) if lead else None
        else:
            winner, strength = _winner(value, fields.key(record, "preference"), (names[one], names[two]), options)
            lead = lead if strength is None else strength
        if winner is None:
            yield Reject("tie", f"{names[one]} and {names[two]} are tied")
            continue
        better, worse = (one, two) if winner == 0 else (two, one)
        margin = lead if lead is None or winner == 0 else -lead
        yield Draft(*compare(shared, answers[better], answers[worse], (names[better], names[worse])), margin)


def _contestants(record: Record, fields: Fields) -> tuple[list[str], list[Any], list[Any]]:
    """The answers' names, the answers as they are, and their scores (all of them, or only None)."""
    if fields.mapped("answers"):
        answers = fields.required(record, "answers")
        if not isinstance(answers, list) or len(answers) < 2:
            raise Reject("not_list", f"answers is {kind(answers)}, not a list of two or more answers")
        return [f"answer {n}" for n in range(1, len(answers) + 1)], answers, [None]
    names, keys = ["answer_a", "answer_b"], ("", "")
    if not any(fields.mapped(name) for name in names):
        found = answer_keys(tuple(record))
        if len(found) != 1:
            reason, what = ("ambiguous_field", "several keys fit") if found else ("missing_field", "no usual names")
            raise Reject(reason, f"which are the two answers? {what}: set `fields: {{answer_a: ..., answer_b: ...}}`")
        names, keys = list(found[0][:2]), found[0][2:]
        answers = [record[name] for name in names]
    else:
        answers = [fields.required(record, name) for name in names]
    scores = []
    for name, key in zip(("score_a", "score_b"), keys, strict=True):
        value = fields.required(record, name) if fields.mapped(name) else record.get(key)
        scores.append(None if value is None and not fields.mapped(name) else number(value, name))
    return names, answers, scores


def _winner(value: Any, key: str, names: tuple[str, str], options: Options) -> tuple[int | None, float | None]:
    """Who won: 0, 1, or None for a tie; and by how much the first leads, if the label says so."""
    signed = options.values.get("signed") if options.values else SIGNED.get((key, names[0]))
    if signed:
        lead = number(value, "the preference") * (1.0 if signed == "first" else -1.0)
        return (None if lead == 0 else int(lead < 0)), lead
    code = _code(value)
    if options.values:
        for winner, side in ((0, "first"), (1, "second"), (None, "tie")):
            if code in _codes(options.values.get(side, [])):
                return winner, None
    elif code in (numeric := NUMERIC.get((key, names[0]), {})):
        return numeric[code], None
    else:
        for winner, words in ((0, FIRST | {names[0].lower()}), (1, SECOND | {names[1].lower()}), (None, TIE)):
            if code in words:
                return winner, None
    raise Reject("bad_preference", f"who won by {code[:50]!r}? set `values: {{first: ..., second: ..., tie: ...}}`")


def _code(value: Any) -> str:
    """A label as text, in which 1, 1.0 and "1" are one, but true is none of them."""
    if isinstance(value, str):
        return value.strip().lower()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float) and abs(value) < 1e9:
        return str(int(value)) if value == int(value) else repr(value)
    return kind(value)


def _codes(values: Any) -> list[str]:
    return [_code(value) for value in (values if isinstance(values, list | tuple) else [values])]


def ranked(record: Record, fields: Fields, options: Options) -> Drafts:
    """Answers from best to worst, or with a score or a rank (1 is best) for each."""
    shared = _required_prompt(record, fields)
    items = fields.required(record, "answers")
    scores, ranks = fields.optional(record, "scores"), fields.optional(record, "ranks")
    if isinstance(items, dict) and scores is None and ranks is None:
        scores, items = list(items.values()), list(items)  # {answer: score}
    texts = _answers(items, "answers", options)
    if len(texts) < 2:
        raise Reject("one_answer", f"a ranking needs two answers; the row has {len(texts)}")
    if scores is None and ranks is None and any(isinstance(item, dict) for item in items):
        scores, ranks = column(items, "score"), column(items, "rank")
        if scores is None and ranks is None:
            raise Reject("no_order", "the answers are objects without a score or a rank: set `fields: {scores: ...}`")
    if scores is not None:
        values = numbers(scores, len(texts), "scores")
    elif ranks is not None:
        values = [-rank for rank in numbers(ranks, len(texts), "ranks")]
    else:
        values = [-float(n) for n in range(len(texts))]
    levels: dict[float, list[str]] = {value: [] for value in sorted(values, reverse=True)}
    for text, value in zip(texts, values, strict=True):
        levels[value].append(text)
    heights = list(levels)
    for level in levels.values():
        if options.pairing != "best_worst" or len(heights) == 1:
            for _ in combinations(level, 2):
                yield Reject("tie", "the answers are tied")
    for i, j in combinations(range(len(heights)), 2):
        high, low = levels[heights[i]], levels[heights[j]]
        if options.pairing == "best_worst":
            if (i, j) != (0, len(heights) - 1):
                continue
            high, low = high[:1], low[-1:]
        if options.pairing == "adjacent" and j != i + 1:
            continue
        margin = heights[i] - heights[j] if scores is not None else None
        for chosen in high:
            for rejected in low:
                yield Draft(shared, chosen, rejected, margin)


def column(items: list[Any], key: str) -> list[Any] | None:
    """The value of `key` in each of `items`, if all are objects that have it."""
    complete = all(isinstance(item, dict) and item.get(key) is not None for item in items)
    return [item[key] for item in items] if complete else None


def good_bad(record: Record, fields: Fields, options: Options) -> Drafts:
    """Good and bad answers, each with each; the first pairs use every answer before one comes again."""
    shared = _required_prompt(record, fields)
    good, bad = (_answers(fields.required(record, name), name, options, alone=True) for name in ("good", "bad"))
    if good and bad:
        round_ = lcm(len(good), len(bad))
        for n in range(len(good) * len(bad)):
            yield Draft(shared, good[n % len(good)], bad[(n + n // round_) % len(bad)])


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
