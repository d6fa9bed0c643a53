"""Whether what a format reads from the first rows is plausible: prompts and answers, not names, ids or parts of them.

The names of columns decide on a format; what the columns hold confirms it, or makes it a question to the user.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Final, NamedTuple

from rewardline.data.blocks import item_role
from rewardline.data.conversation import (
    CALLERS,
    REASONING,
    TOOL_KEYS,
    Reject,
    from_json,
    is_conversation,
    is_text_list,
    role_of,
    unwrap_messages,
)
from rewardline.data.formats.chosen_rejected import SIDES
from rewardline.data.formats.drafts import PreferencePair
from rewardline.data.formats.fields import SYNONYMS, Fields, Record, RowFields, label_text, number_form, steps_of
from rewardline.data.formats.grouped import GroupReject, answer_ratings
from rewardline.data.formats.prompts import LONGEST_NAME, are_ids, is_name
from rewardline.data.formats.ranked import answer_columns
from rewardline.data.formats.registry import FIELDS, GROUPED, KNOWN_FIELDS, converter, grouping
from rewardline.data.formats.settings import FormatSettings
from rewardline.data.formats.two_answers import BLANK, two_answer_keys
from rewardline.data.templated import end_marker
from rewardline.data.turns import Trajectory

_ENOUGH: Final = 3
"""How many different prompts or answers show what a column holds."""
_STEP: Final = re.compile(
    r"\W*(step|first|second|third|then|next|so|now|thus|hence|finally|therefore|the answer)\b|\d+[.):]", re.I
)
_OPEN_PROMPTS: Final = ("context", "input", "history")  # which a question may follow under another name
_QUESTION: Final = re.compile(r"(^|[\W_])(question|query|instruction|prompt|task|request|ask)s?([\W_]|$)", re.I)
_MEDIA: Final = re.compile(r"tools?|functions?|images?|videos?|audios?|files|attachments|pixel_values", re.I)
_MESSAGE_KEYS: Final = (
    *("role", "from", "content", "value", "text", "parts", "tool_calls", *CALLERS),
    *REASONING,
    *TOOL_KEYS,
)
_WRITERS: Final = re.compile(
    r"model|system|source|author|annotator|rater|worker|user|policy|generator|seed|name|id$", re.I
)
_RATERS: Final = re.compile(r"rater|annotator|worker|judge|evaluator|labell?er|user|coder", re.I)
_OTHER_SCALE: Final = 5
"""How many times as high as another rater's the scores of a rater are who is not just more lenient."""
_OF_A_SIDE: Final = re.compile(r"(?<![a-z0-9])(a|b|1|2|chosen|rejected|first|second)(?![a-z0-9])")
_MARKERS: Final = re.compile(
    r"<[|\uff5c][\w\u2581]{2,40}[|\uff5c]>|</?(start_of_turn|end_of_turn|user|assistant|system)>"
    r"|\[/?INST\]|<</?SYS>>|^### (Instruction|Response|Human|Assistant):|\bUSER:(?=[\s\S]*\bASSISTANT:)",
    re.M,
)


class Reading(NamedTuple):
    """What the first rows give, read with some settings."""

    pairs: list[PreferencePair]
    rejects: list[Reject]


def read_first(records: Sequence[Record], settings: FormatSettings) -> Reading:
    """The pairs of the first rows, and why others give none."""
    pairs: list[PreferencePair] = []
    rejects: list[Reject] = []
    if settings.format not in GROUPED:
        convert = converter(settings)
        for record in records:
            try:
                pairs += convert(record)
            except Reject as reject:
                rejects.append(reject)
        return Reading(pairs, rejects)
    group = grouping(settings)
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        try:
            groups[group.key(record)].append(record)
        except Reject as reject:
            rejects.append(reject)
    for members in groups.values():
        try:
            pairs += group.convert(members)
        except GroupReject as reject:
            rejects.append(reject)
    return Reading(pairs, rejects)


def doubt(rows: Sequence[RowFields], settings: FormatSettings) -> str:
    """Why these rows are hardly of the format that their names suggest, and what to set; empty if they may well be."""
    reading = read_first([row.record for row in rows], settings)
    return (
        _several_forms(rows, settings)
        or (_steps(rows) if settings.format == "good_bad" else "")
        or _names(rows, reading.pairs, settings)
        or (_scales(rows, settings) if settings.format == "labelled" and "group" not in settings.fields else "")
        or _missed_question(rows, reading.pairs)
        or _several_turns(rows, reading, settings)
    )


