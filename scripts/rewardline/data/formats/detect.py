"""Which formats a row may have, by its shape alone. A direction that the data does not state is never guessed."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from rewardline.data.conversation import Reject, is_conversation, is_dialogue, is_plain, opened, speaker
from rewardline.data.formats.answer_columns import answer_columns, answer_keys
from rewardline.data.formats.best_answer import Answers, answers_of, best_of, places, unfolded
from rewardline.data.formats.chosen_rejected import HEADINGS, SIDES, is_answered
from rewardline.data.formats.fields import SYNONYMS, Fields, Record
from rewardline.data.formats.grouped import BAD, GOOD
from rewardline.data.formats.options import Options, code
from rewardline.data.formats.ranked import RANK_KEYS, SCORE_KEYS, column
from rewardline.data.formats.two_answers import is_number, label_of, mapped_names, side_words, verdict

START: Final = "values: {start: 0} or {start: 1}, the number of the first answer"
BEST_FIRST: Final = "format: ranked, if the best answer comes first; else fields: {scores: ...}"
_PLAIN: Final = frozenset({"1", "0"})  # labels that may mean anything
_TREE: Final = ("message_id", "parent_id", "message_tree_id", "role", "rank")


class Candidate(NamedTuple):
    """A format that a row may have: for certain, or (`hint`) if the user says what is asked for."""

    name: str
    hint: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    """Fields that do not stand where they usually do."""


class Known(NamedTuple):
    """What is known of the whole data set: the options, and the number of the first of several answers."""

    options: Options
    start: int | None = None


def candidates(record: Record, fields: Fields, known: Known) -> list[Candidate]:
    """All that fits a row; where chosen and rejected are named outright, only what they make it."""
    prompted = fields.present(record, "prompt") and _readable(record, fields, "prompt")
    for found in (
        list(_tree(record, fields)),
        list(_sided(record, fields, prompted, known)),
        [*_contest(record, fields, prompted, known.options), *_listed(record, fields, prompted, known)],
    ):
        if found:
            return found
    return list(_labelled(record, fields, prompted, known.options))


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


def _sided(record: Record, fields: Fields, prompted: bool, known: Known) -> Iterator[Candidate]:
    """The formats with `chosen` and `rejected`."""
    both = all(fields.present(record, side) for side in SIDES)
    for name in (*SIDES, "prompt"):
        if both and not _readable(record, fields, name):
            yield Candidate("pairs", f"fields: {{{name}: ...}}, which stands there more than once")
            return
    sides = [opened(_get(record, fields, name)) for name in SIDES]
    alone = fields.present(record, "rejected") and not fields.present(record, "chosen")
    if alone and is_answered(_get(record, fields, "conversation")) and not is_conversation(sides[1]):
        yield Candidate("messages")
    elif not both:
        return
    elif named := _named(record, fields, sides, known):
        yield named
    elif all(is_dialogue(side) for side in sides):
        names = ["transcript", "pairs"] if prompted else ["transcript"]
        yield from (Candidate(name, "format: transcript" if prompted else "") for name in names)
    elif all(isinstance(side, str) and all(heading in side for heading in HEADINGS) for side in sides):
        yield Candidate("judge")
    elif all(is_conversation(side) and speaker(side[0]) for side in sides):
        yield Candidate("messages")
    elif all(is_plain(side) and len(side) % 2 == 0 for side in sides) and sides[0][0] == sides[1][0]:
        turns = prompted and _get(record, fields, "prompt") == sides[0][0]
        yield Candidate("messages", "" if turns else "format: messages, if chosen and rejected are turns in a list")
        yield from [] if turns else [Candidate("good_bad", "format: good_bad, if they are lists of answers")]
    elif any(is_conversation(side) and speaker(side[0]) for side in sides):
        yield Candidate("messages")
    elif not prompted:
        return
    elif all(speaker(side[0] if isinstance(side, list) and side else side) for side in sides):
        yield Candidate("messages")
    elif all(isinstance(side, str | dict) for side in sides):
        yield Candidate("pairs")
    elif all(isinstance(side, str) or is_plain(side) for side in sides):
        yield Candidate("good_bad")


def _named(record: Record, fields: Fields, sides: list[Any], known: Known) -> Candidate | None:
    """What `chosen` and `rejected` make of a row in which they name answers that stand elsewhere."""
    if not all(isinstance(side, str | int) and not isinstance(side, bool) for side in sides):
        return None
    path = fields.path(record, "chosen")
    pairs = answer_keys(tuple(record))
    if len(pairs) == 1:
        first, second, _ = side_words((pairs[0].one, pairs[0].two))
        one, two = map(code, sides)
        if (one in first and two in second) or (one in second and two in first):
            return Candidate("preference", "", (("preference", path),))
    try:
        answers = answers_of(record, fields)
        if not isinstance(answers, Answers) or any(_says(item, sides) for item in answers.items):
            return None
        found = [places(side, answers, 0 if known.start is None else known.start) for side in sides]
    except Reject:
        return None
    if found[0] == found[1] or not (all(map(is_number, sides)) or not any(map(is_number, sides))):
        return None
    asked = is_number(sides[0]) and known.start is None
    return Candidate("ranked", f"fields: {{best: {path}}}, {START}" if asked else "", (("best", path),))


def _says(item: Any, sides: list[Any]) -> bool:
    """Whether an answer is one of the texts."""
    texts = list(item.values()) if isinstance(item, dict) else [item]
    return any(side in texts for side in sides)


def _contest(record: Record, fields: Fields, prompted: bool, options: Options) -> Iterator[Candidate]:
    """Two answers, with who won or with scores."""
    try:
        label = label_of(record, fields)
    except Reject:
        label = None
    judged = label is not None
    if fields.mapped("answer_a") or fields.mapped("answers"):
        scored = fields.mapped("score_a") or fields.mapped("votes_a")
        if judged or scored or fields.mapped("confidence") or fields.mapped("odds"):
            yield _judged(record, fields, label, mapped_names(record, fields), options)
        return
    found = answer_keys(tuple(record))
    for one, two, scores, votes in found:
        conversations = all(is_conversation(record[key]) or is_dialogue(record[key]) for key in (one, two))
        scored = fields.mapped("score_a") or fields.mapped("votes_a")
        scored = scored or any(all(record.get(key) is not None for key in keys) for keys in (scores, votes))
        if (prompted or conversations) and (judged or scored):
            if len(found) > 1:
                yield Candidate(
                    "preference", f"fields: {{answer_a: {found[0].one}, answer_b: {found[0].two}}}, or which?"
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


def _listed(record: Record, fields: Fields, prompted: bool, known: Known) -> Iterator[Candidate]:
    """Lists of answers."""
    if not prompted:
        return
    good, bad = (_get(record, fields, name) for name in ("good", "bad"))
    asked = fields.mapped("good") and fields.mapped("bad")
    found = list(_several(record, fields, known))
    if asked or (_texts(good) and _texts(bad) and fields.key(record, "good") not in SYNONYMS["chosen"]):
        joined = not known.options.separator and any(isinstance(texts, str) and ";" in texts for texts in (good, bad))
        hint = 'separator: ";", or format: good_bad if each is one answer' if joined else "format: good_bad"
        yield Candidate("good_bad", hint if joined or (found and not asked) else "")
        found = [Candidate(item.name, item.hint or f"format: {item.name}") for item in found]
    yield from found


def _several(record: Record, fields: Fields, known: Known) -> Iterator[Candidate]:
    """Several answers, with what says which are better."""
    raw = _get(record, fields, "answers")
    if fields.mapped("answers") and isinstance(raw, dict) and not isinstance(unfolded(raw), list):
        yield Candidate("ranked")
        return
    if fields.mapped("preference") and fields.mapped("answers"):
        return
    if isinstance(raw, str) and known.options.separator and known.options.separator in raw:
        yield Candidate("ranked", BEST_FIRST)
        return
    try:
        answers, best = answers_of(record, fields), best_of(record, fields)
    except Reject:
        return
    if not isinstance(answers, Answers) or len(answers.items) < 2:
        return
    items = answers.items
    orders = {name: _get(record, fields, name) for name in ("scores", "ranks")}
    listed = [name for name, order in orders.items() if isinstance(order, list) and len(order) == len(items)]
    own = [answers.scores, *(column(items, keys) for keys in (SCORE_KEYS, RANK_KEYS))]
    if known.options.attributes or (not listed and any(order is not None for order in own)):
        yield Candidate("ranked")
    elif listed:
        # From now on they must be there: a row without them must not be taken for one that goes from best to worst.
        yield Candidate("ranked", "", tuple((name, fields.path(record, name)) for name in listed))
    elif best is not None:
        path = fields.path(record, "best")
        yield _bested(best, answers, known, (("best", path),) if path else ())
    elif lists := [key for key, value in record.items() if _numbers(value, len(items))]:
        ways = [f"ranks: {key}}}, if 1 is the best" if "rank" in key.lower() else f"scores: {key}}}" for key in lists]
        yield Candidate("ranked", "fields: {" + "; or fields: {".join(ways))
    elif answer_columns(tuple(record)) or not isinstance(raw, list | dict):
        return
    elif isinstance(raw, list) and all(isinstance(item, str) for item in items):
        yield Candidate("ranked", BEST_FIRST)
    elif all(isinstance(item, dict) for item in items):
        path = fields.key(record, "answers") + "[*]."
        graded = " or ".join(path + key for key in _numeric(items[0])) or "..."
        yield Candidate("ranked", f"fields: {{scores: {graded}}}")


def _bested(best: Any, answers: Answers, known: Known, place: tuple[tuple[str, str], ...]) -> Candidate:
    """Several answers of which the best is named."""
    try:
        places(best, answers, known.start)
    except Reject as reject:
        return Candidate("ranked", START if reject.detail.endswith("`{start: 1}`") else "fields: {best: ...}")
    return Candidate("ranked", "", place)


def _texts(value: Any) -> bool:
    return isinstance(value, list | str) and bool(value)


def _numbers(value: Any, size: int) -> bool:
    return isinstance(value, list) and len(value) == size and all(is_number(item) for item in value)


def _numeric(record: Record) -> list[str]:
    return [
        key
        for key, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and not key.lower().endswith("id")
    ][:5]


def _labelled(record: Record, fields: Fields, prompted: bool, options: Options) -> Iterator[Candidate]:
    """One answer with a label."""
    conversation = _get(record, fields, "conversation")
    answered = isinstance(_get(record, fields, "answer"), str | list | dict)
    talked = is_conversation(conversation) and speaker(conversation[-1]) == "assistant"
    if not ((prompted and answered) or talked):
        return
    if fields.mapped("score") or options.attributes:
        yield Candidate("labelled")
        return
    label = _get(record, fields, "label")
    name = code(label)
    if name in (options.sides or (GOOD | BAD) - _PLAIN):
        yield Candidate("labelled")
    elif label is not None:
        yield Candidate(
            "labelled", "format: labelled, if the larger number is the better; else values: {good: ..., bad: ...}"
        )
    elif graded := _numeric(record):
        ranks = [key for key in graded if "rank" in key.lower()]
        ways = [f"attributes: {{{key}: -1}}, if 1 is the best {key}" for key in ranks]
        if scores := [key for key in graded if key not in ranks]:
            ways.append(f"fields: {{score: {' or '.join(scores)}}}, or `attributes` with their weights")
        yield Candidate("labelled", "; or ".join(ways))
