"""Two answers, or each two of several, and who won."""

import json
import re
from functools import lru_cache
from itertools import combinations
from typing import Any, Final

from rewardline.data.conversation import Message, Reject, clean, dialogue, is_dialogue, kind
from rewardline.data.formats.answer_columns import answer_keys
from rewardline.data.formats.chosen_rejected import Draft, Drafts, compare, explicit_prompt
from rewardline.data.formats.drafts import share_of, source_of
from rewardline.data.formats.fields import Fields, Record, number
from rewardline.data.formats.options import Options, code

FIRST: Final = frozenset({"a", "first", "model_a", "left", "[[a]]", "a>b", "a>>b"})
SECOND: Final = frozenset({"b", "second", "model_b", "right", "[[b]]", "b>a", "b>>a", "a<b", "a<<b"})
TIE: Final = frozenset(
    {"tie", "tie (bothbad)", "both_bad", "bothbad", "both", "equal", "neither", "draw", "same", "[[c]]", "a=b", "b=a"}
)
# What numbers mean in public sets, by the key of the preference and of the first answer; elsewhere `values` must say.
NUMERIC: Final[dict[tuple[str, str], dict[str, int | None]]] = {
    ("better_response_id", "response_0"): {"0": 0, "1": 1},  # PKU-SafeRLHF
    ("labels", "human_ref_A"): {"1": 0, "0": 1},  # SHP
    ("preference", "output_1"): {"1": 0, "2": 1, "0": None, "1.5": None},  # AlpacaFarm, AlpacaEval
}
SIGNED: Final = {  # above 0 the second answer is better
    ("overall_preference", "response1"): "second",  # HelpSteer3
    ("preference_strength", "response_1"): "second",  # HelpSteer2-Preference
}
ONE_HOT: Final = ("winner_model_a", "winner_model_b", "winner_tie")
SHIFTED: Final = ("preference", "output_1")  # AlpacaEval: 1 + the probability that the second answer is better
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_SPOKEN: Final = ("model", "response", "answer", "assistant", "output", "completion", "option")
WINNERS: Final[dict[str, int | None]] = {"first": 0, "second": 1, "tie": None}