def _several_forms(rows: Sequence[RowFields], settings: FormatSettings) -> str:
    """Which scores that are compared are written in more than one way, as 4/5 and 4: they are not comparable."""
    named = {*settings.fields.values(), *settings.attributes}
    forms: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
    for path, value in (cell for row in rows for cell in _scalars(row.record)):
        if path in named or any(word in path.lower() for word in (*SYNONYMS["score"], "margin")):
            form, number = number_form(str(value))
            if math.isfinite(number):
                forms[_OF_A_SIDE.sub("*", path.lower())].setdefault(form, (path, str(value)))
    several = []
    for found in (found.values() for found in forms.values() if len(found) > 1):
        paths = " and ".join(dict.fromkeys(path for path, _ in found))
        several.append(f"{paths} ({', '.join(text for _, text in found)})")
    return f"numbers are written in several ways in {', '.join(several)}: write each column in one" if several else ""


def _scales(rows: Sequence[RowFields], settings: FormatSettings) -> str:
    """Which raters have scores on scales of their own, such as 1 to 5 and 0 to 100: their mean says nothing."""
    for key in _keys([row.record for row in rows]):
        if not _RATERS.search(key) or key in settings.fields.values():
            continue
        found: dict[str, list[float]] = defaultdict(list)
        for row in rows:
            with suppress(Reject):
                found[label_text(row.record.get(key))] += answer_ratings(row)[0]
        ranges = sorted((max(scores), min(scores), rater) for rater, scores in found.items() if len(scores) >= _ENOUGH)
        for (most, least, rater), (other_most, other_least, other) in pairwise(ranges):
            if least >= 0 and other_least > most and other_most > _OTHER_SCALE * most:
                return (
                    f"{key} {rater} gives scores from {least:g} to {most:g}, {other} from {other_least:g} to "
                    f"{other_most:g}: bring them to one scale, or compare the scores of each on their own with "
                    f"fields: {{group: {key}}}"
                )
    return ""


