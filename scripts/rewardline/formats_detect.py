"""Which formats a row may have, by its shape alone. A direction that the data does not state is never guessed."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from rewardline.formats_contest import label_of, verdict
from rewardline.formats_fields import SYNONYMS, Fields, Record, answer_keys
from rewardline.formats_groups import BAD, GOOD
from rewardline.formats_lists import RANK_KEYS, SCORE_KEYS, column, unfolded
from rewardline.formats_options import Options, code, codes
from rewardline.formats_pairs import HEADINGS, SIDES, is_answered
from rewardline.formats_text import Reject, is_conversation, is_dialogue, speaker

_PLAIN: Final = frozenset({"1", "0"})  # labels that may mean anything
_TREE: Final = ("message_id", "parent_id", "message_tree_id", "role", "rank")


class Candidate(NamedTuple):
    """A format that a row may have: for certain, or (`hint`) if the user says what is asked for."""

    name: str
    hint: str = ""


def candidates(record: Record, fields: Fields, values: dict[str, Any]) -> list[Candidate]:
    """All that fits a row; where chosen and rejected are named outright, only what they make it."""
    prompted = fields.present(record, "prompt") and _readable(record, fields, "prompt")
    for found in (
        list(_tree(record, fields)),
        list(_sided(record, fields, prompted)),
        [*_contest(record, fields, prompted, Options(values=values)), *_listed(record, fields, prompted)],
    ):
        if found:
            return found
    return list(_labelled(record, fields, prompted, values))


def _get(record: Record, fields: Fields, name: str) -> Any:
    try:
        return fields.optional(record, name)
    except Reject:
        return None


def _readable(record: Record, fields: Fields, name: str) -> bool:
    try:
        fields.optional(record, name)
    except Reject:
        return False
    return True


def _tree(record: Record, fields: Fields) -> Iterator[Candidate]:
    root = _get(record, fields, "prompt")
    if any(
        isinstance(item, dict) and isinstance(item.get("replies"), list) and speaker(item) for item in (root, record)
    ):
        yield Candidate("tree")
    if all(key in record for key in _TREE):
        yield Candidate("tree_messages")


def _sided(record: Record, fields: Fields, prompted: bool) -> Iterator[Candidate]:
    """The formats with `chosen` and `rejected`."""
    for name in (*SIDES, "prompt"):
        if all(fields.present(record, side) for side in SIDES) and not _readable(record, fields, name):
            yield Candidate("pairs", f"fields: {{{name}: ...}}, which stands there more than once")
            return
    sides = [_get(record, fields, name) for name in SIDES]
    alone = fields.present(record, "rejected") and not fields.present(record, "chosen")
    if alone and is_answered(_get(record, fields, "conversation")) and not is_conversation(sides[1]):
        yield Candidate("messages")
        return
    if all(is_dialogue(side) for side in sides):
        names = ["transcript", "pairs"] if prompted else ["transcript"]
        yield from (Candidate(name, "format: transcript" if prompted else "") for name in names)
    elif all(isinstance(side, str) and all(heading in side for heading in HEADINGS) for side in sides):
        yield Candidate("judge")
    elif all(is_conversation(side) and speaker(side[0]) for side in sides):
        yield Candidate("messages")
    elif not prompted:
        return
    elif all(speaker(side[0] if isinstance(side, list) and side else side) for side in sides):
        yield Candidate("messages")
    elif all(isinstance(side, str | dict) for side in sides):
        yield Candidate("pairs")
    elif all(isinstance(side, str) or _plain(side) for side in sides):
        yield Candidate("good_bad")


def _plain(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def _contest(record: Record, fields: Fields, prompted: bool, options: Options) -> Iterator[Candidate]:
    """Two answers, with who won or with scores."""
    try:
        label = label_of(record, fields)
    except Reject:
        label = None
    judged = label is not None
    if fields.mapped("answer_a") or fields.mapped("answers"):
        scored = fields.mapped("score_a") and fields.mapped("score_b")
        if judged or scored or fields.mapped("confidence") or fields.mapped("odds"):
            names = [fields.key(record, name) or name for name in ("answer_a", "answer_b")]
            yield _judged(record, fields, label, (names[0], names[1]), options)
        return
    found = answer_keys(tuple(record))
    for one, two, *scores in found:
        conversations = all(is_conversation(record[key]) or is_dialogue(record[key]) for key in (one, two))
        scored = all(record.get(key) is not None for key in scores)
        if (prompted or conversations) and (judged or scored):
            if len(found) > 1:
                yield Candidate(
                    "preference", f"fields: {{answer_a: {found[0][0]}, answer_b: {found[0][1]}}}, or which?"
                )
                return
            yield _judged(record, fields, label, (one, two), options)


def _judged(record: Record, fields: Fields, label: Any, names: tuple[str, str], options: Options) -> Candidate:
    """Preference or votes; certain if every label can be understood."""
    several = isinstance(label, list) and not fields.mapped("answers")
    name = "votes" if several else "preference"
    if not _readable(record, fields, "preference"):
        return Candidate(name, "fields: {preference: ...}, which stands there more than once")
    key = fields.key(record, "preference")
    try:
        for value in label if isinstance(label, list) else [label] if label is not None else []:
            verdict(value, key, names, record, options)
    except Reject:
        what = "values: {first: ..., second: ..., tie: ...}"
        return Candidate(name, f"{what}, for what {key or 'the preference'} holds")
    return Candidate(name)


def _listed(record: Record, fields: Fields, prompted: bool) -> Iterator[Candidate]:
    """Lists of answers."""
    if not prompted:
        return
    good, bad = (_get(record, fields, name) for name in ("good", "bad"))
    asked = fields.mapped("good") and fields.mapped("bad")
    found = list(_several(record, fields))
    if asked or (_texts(good) and _texts(bad) and fields.key(record, "good") not in SYNONYMS["chosen"]):
        yield Candidate("good_bad", "" if asked or not found else "format: good_bad")
        found = [Candidate(name, hint or f"format: {name}") for name, hint in found]
    yield from found


def _several(record: Record, fields: Fields) -> Iterator[Candidate]:
    """A list of answers, with what says which are better."""
    answers = _get(record, fields, "answers")
    if fields.mapped("answers") and isinstance(answers, dict):
        yield Candidate("ranked")
        return
    answers = unfolded(answers)
    if fields.mapped("preference") or not isinstance(answers, list) or len(answers) < 2:
        return
    orders = [_get(record, fields, name) for name in ("scores", "ranks")]
    orders += [column(answers, keys) for keys in (SCORE_KEYS, RANK_KEYS)]
    if any(isinstance(order, list) and len(order) == len(answers) for order in orders):
        yield Candidate("ranked")
    elif all(isinstance(answer, str) for answer in answers):
        yield Candidate("ranked", "format: ranked, if the best answer comes first; else fields: {scores: ...}")
    elif all(isinstance(answer, dict) for answer in answers):
        path = fields.key(record, "answers") + "[*]."
        graded = " or ".join(path + key for key in _numeric(answers[0])) or "..."
        yield Candidate("ranked", f"fields: {{scores: {graded}}}")


def _texts(value: Any) -> bool:
    return isinstance(value, list | str) and bool(value)


def _numeric(record: Record) -> list[str]:
    return [key for key, value in record.items() if isinstance(value, int | float) and not isinstance(value, bool)][:5]


def _labelled(record: Record, fields: Fields, prompted: bool, values: dict[str, Any]) -> Iterator[Candidate]:
    """One answer with a label."""
    conversation = _get(record, fields, "conversation")
    answered = isinstance(_get(record, fields, "answer"), str | list | dict)
    talked = is_conversation(conversation) and speaker(conversation[-1]) == "assistant"
    if not ((prompted and answered) or talked):
        return
    if fields.mapped("score"):
        yield Candidate("labelled")
        return
    label = _get(record, fields, "label")
    name = code(label)
    understood = [code(value) for side in ("good", "bad") for value in codes(values.get(side, []))]
    if name in (understood or (GOOD | BAD) - _PLAIN):
        yield Candidate("labelled")
    elif label is not None:
        yield Candidate(
            "labelled", "format: labelled, if the larger number is the better; else values: {good: ..., bad: ...}"
        )
    elif graded := _numeric(record):
        yield Candidate("labelled", f"fields: {{score: {' or '.join(graded)}}}, or `attributes` with their weights")
