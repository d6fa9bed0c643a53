"""Two answers, or each two of several, and a preference between them."""

import json
from itertools import combinations
from typing import NamedTuple

from rewardline.data.conversation import Reject, describe_type, is_transcript, read_text, read_transcript
from rewardline.data.formats.answers import two_answer_keys
from rewardline.data.formats.drafts import Draft, Drafts, read_confidence, read_source
from rewardline.data.formats.fields import Record, RowFields, read_number
from rewardline.data.formats.labels import Preference, is_one_hot, preference_label, read_preference, vote_counts
from rewardline.data.formats.prompts import explicit_prompt, split_sides
from rewardline.data.schema import Message


class ComparedAnswers(NamedTuple):
    """The answers that a row compares, as they are, with the names that labels may give them."""

    prompt: list[Message] | None
    names: list[str]
    answers: list[object]
    lead: float | None
    """By how much the score of the first of two is higher; None unless both have a score."""


def read_preferences(row: RowFields) -> Drafts:
    """Two answers and a label or a score for each; or K answers and a label for each two of them."""
    prompt, names, answers, lead = compared_answers(row)
    label = preference_label(row)
    confidence = read_confidence(row)
    sources = [read_source(row, name) for name in ("source_a", "source_b")]
    sources = sources if len(answers) == 2 else [""] * len(answers)
    unlabelled = label is None and lead is None
    if unlabelled and confidence is None and (counts := vote_counts(row)):
        confidence = counts[0] / sum(counts)
    if unlabelled:
        if confidence is None or len(answers) != 2:
            raise Reject("no_preference", "the row has neither a preference nor a score for each answer")
        if confidence == 0.5 and row.settings.ties == "drop":
            raise Reject("tie", f"{names[0]} and {names[1]} are tied")
        sides = split_sides(prompt, answers[0], answers[1], (names[0], names[1]))
        yield Draft(*sides, None, confidence, sources=(sources[0], sources[1]))
        return
    labels = label if isinstance(label, list) else [label]
    if len(labels) != (needed := len(answers) * (len(answers) - 1) // 2):
        raise Reject("bad_preference", f"{len(answers)} answers need {needed} preferences, not {len(labels)}")
    for (one, two), each in zip(combinations(range(len(answers)), 2), labels, strict=True):
        if label is None:
            preference = Preference(int(lead < 0) if lead else None)
        else:
            preference = read_preference(each, row.key("preference"), (names[one], names[two]), row)
        own_confidence = preference.confidence if confidence is None else confidence
        if preference.winner is None and row.settings.ties == "drop":
            yield Reject("tie", f"{names[one]} and {names[two]} are tied")
            continue
        if preference.winner is not None and own_confidence is not None and own_confidence < 0.5:
            yield Reject("contradiction", "the label names one answer, the confidence the other")
            continue
        better, worse = (two, one) if preference.winner == 1 else (one, two)
        margin = lead if preference.lead is None else preference.lead
        sides = split_sides(prompt, answers[better], answers[worse], (names[better], names[worse]))
        yield Draft(
            *sides,
            margin if margin is None or better == one else -margin,
            0.5 if preference.winner is None else own_confidence,
            sources=(sources[better], sources[worse]),
            positions=(better, worse, len(answers)),
        )


def compared_answers(row: RowFields) -> ComparedAnswers:
    """The answers that a row compares; rejects a row from which it is not clear which they are."""
    if is_one_hot(row) and not row.mapped("answers"):
        row = row.replace(_without_lists(row.record))
    answers: list[object]
    if row.mapped("answers"):
        listed = row.required("answers")
        if not isinstance(listed, list) or len(listed) < 2:
            raise Reject("not_list", f"answers is {describe_type(listed)}, not a list of two or more answers")
        names = [f"answer {n}" for n in range(1, len(listed) + 1)]
        return ComparedAnswers(explicit_prompt(row, listed), names, listed, None)
    score_keys = ("", "")
    if row.mapped("answer_a"):
        answers = [row.required(name) for name in ("answer_a", "answer_b")]
        names = list(mapped_names(row))
    else:
        found = two_answer_keys(tuple(row.record))
        if len(found) != 1:
            reason, what = ("ambiguous_field", "several keys fit") if found else ("missing_field", "no usual names")
            raise Reject(reason, f"which are the two answers? {what}: set `fields: {{answer_a: ..., answer_b: ...}}`")
        names, score_keys = [found[0].first, found[0].second], found[0].scores
        answers = [row.record[name] for name in names]
    scores = [_score(row, name, key) for name, key in zip(("score_a", "score_b"), score_keys, strict=True)]
    lead = None if scores[0] is None or scores[1] is None else scores[0] - scores[1]
    if all(is_transcript(text) for text in answers):
        answers = [read_transcript(read_text(text, name), name) for text, name in zip(answers, names, strict=True)]
    return ComparedAnswers(explicit_prompt(row, answers), names, answers, lead)


def _score(row: RowFields, name: str, key: str) -> float | None:
    value = row.required(name) if row.mapped(name) else row.record.get(key)
    return None if value is None and not row.mapped(name) else read_number(value, name)


def mapped_names(row: RowFields) -> tuple[str, str]:
    """What the two answers are called where `fields` has their paths."""
    one, two = (row.key(name) or name for name in ("answer_a", "answer_b"))
    return (one, two) if one != two else ("answer_a", "answer_b")


def _without_lists(record: Record) -> Record:
    """The row with texts instead of JSON lists of one text each, which LMSYS has for conversations of a turn."""
    keys = ("prompt", "response_a", "response_b")
    turns: list[list[object]] = []
    for key in keys:
        value = record.get(key)
        if isinstance(value, str) and value.startswith("["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return record
        if not isinstance(value, list) or (turns and len(value) != len(turns[0])):
            return record
        turns.append(value)
    if len(turns[0]) != 1:
        raise Reject(
            "several_turns", f"the answers are conversations of {len(turns[0])} turns that differ from the first on"
        )
    return {**record, **{key: texts[0] for key, texts in zip(keys, turns, strict=True)}}
