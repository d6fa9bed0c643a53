"""The format of a dataset, and what its labels mean, decided once by its first rows.

`rules` is the decision table. A direction that the rows do not state (is 1 the first answer? does the best one come
first?) is never guessed: then a rule says what the user has to set.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from rewardline.core.settings import JsonObject
from rewardline.data.conversation import (
    Reject,
    ends_with_answer,
    is_conversation,
    is_text_list,
    is_transcript,
    role_of,
    unwrap_messages,
)
from rewardline.data.formats.answers import (
    AnswerList,
    NumberingReject,
    answer_columns,
    as_objects,
    best_indices,
    best_label,
    first_number,
    read_answers,
    two_answer_keys,
)
from rewardline.data.formats.chosen_rejected import HEADINGS, SIDES, are_turns
from rewardline.data.formats.fields import SYNONYMS, Fields, Record, RowFields, is_number, label_text, read_number
from rewardline.data.formats.labels import (
    BAD,
    GOOD,
    NUMERIC,
    SHIFTED,
    SIGNED,
    preference_label,
    read_preference,
    side_words,
)
from rewardline.data.formats.ranked import RANK_KEYS, SCORE_KEYS, column
from rewardline.data.formats.registry import DESCRIPTIONS, KNOWN_FIELDS
from rewardline.data.formats.settings import FormatSettings
from rewardline.data.formats.two_answers import mapped_names

Paths = tuple[tuple[str, str], ...]
"""Fields with their paths, to be mapped so that every row is read in the same way."""
ASK_VALUES: Final = "values: {first: ..., second: ..., tie: ...}"
ASK_START: Final = "values: {start: 0} or {start: 1}, the number of the first answer"
ASK_ORDER: Final = "format: ranked, if the best answer comes first; else fields: {scores: ...}"
ASK_TURNS: Final = "format: messages, if chosen and rejected are turns in a list"
ASK_LISTS: Final = "format: good_bad, if they are lists of answers"
ASK_SEPARATOR: Final = 'separator: ";", or format: good_bad if each is one answer'
ASK_LABELS: Final = "format: labelled, if the larger number is the better; else values: {good: ..., bad: ...}"
_AMBIGUOUS_LABELS: Final = frozenset({"1", "0"})  # of single answers
_TREE_KEYS: Final = ("message_id", "parent_id", "message_tree_id", "role", "rank")
_COUNTED_KEYS: Final = ("choice", "winner")  # whose 0 and 1 are no "no" and "yes"
_VOTE_LIST: Final = "the list votes"
_NO_ANSWERS: Final = AnswerList([], [])
_TWICE: Final = "which the row has more than once"


class Choice(NamedTuple):
    """How to read a dataset: its settings with all that its rows state (None if that is not clear), and a sentence."""

    settings: FormatSettings | None
    explanation: str


def choose(records: Sequence[Record], settings: FormatSettings) -> Choice:
    """How to read a dataset, by its first rows: the format if it is `auto`, and what its labels mean."""
    survey = _Survey(records, settings)
    return survey.choose() if settings.format == "auto" else survey.confirm(settings.format)


class Match(NamedTuple):
    """A format that a row may have: for certain, or if the user sets what `ask` says."""

    format: str
    ask: str = ""
    paths: Paths = ()


def match_rows(records: Sequence[Record], settings: FormatSettings) -> list[list[Match]]:
    """For each row, the formats that it may have."""
    return _Survey(records, settings).matches


class Rule(NamedTuple):
    """A row of the decision table: whether a row of data has what a format needs, and whether that makes it certain.

    Where it does not, the user has to set what `ask` says. `paths` are fields that must then be mapped.
    """

    format: str
    fits: bool
    certain: bool = True
    ask: str = ""
    paths: Paths = ()


def rules(row: RowFields, first: int | None) -> Iterator[list[Rule]]:
    """The decision table for a row. `first` is the number of the first of several answers, if the rows state it.

    The first group in which a rule fits decides; in it each format counts by the first of its rules that fits.
    """
    has_prompt = row.present("prompt") and _is_readable(row, "prompt")
    # Rule(format, what a row must have for it, what makes it certain, what the user has to set otherwise)
    yield [
        Rule("tree", any(map(_is_tree, (_get(row, "prompt"), row.record)))),
        Rule("tree_messages", all(key in row.record for key in _TREE_KEYS)),
    ]
    sides = _Sides(row, has_prompt, first)
    yield [Rule("pairs", bool(sides.ambiguous), False, f"fields: {{{''.join(sides.ambiguous[:1])}: ...}}, {_TWICE}")]
    yield [Rule("messages", sides.rejected_is_beside_conversation)]
    yield [Rule("preference", sides.name_two_answers, paths=(("preference", sides.path),))]
    yield [
        Rule(
            "ranked",
            sides.name_listed_answers,
            certain=first is not None or not sides.are_numbers,
            ask=f"fields: {{best: {sides.path}}}, {ASK_START}",
            paths=(("best", sides.path),),
        )
    ]
    yield [
        Rule("transcript", sides.are_transcripts, not has_prompt, "format: transcript"),
        Rule("pairs", sides.are_transcripts and has_prompt, False, "format: transcript"),
    ]
    yield [Rule("judge", sides.are_judge_prompts)]
    yield [Rule("messages", sides.are_conversations)]
    yield [
        Rule("messages", sides.are_turns, sides.start_with_prompt, ASK_TURNS),
        Rule("good_bad", sides.are_turns and not sides.start_with_prompt, False, ASK_LISTS),
    ]
    yield [Rule("messages", sides.have_conversation or (has_prompt and sides.are_messages))]
    yield [Rule("pairs", has_prompt and sides.are_texts)]
    yield [Rule("good_bad", has_prompt and sides.are_text_lists)]

    two, lists, several = _TwoAnswers(row, has_prompt), _GoodBad(row), _Answers(row, has_prompt, first)
    yield [
        Rule("preference", len(two.names) > 1, False, two.ask_for_keys),
        Rule("votes", two.has_votes, not two.ask, two.ask),
        Rule("preference", bool(two.names) and not two.has_votes, not two.ask, two.ask),
        Rule("good_bad", has_prompt and lists.present, not lists.may_be_joined, ASK_SEPARATOR),
        Rule("ranked", several.are_mapped_to_scores),
        Rule("ranked", several.are_joined, False, ASK_ORDER),
        Rule("ranked", several.have_scores),
        Rule("ranked", bool(several.orders), paths=several.orders),
        Rule("ranked", several.best is not None, not several.ask_for_best, several.ask_for_best, several.best_path),
        Rule("ranked", bool(several.ask_for_list), False, several.ask_for_list),
        Rule("ranked", several.are_texts, False, ASK_ORDER),
        Rule("ranked", several.are_objects, False, several.ask_for_scores),
    ]
    single = _SingleAnswer(row, has_prompt)
    yield [
        Rule("labelled", single.present and single.is_scored),
        Rule("labelled", single.present and single.has_clear_label),
        Rule("labelled", single.present and single.label is not None, False, ASK_LABELS),
        Rule("labelled", single.present and bool(single.ask_for_score), False, single.ask_for_score),
    ]


def _match(row: RowFields, first: int | None) -> dict[str, Match]:
    """The formats that a row may have, by name."""
    for group in rules(row, first):
        matches: dict[str, Match] = {}
        for rule in group:
            if rule.fits and rule.format not in matches:
                matches[rule.format] = Match(rule.format, "" if rule.certain else rule.ask, rule.paths)
        if "good_bad" in matches and "ranked" in matches:  # only the user knows which of the two counts
            for name in ["ranked"] if _maps_good_and_bad(row) else ["good_bad", "ranked"]:
                matches[name] = matches[name]._replace(ask=matches[name].ask or f"format: {name}")
        if matches:
            return matches
    return {}


class _Sides:
    """`chosen` and `rejected` of a row."""

    def __init__(self, row: RowFields, has_prompt: bool, first: int | None) -> None:
        self._present = all(row.present(side) for side in SIDES)
        self.ambiguous = [name for name in (*SIDES, "prompt") if self._present and not _is_readable(row, name)]
        self.path = row.path("chosen") if self._present and not self.ambiguous else ""
        one, two = self._values = [unwrap_messages(_get(row, side)) for side in SIDES]
        self.rejected_is_beside_conversation = (
            row.present("rejected")
            and not row.present("chosen")
            and ends_with_answer(_get(row, "conversation"))
            and not is_conversation(two)
        )
        self.are_numbers = is_number(one)
        are_names = self._are(lambda side: isinstance(side, str | int) and not isinstance(side, bool))
        self.name_two_answers = are_names and self._name_two_answers(row)
        self.name_listed_answers = are_names and self._name_listed_answers(row, first)
        self.are_transcripts = self._are(is_transcript)
        self.are_judge_prompts = self._are(
            lambda side: isinstance(side, str) and all(text in side for text in HEADINGS)
        )
        self.are_conversations = self._are(_is_list_of_messages)
        self.have_conversation = self._present and any(map(_is_list_of_messages, self._values))
        self.are_messages = self._are(lambda side: role_of(side[0] if isinstance(side, list) and side else side))
        self.are_turns = self._present and is_text_list(one) and is_text_list(two) and are_turns(one, two)
        self.start_with_prompt = has_prompt and isinstance(one, list) and _get(row, "prompt") in one[:1]
        self.are_texts = self._are(lambda side: isinstance(side, str | dict))
        self.are_text_lists = self._are(lambda side: isinstance(side, str) or is_text_list(side))

    def _are(self, test: Callable[[object], object]) -> bool:
        return self._present and all(test(side) for side in self._values)

    def _name_two_answers(self, row: RowFields) -> bool:
        """Whether the sides are words for two answers that the row has elsewhere."""
        keys = two_answer_keys(tuple(row.record))
        if len(keys) != 1:
            return False
        first, second, _ = side_words((keys[0].first, keys[0].second))
        one, two = map(label_text, self._values)
        return (one in first and two in second) or (one in second and two in first)

    def _name_listed_answers(self, row: RowFields, first: int | None) -> bool:
        """Whether the sides are numbers, letters or keys of answers that the row has elsewhere."""
        if len(set(map(is_number, self._values))) > 1:
            return False
        try:
            answers = read_answers(row)
            if not isinstance(answers, AnswerList) or any(map(self._is_one, answers.items)):
                return False
            better, worse = (best_indices(side, answers, first or 0) for side in self._values)
        except Reject:
            return False
        return better != worse

    def _is_one(self, answer: object) -> bool:
        texts = list(answer.values()) if isinstance(answer, dict) else [answer]
        return any(side in texts for side in self._values)


class _TwoAnswers:
    """Two answers with a label, scores or counts of votes, or several answers with a label for each two."""

    def __init__(self, row: RowFields, has_prompt: bool) -> None:
        try:
            label = preference_label(row)
        except Reject:
            label = None
        self.names = self._names(row, has_prompt, label is not None)
        """Of the two answers; those of several twos where it is not clear which are meant."""
        self.ask_for_keys = "".join(f"fields: {{answer_a: {a}, answer_b: {b}}}, or which?" for a, b in self.names[:1])
        self.has_votes = len(self.names) == 1 and isinstance(label, list) and not row.mapped("answers")
        self.ask = self._ask(row, label)
        """What to ask where a label does not name an answer, or a tie."""

    @staticmethod
    def _names(row: RowFields, has_prompt: bool, is_labelled: bool) -> list[tuple[str, str]]:
        is_compared = is_labelled or row.mapped("score_a") or row.mapped("votes_a")
        if row.mapped("answer_a") or row.mapped("answers"):
            is_compared = is_compared or row.mapped("confidence") or row.mapped("odds")
            return [mapped_names(row)] if is_compared else []
        record, keys = row.record, two_answer_keys(tuple(row.record))
        for one, two, *counts in keys:
            has_counts = any(all(record.get(key) is not None for key in pair) for pair in counts)
            are_complete = all(is_conversation(record[key]) or is_transcript(record[key]) for key in (one, two))
            if (has_prompt or are_complete) and (is_compared or has_counts):
                return [(key.first, key.second) for key in keys]
        return []

    def _ask(self, row: RowFields, label: object) -> str:
        if not _is_readable(row, "preference"):
            return f"fields: {{preference: ...}}, {_TWICE}"
        key = row.key("preference")
        labels = label if isinstance(label, list) else [] if label is None else [label]
        try:
            for names in self.names[:1]:
                for each in labels:
                    read_preference(each, key, names, row)
        except Reject:
            return f"{ASK_VALUES}, for what {key or 'the preference'} holds"
        return ""


class _GoodBad:
    """Good and bad answers."""

    def __init__(self, row: RowFields) -> None:
        both = _get(row, "good"), _get(row, "bad")
        are_filled = all(isinstance(side, list | str) and bool(side) for side in both)
        self.present = _maps_good_and_bad(row) or (are_filled and row.key("good") not in SYNONYMS["chosen"])
        self.may_be_joined = not row.settings.separator and any(isinstance(side, str) and ";" in side for side in both)


class _Answers:
    """Several answers after a prompt, and what says which are better."""

    def __init__(self, row: RowFields, has_prompt: bool, first: int | None) -> None:
        may_be_ranked = has_prompt and not (row.mapped("preference") and row.mapped("answers"))
        value, separator = _get(row, "answers"), row.settings.separator
        self.are_mapped_to_scores = (
            has_prompt and row.mapped("answers") and isinstance(value, dict) and not _is_list(as_objects(value))
        )
        self.are_joined = may_be_ranked and isinstance(value, str) and bool(separator) and str(separator) in value
        answers = _read_answers(row) if may_be_ranked else _NO_ANSWERS
        items = answers.items

        def is_for_each(values: object) -> bool:
            return isinstance(values, list) and 0 < len(values) == len(items)

        orders = [name for name in ("scores", "ranks") if is_for_each(_get(row, name))]
        self.orders = tuple((name, row.path(name)) for name in orders)
        """Lists of scores and ranks. They must be mapped: a row without them is not one from best to worst."""
        own = answers.scores is not None or any(column(items, keys) for keys in (SCORE_KEYS, RANK_KEYS))
        self.have_scores = bool(items) and (bool(row.settings.attributes) or (own and not orders))
        self.best = best_label(row) if items else None
        self.ask_for_best = _ask_for_best(self.best, answers, first)
        path = row.path("best") if self.best is not None and not self.ask_for_best else ""
        self.best_path: Paths = (("best", path),) if path else ()
        lists = {key: values for key, values in row.record.items() if isinstance(values, list) and is_for_each(values)}
        self.ask_for_list = _ask_for_list([key for key, values in lists.items() if all(map(is_number, values))])
        unordered = items if isinstance(value, list | dict) and not answer_columns(tuple(row.record)) else []
        self.are_texts = is_text_list(value) and bool(unordered)
        self.are_objects = bool(unordered) and all(isinstance(item, dict) for item in unordered)
        keys = [f"{row.key('answers')}[*].{key}" for item in unordered[:1] for key in _number_keys(item)]
        self.ask_for_scores = f"fields: {{scores: {' or '.join(keys) or '...'}}}"


class _SingleAnswer:
    """One answer after a prompt, or at the end of a conversation, and what says how good it is."""

    def __init__(self, row: RowFields, has_prompt: bool) -> None:
        has_answer = has_prompt and isinstance(_get(row, "answer"), str | list | dict)
        self.present = has_answer or ends_with_answer(_get(row, "conversation"))
        self.is_scored = row.mapped("score") or bool(row.settings.attributes)
        self.label = _get(row, "label")
        self.has_clear_label = label_text(self.label) in (row.sides or (GOOD | BAD) - _AMBIGUOUS_LABELS)
        keys = _number_keys(row.record)
        ranks, scores = [key for key in keys if _is_rank(key)], [key for key in keys if not _is_rank(key)]
        ways = [f"attributes: {{{key}: -1}}, if 1 is the best {key}" for key in ranks]
        ways += [f"fields: {{score: {' or '.join(scores)}}}, or `attributes` with their weights"] if scores else []
        self.ask_for_score = "; or ".join(ways)


def _get(row: RowFields, name: str) -> object:
    """The value of a field, None where it is not clear."""
    try:
        return row.optional(name)
    except Reject:
        return None


def _is_readable(row: RowFields, name: str) -> bool:
    try:
        row.optional(name)
    except Reject:
        return False
    return True


def _read_answers(row: RowFields) -> AnswerList:
    """The answers of a row, if there are two or more and it is clear what might name the best one."""
    try:
        answers = read_answers(row)
        best_label(row)
    except Reject:
        return _NO_ANSWERS
    return answers if isinstance(answers, AnswerList) and len(answers.items) > 1 else _NO_ANSWERS


def _ask_for_best(best: object, answers: AnswerList, first: int | None) -> str:
    """What to ask where `best` does not name the best answer."""
    try:
        if best is not None:
            best_indices(best, answers, first)
    except NumberingReject:
        return ASK_START
    except Reject:
        return "fields: {best: ...}"
    return ""


def _ask_for_list(keys: list[str]) -> str:
    ways = [f"ranks: {key}}}, if 1 is the best" if _is_rank(key) else f"scores: {key}}}" for key in keys]
    return "; or ".join(f"fields: {{{way}" for way in ways)


def _is_tree(value: object) -> bool:
    return isinstance(value, dict) and _is_list(value.get("replies")) and role_of(value) is not None


def _maps_good_and_bad(row: RowFields) -> bool:
    return row.mapped("good") and row.mapped("bad")


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _is_list_of_messages(value: object) -> bool:
    return is_conversation(value) and role_of(value[0]) is not None


def _is_rank(key: str) -> bool:
    return "rank" in key.lower()


def _number_keys(record: object) -> list[str]:
    """The first few keys of an object that hold numbers which may be scores."""
    return [
        key
        for key, value in (record.items() if isinstance(record, dict) else ())
        if isinstance(value, int | float) and not isinstance(value, bool) and not key.lower().endswith("id")
    ][:5]


class _Survey:
    """What the first rows of a dataset say."""

    def __init__(self, records: Sequence[Record], settings: FormatSettings) -> None:
        self._settings, self._count = settings, len(records)
        self._values, self._ask = settings.values, ""
        start = settings.values.get("start")
        first = int(start) if isinstance(start, int | float) else None
        rows = _rows(records, settings)
        if not settings.values:
            self._values, self._ask = _label_values(rows)
            first = first_number(rows, _keys_of_sides(rows))
        self._first = first
        self._rows = _rows(records, settings.replace(values=self._values))
        self.matches = [[self._with_ask(match) for match in _match(row, first).values()] for row in self._rows]

    def _with_ask(self, match: Match) -> Match:
        """A match, with what has to be asked about the labels of all rows."""
        labelled = match.format in ("preference", "votes") and (not match.ask or match.ask.startswith(ASK_VALUES))
        return match._replace(ask=self._ask) if labelled and self._ask else match

    def choose(self) -> Choice:
        """The format that fits more than half of the rows for certain, if no other fits any.

        Else it is None, and the sentence lists the candidates with what to set for each.
        """
        certain: Counter[str] = Counter()
        first: dict[str, Match] = {}
        asks: dict[str, str] = {}
        mixed = False
        for matches in self.matches:
            sure = [match for match in matches if not match.ask]
            if len(sure) == 1:
                (match,) = sure
                certain[match.format] += 1
                if first.setdefault(match.format, match) != match:
                    mixed = True
                    asks[match.format] = f"format: {match.format} and `fields`; its rows differ"
            for match in matches:
                if match.ask or len(sure) > 1:
                    asks.setdefault(match.format, match.ask or f"format: {match.format}")
        if {*asks, *certain} == {"labelled"} and self._labels_are_signed():
            certain["labelled"] = self._count
        if len(certain) == 1 and 2 * certain.total() > self._count and not mixed:
            (name,) = certain
            return self._chosen(name, first[name].paths if name in first else (), f": {DESCRIPTIONS[name]}")
        asks = {**{name: f"format: {name}" for name in certain}, **asks}
        if asks:
            ways = "; ".join(f"{name} (set {ask})" for name, ask in sorted(asks.items()))
            return Choice(None, f"it may be {ways}")
        return Choice(
            None,
            "no format fits by its names alone. Set the paths of its parts with `fields: {prompt: ..., chosen: ..., "
            f"rejected: ...}}`, or set `format` to one of {', '.join(DESCRIPTIONS)}",
        )

    def confirm(self, name: str) -> Choice:
        """The format that the user set, with what its labels mean; None where that is not clear."""
        ask = self._ask if name in ("preference", "votes") else ""
        stated: Match | None = None
        every = zip(self._rows, self.matches, strict=True)
        for row, match in ((row, match) for row, matches in every for match in matches):
            named = [f"{field}: {path}" for field, path in match.paths if field in ("preference", "best")]
            if name in ("pairs", "messages", "transcript") and named and row.present("rejected"):
                ask = f"format: {match.format} and fields: {{{named[0]}}}; chosen names an answer under another key"
            elif match.format == name == "ranked" and match.ask.startswith(ASK_START):
                ask = match.ask
            if match.format == name and not match.ask:
                stated = stated or match
        return Choice(None, f"set {ask}") if ask else self._chosen(name, stated.paths if stated else ())

    def _chosen(self, name: str, paths: Paths, description: str = "") -> Choice:
        values = self._settings.values
        if name in ("preference", "votes"):
            values = self._values
        elif name == "ranked" and not values and self._first is not None:
            values = {"start": self._first}
        fields = {**dict(paths), **self._settings.fields}
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
    return [fields.of(record) for record in records if isinstance(record, dict)]


def _keys_of_sides(rows: Iterable[RowFields]) -> list[str]:
    """The keys of `chosen` and `rejected`, which may name answers by their numbers."""
    keys: dict[str, None] = {}
    for row in rows:
        with suppress(Reject):
            keys |= {row.path(side): None for side in SIDES if row.present(side)}
    return list(keys)


def _label_values(rows: Iterable[RowFields]) -> tuple[JsonObject, str]:
    """What numbers mean that say which of two answers is better: `values` (empty if they need none), or what to ask.

    They have a meaning only where they and the names state it.
    """
    labels: dict[tuple[str, tuple[str, str]], list[object]] = {}
    for row in rows:
        for key, names, label in _number_labels(row):
            labels.setdefault((key, names), []).append(label)
    readings = [_reading(found, key, names) for (key, names), found in sorted(labels.items())]
    unclear = next((reading for reading in readings if reading[1]), None)
    if unclear or not readings:
        return unclear or ({}, "")
    if any(reading != readings[0] for reading in readings):
        return {}, f"{ASK_VALUES}; its rows do not agree on what numbers mean"
    return readings[0]


def _number_labels(row: RowFields) -> Iterator[tuple[str, tuple[str, str], object]]:
    """The labels of two answers that are numbers, with their key and the names of the answers."""
    try:
        label, key = preference_label(row), row.key("preference")
        if row.mapped("answer_a"):
            names = mapped_names(row)
        elif row.mapped("answers"):
            names = ("answer 1", "answer 2")
        else:
            (two,) = two_answer_keys(tuple(row.record))
            names = two.first, two.second
    except (Reject, ValueError):
        return
    for each in label if isinstance(label, list) else [label]:
        if is_number(each):
            # Two numbers under "votes" may be how many votes each answer has.
            yield _VOTE_LIST if isinstance(label, list) and key == "votes" else key, names, each


def _reading(labels: list[object], key: str, names: tuple[str, str]) -> tuple[JsonObject, str]:
    numbers = {label_text(label): read_number(label, key) for label in labels}
    least, most = min(numbers.values()), max(numbers.values())
    ends = names[0][-1:], names[1][-1:]
    ask = f"{ASK_VALUES}, for what {key or 'the preference'} holds ({', '.join(sorted(numbers)[:8])})"
    if key == _VOTE_LIST:
        ask += "; or fields: {votes_a: votes[0], votes_b: votes[1]} if they are counts"
    elif (key, names[0]) in SIGNED:
        if least < 0:
            return {"signed": SIGNED[key, names[0]]}, ""
    elif (key, names[0]) == SHIFTED:
        if most > 1 and all(number == 0 or 1 <= number <= 2 for number in numbers.values()):
            return {}, ""
    elif (key, names[0]) in NUMERIC:
        return {}, ""
    elif (ends == ("1", "2") and numbers.keys() == {"1", "2"}) or (
        ends == ("0", "1") and key in _COUNTED_KEYS and "0" in numbers and numbers.keys() <= {"0", "1"}
    ):
        first, second, tie = map(sorted, side_words(names))
        return {"first": [*first, ends[0]], "second": [*second, ends[1]], "tie": [*tie]}, ""
    if least < 0 or (key, names[0]) in SIGNED:
        ask += "; or values: {signed: first} or {signed: second}, the better one where it is above 0"
    return {}, ask
