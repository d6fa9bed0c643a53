"""Which formats a row may have, judged by its shape alone."""

from typing import Any

from rewardline.formats_fields import Fields, Record, answer_keys
from rewardline.formats_lists import column
from rewardline.formats_pairs import HEADINGS, SIDES
from rewardline.formats_text import Reject, is_conversation, is_dialogue, speaker


def candidates(record: Record, fields: Fields) -> tuple[list[str], list[str]]:
    """The formats whose parts the row has for certain, and those that it may have if the user says so."""
    prompted = fields.present(record, "prompt")
    checks = _sided(record, fields, prompted), _contest(record, fields, prompted), _listed(record, fields, prompted)
    return [name for certain, _ in checks for name in certain], [name for _, possible in checks for name in possible]


def _get(record: Record, fields: Fields, name: str) -> Any:
    try:
        return fields.optional(record, name)
    except Reject:
        return None


def _sided(record: Record, fields: Fields, prompted: bool) -> tuple[list[str], list[str]]:
    """The formats with `chosen` and `rejected`."""
    sides = [_get(record, fields, name) for name in SIDES]
    if all(is_dialogue(side) for side in sides):
        return ([], ["transcript", "pairs"]) if prompted else (["transcript"], [])
    if all(isinstance(side, str) and all(heading in side for heading in HEADINGS) for side in sides):
        return ["judge"], []
    if all(is_conversation(side) for side in sides):
        return ["messages"], []
    if not prompted:
        return [], []
    if all(speaker(side[0] if isinstance(side, list) and side else side) for side in sides):
        return ["messages"], []
    return (["pairs"], []) if all(isinstance(side, str | dict) for side in sides) else ([], [])


def _contest(record: Record, fields: Fields, prompted: bool) -> tuple[list[str], list[str]]:
    """Two answers, with who won or with scores."""
    judged = _get(record, fields, "preference") is not None
    if fields.mapped("answer_a") or fields.mapped("answers"):
        scored = fields.mapped("score_a") and fields.mapped("score_b")
        return (["preference"], []) if judged or scored else ([], [])
    found = answer_keys(tuple(record))
    for one, two, *scores in found:
        conversations = is_conversation(record[one]) and is_conversation(record[two])
        if (prompted or conversations) and (judged or all(record.get(key) is not None for key in scores)):
            return (["preference"], []) if len(found) == 1 else ([], ["preference"])
    return [], []


def _listed(record: Record, fields: Fields, prompted: bool) -> tuple[list[str], list[str]]:
    """Lists of answers."""
    certain, possible = [], []
    good, bad = (_get(record, fields, name) for name in ("good", "bad"))
    asked = fields.mapped("good") and fields.mapped("bad")
    if prompted and (asked or (isinstance(good, list) and isinstance(bad, list))):
        certain.append("good_bad")
    answers = _get(record, fields, "answers")
    if prompted and fields.mapped("answers") and isinstance(answers, dict):
        certain.append("ranked")
    elif prompted and not fields.mapped("preference") and isinstance(answers, list) and len(answers) > 1:
        orders = [_get(record, fields, name) for name in ("scores", "ranks")]
        orders += [column(answers, key) for key in ("score", "rank")]
        if any(isinstance(order, list) and len(order) == len(answers) for order in orders):
            certain.append("ranked")
        elif all(isinstance(answer, str) for answer in answers):
            possible.append("ranked")
    return certain, possible
