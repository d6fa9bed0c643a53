"""Two answers, or each two of several, and a label, scores or votes that say which is the better one."""

import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import combinations, product
from typing import Final, NamedTuple

from rewardline.core.settings import JsonObject
from rewardline.data.conversation import Reject, describe_type, is_transcript, read_text, read_transcript
from rewardline.data.formats.drafts import Draft, Drafts, read_confidence, read_source
from rewardline.data.formats.fields import (
    RowFields,
    difference,
    is_empty,
    is_number,
    label_text,
    mean,
    read_difference,
    read_number,
    read_ratings,
)
from rewardline.data.formats.prompts import explicit_prompt, split_sides
from rewardline.data.formats.ranked import STEMS, answer_columns, lead_confidence, score_keys
from rewardline.data.schema import Message

ASK_VALUES: Final = "values: {first: ..., second: ..., tie: ...}"
# What numbers mean in public datasets, by the key of the preference and of the first answer.
_NUMERIC: Final[dict[tuple[str, str], dict[str, int | None]]] = {
    ("better_response_id", "response_0"): {"0": 0, "1": 1},  # PKU-SafeRLHF
    ("labels", "human_ref_A"): {"1": 0, "0": 1},  # SHP
    ("preference", "output_1"): {"1": 0, "2": 1, "0": None, "1.5": None},  # AlpacaFarm, AlpacaEval
}
_SIGNED: Final = {  # above 0 the second answer is better
    ("overall_preference", "response1"): "second",  # HelpSteer3
    ("preference_strength", "response_1"): "second",  # HelpSteer2-Preference
}
_SHIFTED: Final = ("preference", "output_1")  # AlpacaEval: 1 + the probability that the second answer is better
_ENDS: Final = (
    *(("_a", "_b"), ("_A", "_B"), ("_0", "_1"), ("_1", "_2"), ("1", "2"), ("0", "1"), ("A", "B")),
    *((gap + one, gap + two) for gap in (" ", "-") for one, two in ("ab", "AB", "01", "12")),
)
_STRENGTH: Final = re.compile(
    r"strength|degree|intensity|magnitude|confiden|certain|margin|level|grade|rating|score|overall|how_much|gap|diff"
    r"|agree|scale|likert|slider|importance|quality"
)
"""In the key of a preference: it says how much an answer is better, so that 1 and 2 need not be two answers."""
BLANK: Final = frozenset({"", "nan", "null", "n/a", "na"})
"""What a label is where there is none."""
_ONE_HOT: Final = ("winner_model_a", "winner_model_b", "winner_tie")
OUTCOMES_AND_SOURCES: Final = (*_ONE_HOT, "source_a", "source_b", "model_a", "model_b")
"""Keys of what else a row may say of two answers: how they were judged, and who wrote them."""
_FIRST: Final = frozenset({"a", "first", "model_a", "left", "[[a]]", "a>b", "a>>b"})
_SECOND: Final = frozenset({"b", "second", "model_b", "right", "[[b]]", "b>a", "b>>a", "a<b", "a<<b"})
_TIE: Final = frozenset(
    {"tie", "tie (bothbad)", "both_bad", "bothbad", "both", "equal", "neither", "draw", "same", "[[c]]", "a=b", "b=a"}
)
_COUNTED_KEYS: Final = ("choice", "winner")  # whose 0 and 1 are not "no" and "yes"
_VOTE_LIST: Final = "the list votes"
_NOUNS: Final = ("model", "response", "answer", "assistant", "output", "completion", "option")
_WINNERS: Final[dict[str, int | None]] = {"first": 0, "second": 1, "tie": None}


class TwoAnswerKeys(NamedTuple):
    """The keys of two answers, and those that would hold their scores and the counts of their votes."""

    first: str
    second: str
    scores: tuple[str, str]
    votes: tuple[str, str]


class Preference(NamedTuple):
    """What a label says of two answers."""

    winner: int | None
    """0 or 1; None for a tie."""
    lead: float | None = None
    """By how much the first answer is better, if the label says so."""
    confidence: float | None = None
    """The probability that the label is right, if it says so."""

    @classmethod
    def of_lead(cls, lead: float, certainty: float | None = None) -> "Preference":
        """The preference for the first answer if `lead` is above 0, for the second one if it is below.

        `certainty` is the probability that the first one is better.
        """
        confidence = None if certainty is None else max(certainty, 1 - certainty)
        return cls(None if lead == 0 else int(lead < 0), lead, confidence)