def _scalars(value: object, path: str = "") -> Iterator[tuple[str, int | float | str]]:
    """The texts and numbers in a row, with their paths, which are equal for all items of a list."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _scalars(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for item in value:
            yield from _scalars(item, path if path.endswith("[*]") else f"{path}[*]")
    elif isinstance(value, int | float | str):
        yield path, value


def names_systems(rows: Sequence[RowFields]) -> list[str]:
    """The values of a column `system` that hold names of systems, not system prompts; empty if they may be prompts.

    Names are words like ids, several single words, names with a version (Claude 2, GPT-4 (March)), or short and
    different for the answers to one prompt.
    """
    values: dict[str, None] = {}
    by_prompt: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        key = row.path("system") if not row.mapped("system") and len(row.candidates("system")) == 1 else ""
        if key and isinstance(value := row.record[key], str) and (text := value.strip()):
            values[text] = None
            prompts = row.candidates("prompt") if not row.mapped("prompt") else [row.path("prompt")]
            by_prompt[repr([row.record.get(prompt) for prompt in prompts])].add(text)
    are_words = all(len(text.split()) == 1 for text in values)
    are_short = all(len(text) <= LONGEST_NAME and text[-1] not in ".!?:" for text in values)
    differ = any(len(systems) > 1 for systems in by_prompt.values())
    if all(map(is_name, values)) or (are_words and len(values) > 1) or (are_short and differ):
        return list(values)
    return []


def remarks(records: Sequence[Record], settings: FormatSettings) -> list[str]:
    """What the user should know of how the first rows are read, with settings that are complete: a sentence each."""
    records = [record for record in records if isinstance(record, dict)]
    reading = read_first(records, settings)
    found = []
    rows = _rows_with(records, settings)
    if settings.format in ("preference", "votes") and len(labels := _labels_of(rows)) > 1 and (labels.keys() & BLANK):
        key, words = rows[0].path("preference"), ", ".join(sorted(labels.keys() - BLANK)[:8])
        count = sum(labels[blank] for blank in labels.keys() & BLANK)
        found.append(
            f"{key} is empty in {count} of the first {len(rows)} rows, which give no pair; `where: {{{key}: "
            f"[{words}]}}` leaves such rows out, and does not count them as unusable"
        )
    if settings.fields.get("system") == "=" and (names := names_systems(rows)):
        found.append(
            f"system holds names ({', '.join(names[:4])}), not system prompts, and is not read; `fields: {{system: "
            "system}` reads it"
        )
    media = [key for key in _keys(records) if _MEDIA.fullmatch(key) and any(record.get(key) for record in records)]
    has_tools = any(pair.inputs.tools for pair in reading.pairs)
    media = [key for key in media if key not in settings.fields.values() and not (key == "tools" and has_tools)]
    if media:
        way = " (`fields: {system: tools}` puts tools that are text before the turns)" if "tools" in media else ""
        found.append(f"{' and '.join(media)} are not read: only text is{way}")
    if parts := _unread_parts(records):
        found.append(
            f"messages have {' and '.join(parts)}, which is not read: only content, reasoning and calls of tools are"
        )
    texts = {text for pair in reading.pairs for text in (pair.prompt[-1]["content"], pair.chosen, pair.rejected)}
    if templated := [match[0] for text in sorted(texts) if (match := _MARKERS.search(text))]:
        markers = ", ".join(dict.fromkeys(templated))
        found.append(f"texts hold the markers of a chat template ({markers[:100]}), which count as text")
    answers = [text for pair in reading.pairs for text in (pair.chosen, pair.rejected)]
    if len(answers) >= 2 * _ENOUGH and all(text.startswith("[") and is_text_list(from_json(text)) for text in answers):
        found.append(
            f"all answers are JSON lists of texts, as {answers[0][:40]}; brackets and quotes count as text, so take "
            "the texts out of them if they are no part of the answers"
        )
    ended = [set(filter(None, map(end_marker, _texts(record)))) for record in records]
    if end_markers := sorted(set().union(*ended)):
        count = sum(map(bool, ended))
        found.append(
            f"{count} of the first {len(records)} rows have texts that end in {', '.join(end_markers)[:100]}, left "
            "out: the end token of the model's template takes its place"
        )
    winners: dict[tuple[str, frozenset[str]], set[str]] = defaultdict(set)
    for pair in reading.pairs:
        winners[repr(pair.prompt), frozenset((pair.chosen, pair.rejected))].add(pair.chosen)
    disagree = sum(len(chosen) > 1 for chosen in winners.values())
    if disagree and settings.format in ("pairs", "messages", "transcript", "preference"):
        found.append(
            f"rows disagree about {disagree} of their first pairs: `format: votes` makes one pair of such rows"
        )
    if settings.format == "labelled" and not {"group"} & settings.fields.keys():
        found += _separable(records, settings)
    return found


def unread_texts(records: Sequence[Record], settings: FormatSettings) -> list[str]:
    """The columns with texts that are no part of any pair of the first rows."""
    reading = read_first(records, settings)
    read = "\0".join(
        text
        for pair in reading.pairs
        for text in (*(turn["content"] for turn in pair.prompt), pair.chosen, pair.rejected)
    )
    used = {steps_of(path)[0] for path in settings.fields.values() if not path.startswith(("=", "["))}
    for row in _rows_with(records[:1], settings):
        used |= {key for name in FIELDS[settings.format] if not row.mapped(name) for key in row.candidates(name)}
        used |= {key for two in two_answer_keys(row.keys) for key in two[:2] if isinstance(key, str)}
        used |= {column.key for columns in answer_columns(row.keys) for column in columns}
    return [key for key in _unread(records, read) if key not in used] if reading.pairs else []


def votes_disagree(rows: Sequence[RowFields], settings: FormatSettings) -> bool:
    """Whether most rows are votes of several people on the same two answers, who do not all agree; some may tie."""
    winners: dict[tuple[str, frozenset[str]], list[str]] = defaultdict(list)
    for pair in read_first([row.record for row in rows], settings.replace(ties="keep")).pairs:
        answers = frozenset((pair.chosen, pair.rejected))
        winners[repr(pair.prompt), answers].append("" if pair.confidence == 0.5 else pair.chosen)
    repeated = [chosen for chosen in winners.values() if len(chosen) > 1]
    return 2 * sum(map(len, repeated)) > len(rows) and any(len(set(chosen)) > 1 for chosen in repeated)


def _names(rows: Sequence[RowFields], pairs: Sequence[PreferencePair], settings: FormatSettings) -> str:
    """Answers, or prompts, that are ids or names."""
    chosen, rejected = ({getattr(pair, side) for pair in pairs} for side in SIDES)
    texts = sorted(chosen | rejected)
    prompts = {pair.prompt[-1]["content"] for pair in pairs}
    shown = ", ".join(text[:LONGEST_NAME] for text in texts[:4])
    keys = [key for row in rows for key in row.keys]
    columns = {text: next((key for key in keys if key != text and text in _parts(key)), "") for text in texts[:9]}
    if pairs and len(texts) < 9 and all(columns.values()) and all(len(text) > 1 for text in texts):
        one, two = texts[:2]
        return (
            f"{shown} name columns and are no answers: set format: preference, fields: {{answer_a: {columns[one]}, "
            f"answer_b: {columns[two]}, preference: {rows[0].path('chosen') or '...'}}} and values: {{first: {one}, "
            f"second: {two}}}"
        )
    way = (
        "`join` to replace ids by texts, fields: {...} with the columns of the texts, or "
        f"format: {settings.format} if they are right"
    )
    if len(texts) >= _ENOUGH and are_ids(texts):
        return f"its answers look like ids or names ({shown}): set {way}"
    is_short = all(1 < len(text) <= LONGEST_NAME for text in texts)  # one letter is an answer to a multiple choice
    if (
        len(prompts) >= _ENOUGH
        and is_short
        and len(texts) <= len(prompts)
        and (chosen & rejected or 2 * len(texts) <= len(prompts))
    ):
        return f"its answers look like names or labels, {len(texts)} for {len(prompts)} prompts ({shown}): set {way}"
    if len(prompts) >= _ENOUGH and are_ids(prompts):
        shown = ", ".join(sorted(prompts)[:3])
        return f"its prompts look like ids ({shown}): set {way}"
    return ""


def _parts(key: str) -> set[str]:
    """What a key says beside a word such as answer: alpha for alpha_answer."""
    words = re.split(r"[\W_]+", key)
    return {key[: -len(words[-1]) - 1], key[len(words[0]) + 1 :]} if len(words) > 1 else set()


def _steps(rows: Sequence[RowFields]) -> str:
    """Lists that may be the steps of one answer each."""
    if not rows or rows[0].mapped("good"):
        return ""
    good, bad = (rows[0].path(name) for name in ("good", "bad"))
    if rows[0].mapped("chosen"):
        good, bad = rows[0].path("chosen"), rows[0].path("rejected")
    lists = [(row.record.get(good), row.record.get(bad)) for row in rows]
    both = [(one, two) for one, two in lists if is_text_list(one) and is_text_list(two) and len(one) > 1 < len(two)]
    steps = [text for pair in both for side in pair for text in side[:2]]
    are_steps = sum(_STEP.match(text) is not None for text in steps) * 2 > len(steps)
    if not both or not (are_steps or good in SYNONYMS["chosen"] or rows[0].mapped("chosen")):
        return ""
    return (
        f"{good} and {bad} are lists ({both[0][0][0][:LONGEST_NAME]!r}, ...): set format: good_bad and fields: "
        f'{{good: {good}, bad: {bad}}} if they are lists of answers; or fields: {{chosen: "={{{good}}}", rejected: '
        f'"={{{bad}}}"}} if they are the steps of one answer each, which joins them with line breaks'
    )


def _missed_question(rows: Sequence[RowFields], pairs: Sequence[PreferencePair]) -> str:
    """A question next to a context under a name of its own."""
    if not rows or rows[0].mapped("prompt") or not pairs or (key := rows[0].path("prompt")) not in _OPEN_PROMPTS:
        return ""
    read = "\0".join(text for pair in pairs for text in (*(turn["content"] for turn in pair.prompt), pair.chosen))
    others = [each for each in _unread([row.record for row in rows], read) if _QUESTION.search(each)]
    if not others:
        return ""
    return (
        f"the prompt may be {key}, {others[0]} or both: set fields: {{prompt: ...}}, for both "
        f'fields: {{prompt: "={{{key}}}\\n{{{others[0]}}}"}}'
    )


def _several_turns(rows: Sequence[RowFields], reading: Reading, settings: FormatSettings) -> str:
    """Conversations that differ from an early answer on, which a column `turn` says some rows are about."""
    names, sides = ("answer_a", "answer_b"), [""]
    if settings.format == "preference" and (keys := two_answer_keys(rows[0].keys)):
        sides = [keys[0].first, keys[0].second]
    elif settings.format in ("messages", "pairs"):
        names, sides = SIDES, [rows[0].path(side) for side in SIDES]
    first = unwrap_messages(rows[0].record.get(sides[0]))
    is_whole = any(isinstance(text, Trajectory) for pair in reading.pairs for text in (pair.chosen, pair.rejected))
    if not is_whole or not is_conversation(first) or not isinstance(first[0], dict):
        return ""
    if not any(_is_about_part(row.record.get("turn"), row.record.get(sides[0])) for row in rows):
        return ""
    key = next((key for key in ("content", "value", "text") if key in first[0]), "content")
    return (
        "its answers are conversations that differ from early turns on, and `turn` says that rows are about parts of "
        f"them: to compare the first answers, set format: {'pairs' if names == SIDES else settings.format}, "
        f'fields: {{prompt: "{sides[0]}[0].{key}", {names[0]}: "{sides[0]}[1].{key}", {names[1]}: '
        f'"{sides[-1]}[1].{key}"}} and where: {{turn: 1}}; to compare whole ones, set `where` to their last turn'
    )


def _is_about_part(turn: object, conversation: object) -> bool:
    """Whether the number of a turn is not that of the last answer of a conversation."""
    turns = unwrap_messages(conversation)
    answers = sum(role_of(each) == "assistant" for each in turns) if isinstance(turns, list) else 0
    return isinstance(turn, int) and not isinstance(turn, bool) and 1 <= turn < answers


def _separable(records: Sequence[Record], settings: FormatSettings) -> list[str]:
    """Columns by which answers to one prompt may not be comparable, such as their language."""
    row_key = grouping(settings).key
    used = {*settings.fields.values(), *settings.attributes, *SYNONYMS["label"], *SYNONYMS["score"]}
    found = []
    for key in _keys(records):
        values = [record.get(key) for record in records]
        labels = {label_text(value) for value in values}
        if key in used or _WRITERS.search(key) or not all(isinstance(value, str) and value for value in values):
            continue
        if not 2 <= len(labels) <= max(2, len(records) // 3) or any(len(label) > LONGEST_NAME for label in labels):
            continue
        groups: dict[str, set[str]] = defaultdict(set)
        for record in records:
            try:
                groups[row_key(record)].add(label_text(record[key]))
            except Reject:
                continue
        if 2 * sum(len(group) > 1 for group in groups.values()) > len(groups):
            shown = ", ".join(sorted(labels)[:4])
            found.append(
                f"answers to one prompt differ in {key} ({shown}); `fields: {{group: {key}}}` compares only those that "
                "agree in it"
            )
    return found


def _rows_with(records: Sequence[Record], settings: FormatSettings) -> list[RowFields]:
    """The rows, read by the settings but for the system prompt."""
    paths = {name: path for name, path in settings.fields.items() if name != "system"}
    fields = Fields(settings.replace(fields=paths), KNOWN_FIELDS)
    return fields.of_objects(records)


def _labels_of(rows: Sequence[RowFields]) -> Counter[str]:
    """How often each label of two answers occurs."""
    known = [row for row in rows if row.mapped("preference") or len(row.candidates("preference")) == 1]
    values = [row.optional("preference") for row in known]
    return Counter(label_text(value).replace("null", "") for value in values if not isinstance(value, list))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _unread_parts(value: object) -> dict[str, None]:
    """The keys of messages with texts of several words, or media, that are not read, such as reasoning."""
    found: dict[str, None] = {}
    if isinstance(value, Mapping):
        items = value.items() if role_of(value) is not None and item_role(value) is None else ()
        found = {
            key: None
            for key, item in items
            if key not in _MESSAGE_KEYS and item
            if _MEDIA.fullmatch(key) or (isinstance(item, str) and len(item.split()) > 1)
        }
        value = [item for key, item in value.items() if key not in found]
    for item in value if isinstance(value, list) else ():
        found |= _unread_parts(item)
    return found


def _keys(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(key for record in records for key in record))


def _unread(records: Sequence[Record], read: str) -> list[str]:
    """The columns of texts of several words, none of which is in `read`."""
    found = []
    for key in _keys(records):
        texts = [text.strip() for record in records if isinstance(text := record.get(key), str) and text.strip()]
        if any(len(text.split()) > 1 for text in texts) and not any(text in read for text in texts):
            found.append(key)
    return found