def preference(record: Record, fields: Fields, options: Options) -> Drafts:
    """Two answers and who won, by a label or a score for each; or K answers and a label for each two of them."""
    shared, names, answers, scores = contestants(record, fields)
    label = label_of(record, fields)
    share = share_of(record, fields)
    sources = [source_of(record, fields, name) for name in ("source_a", "source_b")]
    sources = sources if len(answers) == 2 else [""] * len(answers)
    if label is None and None in scores and share is None and (counts := votes_of(record, fields)):
        share = counts[0] / sum(counts)
    if label is None and None in scores:
        if share is None or len(answers) != 2:
            raise Reject("no_preference", "the row has neither a preference nor a score for each answer")
        if share == 0.5 and options.ties == "drop":
            raise Reject("tie", f"{names[0]} and {names[1]} are tied")
        drafted = compare(shared, answers[0], answers[1], (names[0], names[1]))
        yield Draft(*drafted, None, share, sources=(sources[0], sources[1]))
        return
    labels = label if isinstance(label, list) else [label]
    if len(labels) != (needed := len(answers) * (len(answers) - 1) // 2):
        raise Reject("bad_preference", f"{len(answers)} answers need {needed} preferences, not {len(labels)}")
    for (one, two), value in zip(combinations(range(len(answers)), 2), labels, strict=True):
        lead = None if None in scores else float(scores[one] - scores[two])
        sure = share
        if label is None:
            winner = int(lead < 0) if lead else None
        else:
            key = fields.key(record, "preference")
            winner, strength, shifted = verdict(value, key, (names[one], names[two]), record, options)
            lead = lead if strength is None else strength
            sure = shifted if share is None else share
        if winner is None and options.ties == "drop":
            yield Reject("tie", f"{names[one]} and {names[two]} are tied")
            continue
        if winner is not None and sure is not None and sure < 0.5:
            yield Reject("contradiction", "the label names one answer, the confidence the other")
            continue
        better, worse = (two, one) if winner == 1 else (one, two)
        margin = lead if lead is None or better == one else -lead
        drafted = compare(shared, answers[better], answers[worse], (names[better], names[worse]))
        written, places = (sources[better], sources[worse]), (better, worse, len(answers))
        yield Draft(*drafted, margin, 0.5 if winner is None else sure, sources=written, places=places)


def label_of(record: Record, fields: Fields) -> Any:
    """Who won, as the row says it; the key that holds 1 where the row has one key for each outcome."""
    if ONE_HOT[0] in record and ONE_HOT[1] in record and not fields.mapped("preference"):
        won = [key for key in ONE_HOT if key in record and code(record[key]) in ("1", "true")]
        if len(won) != 1:
            raise Reject("bad_preference", f"of {', '.join(ONE_HOT)} one should be 1, not {len(won)}")
        return won[0].removeprefix("winner_")
    if fields.mapped("votes_a") and not fields.mapped("preference"):
        return None  # the counts say it
    return fields.optional(record, "preference")


def contestants(record: Record, fields: Fields) -> tuple[list[Message] | None, list[str], list[Any], list[Any]]:
    """The prompt, the answers' names, the answers as they are, and their scores (all of them, or only None)."""
    if ONE_HOT[0] in record and ONE_HOT[1] in record and not fields.mapped("answers"):
        record = _unwrapped(record)
    if fields.mapped("answers"):
        answers = fields.required(record, "answers")
        if not isinstance(answers, list) or len(answers) < 2:
            raise Reject("not_list", f"answers is {kind(answers)}, not a list of two or more answers")
        options = [f"answer {n}" for n in range(1, len(answers) + 1)]
        return explicit_prompt(record, fields, answers), options, answers, [None]
    keys = ("", "")
    if fields.mapped("answer_a"):
        answers = [fields.required(record, name) for name in ("answer_a", "answer_b")]
        names = list(mapped_names(record, fields))
    else:
        found = answer_keys(tuple(record))
        if len(found) != 1:
            reason, what = ("ambiguous_field", "several keys fit") if found else ("missing_field", "no usual names")
            raise Reject(reason, f"which are the two answers? {what}: set `fields: {{answer_a: ..., answer_b: ...}}`")
        names, keys = [found[0].one, found[0].two], found[0].scores
        answers = [record[name] for name in names]
    scores = []
    for name, key in zip(("score_a", "score_b"), keys, strict=True):
        value = fields.required(record, name) if fields.mapped(name) else record.get(key)
        scores.append(None if value is None and not fields.mapped(name) else number(value, name))
    if all(is_dialogue(text) for text in answers):
        answers = [dialogue(clean(text, name), name) for text, name in zip(answers, names, strict=True)]
    return explicit_prompt(record, fields, answers), names, answers, scores


def mapped_names(record: Record, fields: Fields) -> tuple[str, str]:
    """What the two answers are called where `fields` says where they stand."""
    one, two = (fields.key(record, name) or name for name in ("answer_a", "answer_b"))
    return (one, two) if one != two else ("answer_a", "answer_b")


def _unwrapped(record: Record) -> Record:
    """The row with its texts in place of JSON lists of one text each, as LMSYS gives conversations of a turn."""
    keys = ("prompt", "response_a", "response_b")
    turns: list[Any] = []
    for key in keys:
        value = record.get(key)
        if isinstance(value, str) and value.startswith("["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return record
        turns.append(value)
    if not all(isinstance(texts, list) and len(texts) == len(turns[0]) for texts in turns):
        return record
    if len(turns[0]) != 1:
        raise Reject("several_turns", f"the answers are conversations of {len(turns[0])} turns that part at the first")
    return {**record, **{key: texts[0] for key, texts in zip(keys, turns, strict=True)}}


def verdict(
    value: Any, key: str, names: tuple[str, str], record: Record, options: Options
) -> tuple[int | None, float | None, float | None]:
    """Who won: 0, 1, or None for a tie; by how much the first leads, and how sure it is, if the label says so."""
    coded = options.values.keys() <= {"first", "second", "tie"} and bool(options.values)
    signed = options.values.get("signed") if options.values else SIGNED.get((key, names[0]))
    if signed:
        lead = number(value, "the preference") * (1.0 if signed == "first" else -1.0)
        return (None if lead == 0 else int(lead < 0)), lead, None
    label = code(value)
    if coded:
        if label in options.sides:
            return WINNERS[options.sides[label]], None, None
    elif label in (numeric := NUMERIC.get((key, names[0]), {})):
        return numeric[label], None, None
    elif (key, names[0]) == SHIFTED and isinstance(value, float) and 1 < value < 2:
        return int(value > 1.5), None, max(value - 1, 2 - value)
    elif not is_number(value):
        aliases = [(names[side].lower(), _text(record.get(("model_a", "model_b")[side]))) for side in (0, 1)]
        if (label in aliases[0]) != (label in aliases[1]):
            return int(label in aliases[1]), None, None
        for winner, words in enumerate(side_words(names)):
            if label in words:
                return (winner if winner < 2 else None), None, None
    shown = repr(label[:50]) if isinstance(value, str | int | float) else kind(value)
    reason = "unknown_code" if coded and is_number(value) else "bad_preference"
    raise Reject(reason, f"who won by {shown}? set `values: {{first: ..., second: ..., tie: ...}}`")


def is_number(value: Any) -> bool:
    """Whether a label is a number, which may mean anything; text that spells one counts."""
    return (isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9) or (
        isinstance(value, str) and _NUMBER.fullmatch(value.strip()) is not None
    )


@lru_cache(maxsize=256)
def side_words(names: tuple[str, str]) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """The words for the first answer, for the second and for a tie, given the keys of the two."""
    ends = [name.lower()[-1:] for name in names]
    letters = ends if sorted(ends) in (["1", "2"], ["0", "1"]) else ["a", "b"]
    own = [
        {stem + gap + end for end in {letter, *extra} for stem in _SPOKEN for gap in (" ", "_", "")}
        for letter, extra in zip(letters, ("a", "b"), strict=True)
    ]
    return FIRST | own[0] | {names[0].lower()}, SECOND | own[1] | {names[1].lower()}, TIE


def votes_of(record: Record, fields: Fields) -> tuple[float, float] | None:
    """How many votes each of the two answers has, where the row has a count for each."""
    if fields.mapped("votes_a"):
        found = [fields.required(record, name) for name in ("votes_a", "votes_b")]
    else:
        keys = [two.votes for two in answer_keys(tuple(record))]
        found = [record.get(key) for key in keys[0]] if len(keys) == 1 else [None]
    if None in found:
        return None
    first, second = (number(value, "the count of votes") for value in found)
    if min(first, second) < 0 or first + second == 0:
        raise Reject("no_preference", f"there are {first:g} and {second:g} votes")
    return first, second


def _text(value: Any) -> str:
    return value.strip().lower() if isinstance(value, str) and value.strip() else "model"