class ComparedAnswers(NamedTuple):
    """The answers that a row compares, as they are, with the names that labels may give them."""

    prompt: list[Message] | None
    names: list[str]
    answers: list[object]
    lead: float | None
    """By how much the score of the first of two is higher; None unless both have a score."""
    confidence: float | None = None
    """The probability that the first of two is better, by the spread of their ratings; None if it is not known."""


@lru_cache(maxsize=1024)
def two_answer_keys(keys: tuple[str, ...]) -> list[TwoAnswerKeys]:
    """Those among a row's keys that hold two answers and no more; not to be changed."""
    several = {column.key for columns in answer_columns(keys) for column in columns}
    found = []
    for stem, (one, two) in product(STEMS, _ENDS):
        if stem + one in keys and stem + two in keys and stem + one not in several:
            scores = zip(score_keys(stem, one), score_keys(stem, two), strict=True)
            present = next(
                (both for both in scores if all(key in keys for key in both)), (f"score{one}", f"score{two}")
            )
            found.append(TwoAnswerKeys(stem + one, stem + two, present, (f"votes{one}", f"votes{two}")))
    return found + [
        TwoAnswerKeys(f"left_{stem}", f"right_{stem}", ("left_score", "right_score"), ("left_votes", "right_votes"))
        for stem in STEMS
        if f"left_{stem}" in keys and f"right_{stem}" in keys
    ]


