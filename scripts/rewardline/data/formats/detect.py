"""The format of a dataset, and what its labels mean, decided once by its first rows.

`match` is the decision table. A direction that the rows do not state (is 1 the first answer? does the best one come
first?) is never guessed: then a `Match` says what the user has to set.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, TypeGuard

from rewardline.core.hashing import canonical
from rewardline.data.conversation import (
    Reject,
    ends_with_answer,
    is_conversation,
    is_text_list,
    is_transcript,
    role_of,
    unwrap_messages,
)
from rewardline.data.formats import plausibility, ranked, two_answers
from rewardline.data.formats.chosen_rejected import HEADINGS, SIDES, are_turns
from rewardline.data.formats.fields import (
    SYNONYMS,
    Fields,
    Record,
    RowFields,
    is_empty,
    is_number,
    label_text,
    label_texts,
    number_form,
)
from rewardline.data.formats.grouped import BAD, GOOD
from rewardline.data.formats.registry import DESCRIPTIONS, KNOWN_FIELDS
from rewardline.data.formats.settings import FormatSettings

Paths = tuple[tuple[str, str], ...]
"""Fields with their paths, to be mapped so that every row is read in the same way."""
_ASK_PROMPT: Final = 'fields: {prompt: ...}, or a text for all rows, fields: {prompt: "=..."}'
_ASK_START: Final = "values: {start: 0} or {start: 1}, the number of the first answer"
_ASK_ORDER: Final = "format: ranked, if the best answer comes first; else fields: {scores: ...}"
_ASK_SIDES: Final = "values: {good: ..., bad: ...}"
_ASK_LABELS: Final = f"format: labelled, if the larger number is the better; else {_ASK_SIDES}"
_CLEAR_LABELS: Final = (GOOD | BAD) - {"1", "0"}  # of single answers
_NO_SCORES: Final = frozenset({
    "", "#", "n", "no", "number", "index", "idx", "row", "row_number", "level_0", "line", "position", "turn", "turns",
    "rater", "annotator", "worker", "user", "group", "seed", "fold", "split", "year",
})  # fmt: skip
"""Keys of numbers that are no scores."""
_QUESTIONS: Final = ("prompt", "question", "instruction", "query")  # which come after a context
_NOT_SET: Final = "="
"""A path that gives an empty text."""
_TREE_KEYS: Final = ("message_id", "parent_id", "message_tree_id", "role", "rank")


class Choice(NamedTuple):
    """How to read a dataset: its settings with all that its rows state (None if that is not clear), and a sentence."""

    settings: FormatSettings | None
    explanation: str


class Match(NamedTuple):
    """A format that a row may have: for certain, or if the user sets what `ask` says."""

    format: str
    ask: str = ""
    paths: Paths = ()


def choose(records: Sequence[Record], settings: FormatSettings, others: Sequence[Record] = ()) -> Choice:
    """How to read a dataset, by its first rows: the format if it is `auto`, and what its labels mean.

    `others`: rows of its other files, which say what labels mean too (see `numbered`).
    """
    survey = Survey(records, settings, others)
    if settings.format == "auto" and not settings.ratings:
        return survey.choose()
    return survey.confirm("rated" if settings.ratings else settings.format)


def numbered(records: Iterable[Record], settings: FormatSettings) -> list[Record]:
    """Of rows whose labels are numbers, one for each that differs: together they say what the numbers mean."""
    found: dict[str, Record] = {}
    for row in _rows(records, settings):
        labels: list[object] = [[key, names, label_text(label)] for key, names, label in two_answers.number_labels(row)]
        with suppress(Reject):
            answers = ranked.read_answers(row)
            if isinstance(answers, ranked.AnswerList):
                best = [ranked.best_label(row), *(row.record.get(key) for key in _keys_of_sides([row]))]
                labels += [[len(answers.items), label_text(each)] for each in best if is_number(each)]
        if labels:
            found.setdefault(canonical(labels), row.record)
    return list(found.values())


def match(row: RowFields, first: int | None, running: Collection[str] = (), is_prompted: bool = False) -> list[Match]:
    """The formats that a row may have; the first of these checks that finds any decides.

    `first` is the number of the first of several answers, if the rows state it; `running` are the keys that number the
    rows. `is_prompted`: take it that there is a prompt, for a row without one.
    """
    has_prompt = is_prompted or (row.present("prompt") and _is_readable(row, "prompt"))
    checks = (
        _match_trees(row),
        _match_sides(row, has_prompt, first),
        _match_several_answers(row, has_prompt, first),
        _match_single_answer(row, has_prompt, running),
    )
    return next((found for check in checks if (found := list(check))), [])


def _match_trees(row: RowFields) -> Iterator[Match]:
    if _is_tree(_get(row, "prompt")) or _is_tree(row.record):
        yield Match("tree")
    if all(key in row.record for key in _TREE_KEYS):
        yield Match("tree_messages")


def _match_sides(row: RowFields, has_prompt: bool, first: int | None) -> Iterator[Match]:
    """Rows with `chosen` and `rejected`, by what these hold."""
    one, two = sides = [unwrap_messages(_get(row, side)) for side in SIDES]

    def are(test: Callable[[object], object]) -> bool:
        return all(test(side) for side in sides)

    if not row.present("chosen") or not row.present("rejected"):
        if row.present("rejected") and ends_with_answer(_get(row, "conversation")) and not is_conversation(two):
            yield Match("messages")
    elif ambiguous := [name for name in (*SIDES, "prompt") if not _is_readable(row, name)]:
        yield Match("pairs", _ask_which(row, ambiguous[0]))
    elif are(_is_name) and _name_two_answers(row, sides):
        yield Match("preference", paths=(("preference", row.path("chosen")),))
    elif are(_is_name) and _name_listed_answers(row, sides, first):
        path = row.path("chosen")
        ask = f"fields: {{best: {path}}}, {_ASK_START}" if is_number(one) and first is None else ""
        yield Match("ranked", ask, (("best", path),))
    elif are(is_transcript):
        yield Match("transcript", "format: transcript" if has_prompt else "")
        if has_prompt:
            yield Match("pairs", "format: pairs")
    elif are(lambda side: isinstance(side, str) and all(heading in side for heading in HEADINGS)):
        yield Match("judge")
    elif are(_is_list_of_messages):
        yield Match("messages")
    elif is_text_list(one) and is_text_list(two) and are_turns(one, two):
        if has_prompt and _get(row, "prompt") == one[0]:
            yield Match("messages")
        else:
            yield Match("messages", "format: messages, if chosen and rejected are turns in a list")
            yield Match("good_bad", "format: good_bad, if they are lists of answers")
    elif any(map(_is_list_of_messages, sides)) or (has_prompt and are(_is_message)):
        yield Match("messages")
    elif has_prompt and are(lambda side: isinstance(side, str | dict)):
        yield Match("pairs")
    elif has_prompt and are(lambda side: isinstance(side, str) or is_text_list(side)):
        yield Match("good_bad")
    elif not has_prompt and are(lambda side: isinstance(side, str) or is_text_list(side)):
        yield Match("pairs", _ASK_PROMPT)


def _match_several_answers(row: RowFields, has_prompt: bool, first: int | None) -> Iterator[Match]:
    """Rows with two answers or more; more than one format may fit."""
    yield from _match_two_answers(row, has_prompt)
    ranks = list(_match_ranked(row, first)) if has_prompt else []
    are_mapped = row.mapped("good") and row.mapped("bad")
    lists = _get(row, "good"), _get(row, "bad")
    are_filled = all(isinstance(texts, list | str) and texts for texts in lists)
    if are_filled and not row.present("prompt") and row.key("good") not in SYNONYMS["chosen"]:
        yield Match("good_bad", _ASK_PROMPT)
    if has_prompt and (are_mapped or (are_filled and row.key("good") not in SYNONYMS["chosen"])):
        if not row.settings.separator and any(isinstance(texts, str) and ";" in texts for texts in lists):
            yield Match("good_bad", 'separator: ";", or format: good_bad if each is one answer')
        else:
            yield Match("good_bad", "format: good_bad" if ranks and not are_mapped else "")
        ranks = [each._replace(ask=each.ask or "format: ranked") for each in ranks]
    yield from ranks


def _match_two_answers(row: RowFields, has_prompt: bool) -> Iterator[Match]:
    """Two answers with a label, scores or counts of votes, or several answers with a label for each two."""
    try:
        label = two_answers.preference_label(row)
    except Reject:
        label = None
    names = _compared_names(row, has_prompt, label is not None)
    if len(names) > 1:
        yield Match("preference", f"fields: {{answer_a: {names[0][0]}, answer_b: {names[0][1]}}}, or which?")
    elif names:
        name = "votes" if isinstance(label, list) and not row.mapped("answers") else "preference"
        yield Match(name, _ask_for_labels(row, label, names[0]))


def _match_ranked(row: RowFields, first: int | None) -> Iterator[Match]:
    """Several answers after a prompt: with scores, with ranks, with the best one named, or in order."""
    value, separator = _get(row, "answers"), row.settings.separator
    numbers: object
    if row.mapped("answers") and isinstance(value, dict) and not isinstance(ranked.as_objects(value), list):
        yield Match("ranked")
        return
    if row.mapped("answers") and row.mapped("preference"):
        return
    if isinstance(value, str) and separator and separator in value:
        yield Match("ranked", _ASK_ORDER)
        return
    try:
        answers, best = ranked.read_answers(row), ranked.best_label(row)
    except Reject:
        return
    if not isinstance(answers, ranked.AnswerList) or len(answers.items) < 2:
        return
    items = answers.items
    # Lists of scores and ranks must be mapped: a row without them is not one from best to worst.
    for name in ("scores", "ranks"):
        numbers = _get(row, name) if row.mapped("answers") and row.mapped(name) else None
        if isinstance(numbers, list) and len(numbers) != len(items):
            yield Match("ranked", _ask_for_lists(row, name, len(items), len(numbers)))
            return
    orders = tuple((name, row.path(name)) for name in ("scores", "ranks") if _is_list_of(_get(row, name), len(items)))
    has_scores = answers.scores or ranked.column(items, ranked.SCORE_KEYS) or ranked.column(items, ranked.RANK_KEYS)
    if row.settings.attributes or (has_scores and not orders):
        yield Match("ranked")
    elif orders:
        yield Match("ranked", paths=orders)
    elif best is not None:
        ask, path = _ask_for_best(best, answers, first), row.path("best")
        yield Match("ranked", ask, (("best", path),) if path and not ask else ())
    elif numbers := [
        key for key, values in row.record.items() if _is_list_of(values, len(items)) and all(map(is_number, values))
    ]:
        ways = [f"ranks: {key}}}, if 1 is the best" if _is_rank(key) else f"scores: {key}}}" for key in numbers]
        yield Match("ranked", "; or ".join(f"fields: {{{way}" for way in ways))
    elif not isinstance(value, list | dict) or ranked.answer_columns(row.keys):
        return
    elif is_text_list(value):
        yield Match("ranked", _ASK_ORDER)
    elif all(isinstance(item, dict) for item in items):
        keys = [f"{row.key('answers')}[*].{key}" for key in _number_keys(items[0])]
        yield Match("ranked", f"fields: {{scores: {' or '.join(keys) or '...'}}}")


def _match_single_answer(row: RowFields, has_prompt: bool, running: Collection[str]) -> Iterator[Match]:
    """One answer after a prompt, or at the end of a conversation, with a label or a score."""
    has_answer = has_prompt and isinstance(_get(row, "answer"), str | list | dict)
    label, keys = _get(row, "label"), [key for key in _number_keys(row.record) if key not in running]
    scores = [key for key in keys if not _is_rank(key)]
    lists = [
        key for key, value in row.record.items() if isinstance(value, list) and value and all(map(is_number, value))
    ]
    keys, scores = keys + lists, scores + lists
    if not has_answer and not ends_with_answer(_get(row, "conversation")):
        return
    if row.mapped("score") or row.settings.attributes or label_text(label) in (row.sides or _CLEAR_LABELS):
        yield Match("labelled")
    elif label is not None:
        yield Match("labelled", _ASK_LABELS)
    elif keys:
        ways = [f"attributes: {{{key}: -1}}, if 1 is the best {key}" for key in keys if _is_rank(key)]
        ways += [f"fields: {{score: {' or '.join(scores)}}}, or `attributes` with their weights"] if scores else []
        yield Match("labelled", "; or ".join(ways))


def _get(row: RowFields, name: str) -> object:
    """The value of a field; None if the row lacks it, or has it more than once."""
    try:
        return row.optional(name)
    except Reject:
        return None


def _ask_which(row: RowFields, name: str) -> str:
    """What to ask where a row has a field under several usual names."""
    keys = row.candidates(name)
    ask = f"fields: {{{name}: ...}}, which may be {' or '.join(keys)}"
    if name == "prompt" and all(isinstance(row.record[key], str) for key in keys):
        keys.sort(key=lambda key: key in _QUESTIONS)
        together = "\\n".join(f"{{{key}}}" for key in keys)
        ask += f', or all of them: fields: {{prompt: "={together}"}}'
    return ask


def _is_readable(row: RowFields, name: str) -> bool:
    try:
        row.optional(name)
    except Reject:
        return False
    return True


def _is_tree(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("replies"), list) and role_of(value) is not None


def _is_name(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _is_message(value: object) -> bool:
    return role_of(value[0] if isinstance(value, list) and value else value) is not None


def _is_list_of_messages(value: object) -> bool:
    return is_conversation(value) and role_of(value[0]) is not None


def _is_list_of(values: object, count: int) -> TypeGuard[list[object]]:
    return isinstance(values, list) and len(values) == count


def _is_rank(key: str) -> bool:
    return "rank" in key.lower()


def _number_keys(record: object) -> list[str]:
    """The first few keys of an object that hold numbers which may be scores."""
    return [
        key
        for key, value in (record.items() if isinstance(record, dict) else ())
        if (is_number(value) or (isinstance(value, str) and math.isfinite(number_form(value)[1])))
        if not key.lower().endswith("id")
        if key.lower() not in _NO_SCORES and not key.startswith(("Unnamed:", "__index"))
    ][:5]


def _name_two_answers(row: RowFields, sides: Sequence[object]) -> bool:
    """Whether the sides are words for two answers that the row has under other keys."""
    keys = two_answers.two_answer_keys(row.keys)
    if len(keys) != 1:
        return False
    first, second, _ = two_answers.side_words((keys[0].first, keys[0].second))
    one, two = map(label_text, sides)
    return (one in first and two in second) or (one in second and two in first)


def _name_listed_answers(row: RowFields, sides: Sequence[object], first: int | None) -> bool:
    """Whether the sides are numbers, letters or keys of answers that the row has under other keys."""
    if len(set(map(is_number, sides))) > 1:
        return False
    try:
        answers = ranked.read_answers(row)
        if not isinstance(answers, ranked.AnswerList):
            return False
        texts = [list(item.values()) if isinstance(item, dict) else [item] for item in answers.items]
        if any(side in values for values in texts for side in sides):
            return False
        better, worse = (ranked.best_indices(side, answers, first or 0) for side in sides)
    except Reject:
        return False
    return better != worse


def _compared_names(row: RowFields, has_prompt: bool, is_labelled: bool) -> list[tuple[str, str]]:
    """The names of two answers that are compared; those of several twos where it is not clear which are meant."""
    is_compared = is_labelled or row.mapped("score_a") or row.mapped("votes_a")
    if row.mapped("answer_a") or row.mapped("answers"):
        return [two_answers.mapped_names(row)] if is_compared or row.mapped("confidence") or row.mapped("odds") else []
    record, keys = row.record, two_answers.two_answer_keys(row.keys)
    for one, two, *counts in keys:
        has_counts = any(not any(is_empty(record.get(key)) for key in pair) for pair in counts)
        sides = [unwrap_messages(record[key]) for key in (one, two)]
        are_complete = all(is_conversation(side) or is_transcript(side) for side in sides)
        if (has_prompt or are_complete) and (is_compared or has_counts):
            return [(key.first, key.second) for key in keys]
    return []


def _ask_for_labels(row: RowFields, label: object, names: tuple[str, str]) -> str:
    """What to ask where a label does not name an answer, or a tie."""
    if not _is_readable(row, "preference"):
        return "fields: {preference: ...}, which the row has more than once"
    key = row.key("preference")
    try:
        for each in label if isinstance(label, list) else [] if label is None else [label]:
            two_answers.read_preference(each, key, names, row)
    except Reject:
        return f"{two_answers.ASK_VALUES}, for what {key or 'the preference'} holds"  # see `Survey._with_ask`
    return ""


def _ask_for_lists(row: RowFields, name: str, answers: int, numbers: int) -> str:
    """What to ask where there are not as many scores as answers."""
    texts = [key for key, value in row.record.items() if isinstance(value, str)]
    return (
        f"fields: {{answers: [...], {name}: [...]}}, a list of columns for each, as answers has {answers} and {name} "
        f"{numbers} of them; columns of text are {', '.join(texts)[:200]}"
    )


def _ask_for_best(best: object, answers: ranked.AnswerList, first: int | None) -> str:
    """What to ask where `best` does not name the best answer."""
    try:
        ranked.best_indices(best, answers, first)
    except ranked.NumberingReject:
        return _ASK_START
    except Reject:
        return "fields: {best: ...}"
    return ""


class Survey:
    """What the first rows of a dataset state; `matches` has, for each of them, the formats that it may have."""

    def __init__(self, records: Sequence[Record], settings: FormatSettings, others: Sequence[Record] = ()) -> None:
        rows = _rows(records, settings)
        if plausibility.names_systems(rows):
            settings = settings.replace(fields={**settings.fields, "system": _NOT_SET})
        labelled = _labelled(rows)
        self._settings, self._count = settings, len(records) - len(rows) + len(labelled)
        records = [row.record for row in labelled]
        self._values, self._ask = settings.values, ""
        self._first = ranked.stated_first_number(settings)
        if not settings.values:
            rows = _rows([*records, *others], settings)
            self._values, self._ask = two_answers.label_values(rows)
            self._first = ranked.first_number(rows, _keys_of_sides(rows))
        self._rows = _rows(records, settings.replace(values=self._values))
        running = _running_keys(records)
        self.matches = [self._matches(row, running) for row in self._rows]

    def _matches(self, row: RowFields, running: Collection[str]) -> list[Match]:
        """The formats that a row may have, or would have with a prompt."""
        if found := [self._with_ask(each) for each in match(row, self._first, running)]:
            return found
        ask = _ASK_PROMPT if _is_readable(row, "prompt") else _ask_which(row, "prompt")
        prompted = [self._with_ask(each) for each in match(row, self._first, running, is_prompted=True)]
        return [each._replace(ask=" and ".join(filter(None, (each.ask, ask)))) for each in prompted]

    def _with_ask(self, match: Match) -> Match:
        """A match, with what the user has to set where the labels of all rows are not clear, and what they are."""
        is_about_labels = not match.ask or match.ask.startswith(two_answers.ASK_VALUES)
        if self._ask and is_about_labels and match.format in ("preference", "votes"):
            return match._replace(ask=self._ask)
        if match.ask.startswith(two_answers.ASK_VALUES):
            return match._replace(ask=match.ask + self._found("preference"))
        if match.ask == _ASK_LABELS:
            ask = _ASK_LABELS if all(map(is_number, self._labels("label"))) else _ASK_SIDES
            return match._replace(ask=f"{ask}, for what {self._rows[0].key('label')} holds{self._found('label')}")
        if match.ask.startswith(_ASK_START):
            return match._replace(ask=match.ask + self._found("best"))
        return match

    def _labels(self, name: str) -> list[str]:
        """The different labels that the rows have for a field."""
        values = [_get(row, name) for row in self._rows]
        return sorted({text for value in values if value is not None for text in label_texts(value)})

    def _found(self, name: str) -> str:
        """The labels that the rows have for a field, in brackets, so that the user can say what they mean."""
        labels = self._labels(name)
        return f" ({', '.join(label[:40] for label in labels[:8])}{', ...' if labels[8:] else ''})" if labels else ""

    def choose(self) -> Choice:
        """The format that fits more than half of the rows for certain, if no other fits any.

        Else it is None, and the sentence lists the candidates with what to set for each.
        """
        counts: Counter[Match] = Counter()
        asks: dict[str, str] = {}
        for matches in self.matches:
            certain = [match for match in matches if not match.ask]
            counts.update(certain if len(certain) == 1 else ())
            for each in matches:
                if each.ask or len(certain) > 1:
                    asks.setdefault(each.format, each.ask or f"format: {each.format}")
        formats = Counter(match.format for match in counts)
        if {*asks, *formats} == {"labelled"} and self._labels_are_signed():
            counts = Counter({Match("labelled"): self._count})
        if ask := self._ask_for_compared({*asks, *formats}):
            return Choice(None, ask)
        if len(counts) == 1 and 2 * counts.total() > self._count:
            (chosen,) = counts
            choice = self._chosen(chosen.format, chosen.paths, f": {DESCRIPTIONS[chosen.format]}")
            if choice.settings is None:
                return choice
            if chosen.format == "preference" and plausibility.votes_disagree(self._rows, choice.settings):
                choice = self._chosen("votes", chosen.paths, f": {DESCRIPTIONS['votes']}")
            doubt = plausibility.doubt(self._rows, choice.settings or self._settings)
            return Choice(None, doubt) if doubt else choice
        differ = {name: f"format: {name} and `fields`; its rows differ" for name in formats if formats[name] > 1}
        asks = {**{name: f"format: {name}" for name in formats}, **asks, **differ}
        if asks:
            ways = "; ".join(f"{name} (set {ask})" for name, ask in sorted(asks.items()))
            return Choice(None, f"it may be {ways}")
        return Choice(
            None,
            "no format fits by its names alone. Set the paths of its parts with `fields: {prompt: ..., chosen: ..., "
            f"rejected: ...}}`, or set `format` to one of {', '.join(DESCRIPTIONS)}",
        )

    def _ask_for_compared(self, formats: Collection[str]) -> str:
        """What is wrong with a signed strength in `fields`, where the rows fit no format of two answers; "" if nothing.

        `formats`: those that the rows may have.
        """
        path = self._settings.fields.get("preference")
        if path is None or "signed" not in self._settings.values or {"preference", "votes"} & set(formats):
            return ""
        if all(_get(row, "preference") is None for row in self._rows):
            return f"none of the first rows has a value at {path}, which `fields` maps as the strength of a preference"
        strength = f"{path} is mapped as a strength, whose sign says which of two answers is better"
        if sides := sorted({"pairs", "messages", "transcript", "judge"} & set(formats)):
            return (
                f"{strength}, but the rows fit {' or '.join(sides)}, where `chosen` is the better one. If it is, set "
                f"fields: {{margin: {path}}} in place of strength; if not, set fields: {{answer_a: ..., answer_b: ...}}"
                " too, and format: preference"
            )
        return f"{strength}, but not which two: set fields: {{answer_a: ..., answer_b: ...}} too, with their paths"

    def confirm(self, name: str) -> Choice:
        """The format that the user set, with what its labels mean; None where that is not clear."""
        ask = self._ask if name in ("preference", "votes") else ""
        stated: list[Match] = []
        for row, matches in zip(self._rows, self.matches, strict=True):
            for match in matches:
                named = [f"{field}: {path}" for field, path in match.paths if field in ("preference", "best")]
                if name in ("pairs", "messages", "transcript") and named and row.present("rejected"):
                    ask = f"format: {match.format} and fields: {{{named[0]}}}; chosen names an answer under another key"
                elif match.format == name and match.ask.startswith((_ASK_START, _ASK_SIDES)):
                    ask = match.ask
                if match.format == name and not match.ask:
                    stated.append(match)
        return Choice(None, f"set {ask}") if ask else self._chosen(name, stated[0].paths if stated else ())

    def _chosen(self, name: str, paths: Paths, description: str = "") -> Choice:
        values = self._settings.values
        if name in ("preference", "votes"):
            values = self._values
        elif name == "ranked" and not values and self._first is not None:
            values = {"start": self._first}
        fields = {**dict(paths), **self._settings.fields}
        if name == "good_bad":
            sides = {"chosen": "good", "rejected": "bad"}
            fields = {sides.get(field, field): path for field, path in fields.items()}
        elif name.startswith("tree") and fields.get("system") == _NOT_SET:
            del fields["system"]
        settings = self._settings.replace(format=name, fields=fields, values=values)
        return Choice(settings, f"format {name}{description}")

    def _labels_are_signed(self) -> bool:
        """Whether the labels of single answers are 1 and -1, which say themselves which is the good one."""
        try:
            labels = {label_text(row.optional("label")) for row in self._rows}
        except Reject:
            return False
        return "-1" in labels and labels <= {"1", "-1", "+1", "0"}


def _rows(records: Iterable[Record], settings: FormatSettings) -> list[RowFields]:
    fields = Fields(settings, KNOWN_FIELDS)
    return fields.of_objects(records)


def _running_keys(records: Sequence[Record]) -> set[str]:
    """The keys of numbers that count the rows."""
    numbers = {key: [record.get(key) for record in records] for key in (records[0] if len(records) > 2 else ())}
    return {
        key
        for key, values in numbers.items()
        if isinstance(first := values[0], int) and values == list(range(first, first + len(values)))
    }


def _labelled(rows: list[RowFields]) -> list[RowFields]:
    """The rows without those of an empty label, if others have one."""
    labelled = []
    for row in rows:
        is_known = row.mapped("preference") or len(row.candidates("preference")) == 1
        if not is_known or label_text(_get(row, "preference")) not in two_answers.BLANK:
            labelled.append(row)
    return labelled or rows


def _keys_of_sides(rows: Iterable[RowFields]) -> list[str]:
    """The keys of `chosen` and `rejected`, which may name answers by their numbers."""
    keys: dict[str, None] = {}
    for row in rows:
        with suppress(Reject):
            keys |= {row.path(side): None for side in SIDES if row.present(side)}
    return list(keys)