def read_preferences(row: RowFields) -> Drafts:
    """Two answers and a label or a score for each; or K answers and a label for each two of them."""
    prompt, names, answers, lead, certainty = compared_answers(row)
    label, confidence = preference_label(row), read_confidence(row)
    sources = [read_source(row, name) for name in ("source_a", "source_b")]
    sources = sources if len(answers) == 2 else [""] * len(answers)
    if label is None and lead is None:
        if confidence is None and (counts := vote_counts(row)):
            confidence = counts[0] / sum(counts)
        if confidence is None or len(answers) != 2:
            raise Reject("no_preference", "the row has neither a preference nor a score for each answer")
        if confidence == 0.5 and row.settings.ties == "drop":
            raise Reject("tie", f"{names[0]} and {names[1]} are tied")
        prompt, (first, second) = split_sides(prompt, answers, names)
        yield Draft(prompt, first, second, None, confidence, sources=(sources[0], sources[1]))
        return
    labels = label if isinstance(label, list) else [label]
    if len(labels) != (needed := len(answers) * (len(answers) - 1) // 2):
        raise Reject("bad_preference", f"{len(answers)} answers need {needed} preferences, not {len(labels)}")
    for (one, two), each in zip(combinations(range(len(answers)), 2), labels, strict=True):
        if label is None:
            preference = Preference.of_lead(lead or 0.0, certainty)
        else:
            preference = read_preference(each, row.key("preference"), (names[one], names[two]), row)
        probability = preference.confidence if confidence is None else confidence
        if preference.winner is None:
            probability = 0.5
            if row.settings.ties == "drop":
                yield Reject("tie", f"{names[one]} and {names[two]} are tied")
                continue
        elif probability is not None and probability < 0.5:
            yield Reject("contradiction", "the label names one answer, the confidence the other")
            continue
        better, worse = (two, one) if preference.winner == 1 else (one, two)
        margin = lead if preference.lead is None else preference.lead
        shared, (chosen, rejected) = split_sides(
            prompt, (answers[better], answers[worse]), (names[better], names[worse])
        )
        yield Draft(
            shared,
            chosen,
            rejected,
            margin if margin is None or better == one else -margin,
            probability,
            sources=(sources[better], sources[worse]),
            positions=(better, worse, len(answers)),
        )


def compared_answers(row: RowFields) -> ComparedAnswers:
    """The answers that a row compares; rejects a row from which it is not clear which they are."""
    if row.mapped("answers"):
        listed = row.required("answers")
        if not isinstance(listed, list) or len(listed) < 2:
            raise Reject("not_list", f"answers is {describe_type(listed)}, not a list of two or more answers")
        names = [f"answer {n}" for n in range(1, len(listed) + 1)]
        return ComparedAnswers(explicit_prompt(row, listed), names, listed, None)
    if _is_one_hot(row):
        row = _without_lists(row)
    score_keys = ("", "")
    if row.mapped("answer_a"):
        answers = [row.required(name) for name in ("answer_a", "answer_b")]
        names = list(mapped_names(row))
    else:
        found = two_answer_keys(row.keys)
        if len(found) != 1:
            reason, what = ("ambiguous_field", "several keys fit") if found else ("missing_field", "no usual names")
            raise Reject(reason, f"which are the two answers? {what}: set `fields: {{answer_a: ..., answer_b: ...}}`")
        names, score_keys = [found[0].first, found[0].second], found[0].scores
        answers = [row.record[name] for name in names]
    one, two = [_ratings(row, name, key) for name, key in zip(("score_a", "score_b"), score_keys, strict=True)]
    lead = difference(mean(one), mean(two)) if one and two else None
    certainty = lead_confidence(one, two) if one and two else None
    if all(is_transcript(text) for text in answers):
        answers = [read_transcript(read_text(text, name), name) for text, name in zip(answers, names, strict=True)]
    return ComparedAnswers(explicit_prompt(row, answers), names, answers, lead, certainty)


def _ratings(row: RowFields, name: str, key: str) -> tuple[float, ...]:
    """The ratings of an answer; empty where `fields` does not map them and the row has none under `key`, a name."""
    value = row.required(name) if row.mapped(name) else row.record.get(key) if key else None
    return () if (is_empty(value) or value == []) and not row.mapped(name) else read_ratings(value, name)


def mapped_names(row: RowFields) -> tuple[str, str]:
    """What the two answers are called where `fields` has their paths."""
    one, two = (row.key(name) or name for name in ("answer_a", "answer_b"))
    return (one, two) if one != two else ("answer_a", "answer_b")


def _without_lists(row: RowFields) -> RowFields:
    """The row with texts, or messages, instead of JSON lists of texts, which LMSYS has for the turns of each side."""
    lists: dict[str, list[object]] = {}
    for key in ("prompt", "response_a", "response_b"):
        value = row.record.get(key)
        if isinstance(value, str) and value.startswith("["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return row
        if not isinstance(value, list):
            return row
        lists[key] = value
    turns, *others = map(len, lists.values())
    if others != [turns, turns]:
        return row
    if not turns:
        raise Reject("empty_prompt", "its lists of questions and answers are empty")
    values: dict[str, object] = {key: texts[0] for key, texts in lists.items()}
    if turns > 1:  # the first question, and all that comes after it
        questions = [{"role": "user", "content": text} for text in lists["prompt"][1:]]
        for key in ("response_a", "response_b"):
            answers = [{"role": "assistant", "content": text} for text in lists[key]]
            values[key] = [answers[0], *(turn for both in zip(questions, answers[1:], strict=True) for turn in both)]
    return row.replace({**row.record, **values})


def preference_label(row: RowFields) -> object:
    """The row's label for its two answers; of a row with a key for each outcome, the one that holds 1."""
    record = row.record
    if _is_one_hot(row) and not row.mapped("preference"):
        won = [key for key in _ONE_HOT if key in record and label_text(record[key]) in ("1", "true")]
        if len(won) != 1:
            raise Reject("bad_preference", f"of {', '.join(_ONE_HOT)} one should be 1, not {len(won)}")
        return won[0].removeprefix("winner_")
    if row.mapped("votes_a") and not row.mapped("preference"):
        return None  # the row is read by these counts
    return row.optional("preference")


def _is_one_hot(row: RowFields) -> bool:
    """Whether a row has a key for each outcome, as LMSYS has them."""
    return _ONE_HOT[0] in row.record and _ONE_HOT[1] in row.record


def read_preference(label: object, key: str, names: tuple[str, str], row: RowFields) -> Preference:
    """What a label means that is under `key`, where the two answers are under `names`."""
    values = row.settings.values
    coded = bool(values) and values.keys() <= {"first", "second", "tie"}
    signed = values.get("signed") if values else _SIGNED.get((key, names[0]))
    if signed:
        return Preference.of_lead(read_difference(label, "the preference") * (1.0 if signed == "first" else -1.0))
    text = label_text(label)
    if coded:
        if text in row.sides:
            return Preference(_WINNERS[row.sides[text]])
    elif text in (numeric := _NUMERIC.get((key, names[0]), {})):
        return Preference(numeric[text])
    elif (key, names[0]) == _SHIFTED and is_number(label) and 1 < (shifted := read_number(label, key)) < 2:
        return Preference(int(shifted > 1.5), confidence=max(shifted - 1, 2 - shifted))
    elif not is_number(label):
        models = [_model_name(row.record.get(key)) for key in ("model_a", "model_b")]
        is_first, is_second = [text in (name.lower(), model) for name, model in zip(names, models, strict=True)]
        if is_first != is_second:
            return Preference(int(is_second))
        for winner, words in zip((0, 1, None), side_words(names), strict=True):
            if text in words:
                return Preference(winner)
    if text in BLANK:
        raise Reject("no_preference", f"{key or 'the preference'} is empty; `where` can leave such rows out")
    shown = repr(text[:50]) if isinstance(label, str | int | float) else describe_type(label)
    reason = "unknown_code" if coded and is_number(label) else "bad_preference"
    raise Reject(reason, f"who won by {shown}? set `values: {{first: ..., second: ..., tie: ...}}`")


def _model_name(value: object) -> str:
    return value.strip().lower() if isinstance(value, str) and value.strip() else "model"


@lru_cache(maxsize=256)
def side_words(names: tuple[str, str]) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """The words for the first answer, for the second and for a tie, given the keys of the two."""
    ends = [name.lower()[-1:] for name in names]
    letters = ends if sorted(ends) in (["1", "2"], ["0", "1"]) else ["a", "b"]
    own = [
        {noun + gap + end for end in {letter, *extra} for noun in _NOUNS for gap in (" ", "_", "")}
        for letter, extra in zip(letters, ("a", "b"), strict=True)
    ]
    return _FIRST | own[0] | {names[0].lower()}, _SECOND | own[1] | {names[1].lower()}, _TIE


def vote_counts(row: RowFields) -> tuple[float, float] | None:
    """How many votes each of the two answers has, where the row has a count for each."""
    counts: list[object]
    if row.mapped("votes_a"):
        counts = [row.required(name) for name in ("votes_a", "votes_b")]
    else:
        keys = [two.votes for two in two_answer_keys(row.keys)]
        counts = [row.record.get(key) for key in keys[0]] if len(keys) == 1 else [None]
    if any(map(is_empty, counts)):
        return None
    first, second = (read_number(value, "the count of votes") for value in counts)
    if min(first, second) < 0 or first + second == 0:
        raise Reject("no_preference", f"there are {first:g} and {second:g} votes")
    return first, second


def label_values(rows: Iterable[RowFields]) -> tuple[JsonObject, str]:
    """What the labels of two answers that are numbers mean: `values` (empty if they need none), or what to ask.

    They have a meaning only where they and the names state it.
    """
    labels: dict[tuple[str, tuple[str, str]], list[object]] = {}
    for row in rows:
        for key, names, label in number_labels(row):
            labels.setdefault((key, names), []).append(label)
    meanings = [_meaning(numbers, key, names) for (key, names), numbers in sorted(labels.items())]
    unclear = next((meaning for meaning in meanings if meaning[1]), None)
    if unclear or not meanings:
        return unclear or ({}, "")
    if any(meaning != meanings[0] for meaning in meanings):
        return {}, f"{ASK_VALUES}; its rows do not agree on what numbers mean"
    return meanings[0]


def number_labels(row: RowFields) -> Iterator[tuple[str, tuple[str, str], object]]:
    """The labels of two answers that are numbers, each with its key and the names of the answers."""
    try:
        label, key = preference_label(row), row.key("preference")
        if row.mapped("answer_a"):
            names = mapped_names(row)
        elif row.mapped("answers"):
            names = ("answer 1", "answer 2")
        else:
            (two,) = two_answer_keys(row.keys)
            names = two.first, two.second
    except (Reject, ValueError):
        return
    for each in label if isinstance(label, list) else [label]:
        if is_number(each):
            # Two numbers under "votes" may be how many votes each answer has.
            yield _VOTE_LIST if isinstance(label, list) and key == "votes" else key, names, each


def _meaning(labels: list[object], key: str, names: tuple[str, str]) -> tuple[JsonObject, str]:
    numbers = {label_text(label): read_number(label, key) for label in labels}
    least, most = min(numbers.values()), max(numbers.values())
    ends = names[0][-1:], names[1][-1:]
    ask = f"{ASK_VALUES}, for what {key or 'the preference'} holds ({', '.join(sorted(numbers)[:8])})"
    if key == _VOTE_LIST:
        ask += "; or fields: {votes_a: votes[0], votes_b: votes[1]} if they are counts"
    elif (key, names[0]) in _SIGNED:
        if least < 0:
            return {"signed": _SIGNED[key, names[0]]}, ""
    elif (key, names[0]) == _SHIFTED:
        if most > 1 and all(number == 0 or 1 <= number <= 2 for number in numbers.values()):
            return {}, ""
    elif (key, names[0]) in _NUMERIC:
        return {}, ""
    elif _STRENGTH.search(key.lower()):
        pass
    elif (ends == ("1", "2") and numbers.keys() == {"1", "2"}) or (
        ends == ("0", "1") and key in _COUNTED_KEYS and "0" in numbers and numbers.keys() <= {"0", "1"}
    ):
        first, second, tie = map(sorted, side_words(names))
        return {"first": [*first, ends[0]], "second": [*second, ends[1]], "tie": [*tie]}, ""
    if least < 0 or _STRENGTH.search(key.lower()):
        ask += "; or values: {signed: first} or {signed: second}, the better one where it is above 0"
    return {}, ask
