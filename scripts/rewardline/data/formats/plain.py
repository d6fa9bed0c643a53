"""Rows of which most datasets consist: plain texts or messages under usual names, also with scores, read in one step.

A row that holds anything else is left to the readers of its format, which decide and explain; a row that is read here
gives the same pair there.
"""

from math import isfinite
from typing import Final, NamedTuple, Self

from rewardline.data.conversation import CALLERS, MAX_CHARACTERS, ROLES, read_transcript, trim
from rewardline.data.formats.chosen_rejected import SIDES
from rewardline.data.formats.drafts import PreferencePair, RowPairs
from rewardline.data.formats.fields import Fields, Record, difference, read_ratings
from rewardline.data.formats.two_answers import OUTCOMES_AND_SOURCES, two_answer_keys
from rewardline.data.schema import Message
from rewardline.data.sources.rows import INVALID_TEXT

FORMATS: Final = ("pairs", "messages", "transcript", "preference")
_PROMPTS: Final = ("prompt", "question", "query")
_SPEAKERS: Final = ("Human:", "System:", "Assistant:")
_STEERLM: Final = "<extra_id_1>"
_NUMBERS: Final = (int, float)
_MOST_SHAPES: Final = 1_000  # sets of keys that are remembered
Split = tuple[list[Message], str, str]
"""A prompt, the chosen and the rejected answer."""


class PlainPair(NamedTuple):
    """The pair of a plain row."""

    prompt: list[Message]
    chosen: str
    rejected: str
    margin: float | None

    def row_pairs(self) -> RowPairs:
        """All that its row gives."""
        return RowPairs([(PreferencePair(tuple(self.prompt), self.chosen, self.rejected, self.margin), (0,))])


class Keys(NamedTuple):
    """The keys of a prompt, if there is one, of the two sides, and of a score of each, which says what is chosen."""

    prompt: str | None
    one: str
    two: str
    scores: tuple[str, str] | None = None


class PlainReader:
    """Reads the plain rows of a format."""

    def __init__(self, fields: Fields) -> None:
        self._fields, self._format = fields, fields.settings.format
        self._keys: dict[tuple[str, ...], Keys | None] = {}

    @classmethod
    def of(cls, fields: Fields, positions: bool) -> Self | None:
        """The reader of the rows with these fields; None if the settings ask for more than plain rows have."""
        settings = fields.settings
        is_plain = settings.format in FORMATS and not settings.fields and settings.min_margin is None and not positions
        return cls(fields) if is_plain else None

    def read(self, record: Record) -> PlainPair | None:
        """The pair of a row; None for a row that is not plain."""
        shape = tuple(record) if type(record) is dict else ()
        if shape not in self._keys:
            if len(self._keys) == _MOST_SHAPES:
                self._keys.clear()
            self._keys[shape] = self._keys_of(shape)
        if (keys := self._keys[shape]) is None:
            return None
        prompt, one, two, scores = keys
        lead: float | None = None
        if scores:
            lead = _lead(record[scores[0]], record[scores[1]])
            if not lead:
                return None
            one, two = (one, two) if lead > 0 else (two, one)
        split: Split | None = None
        if self._format == "transcript":
            chosen = _turns(record[one], SIDES[0])  # without any, the format's reader says why
            split = _split(chosen, _turns(record[two], SIDES[1])) if chosen else None
        elif type(record[one]) is list and not scores:
            split = _split(_messages(record[one]), _messages(record[two]))
            if split and prompt and not _begins(split[0], _text(record[prompt])):
                return None
        elif prompt:
            texts = _text(record[prompt]), _text(record[one]), _text(record[two])
            split = ([{"role": "user", "content": texts[0]}], texts[1], texts[2]) if all(texts) else None
        if split is None or split[1] == split[2]:
            return None
        return PlainPair(*split, None if lead is None else abs(lead))

    def _keys_of(self, shape: tuple[str, ...]) -> Keys | None:
        """The keys of what a row with these keys has; None if it may have more, or if there is a choice."""
        prompts, chosen, rejected = (self._fields.usual(shape, name) for name in ("prompt", *SIDES))
        if self._format == "transcript":
            prompts = []
        if self._fields.has_attributes(shape) or (prompts and (len(prompts) > 1 or prompts[0] not in _PROMPTS)):
            return None
        prompt = prompts[0] if prompts else None
        if self._format == "preference":
            return self._scored_keys(shape, prompt) if prompt else None
        if len(chosen) != 1 or len(rejected) != 1 or (not prompt and self._format == "pairs"):
            return None
        return Keys(prompt, chosen[0], rejected[0])

    def _scored_keys(self, shape: tuple[str, ...], prompt: str) -> Keys | None:
        """The keys of two answers with a score each, where nothing else says which is better, or who wrote them."""
        found = two_answer_keys(shape)
        others = [*self._fields.usual(shape, "preference"), *(key for key in shape if key in OUTCOMES_AND_SOURCES)]
        if len(found) != 1 or others or not {*found[0].scores} <= {*shape}:
            return None
        return Keys(prompt, found[0].first, found[0].second, found[0].scores)


def _read(value: object) -> str:
    """`value` as `read_text` gives it; empty if it is refused."""
    if type(value) is not str or len(value) > MAX_CHARACTERS or "\0" in value or value.startswith(INVALID_TEXT):
        return ""
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return ""
    return trim(value)


def _text(value: object) -> str:
    """A prompt or an answer; empty if it may be more than a text, by how it begins or ends."""
    text = _read(value)
    is_more = text[:1] in "<[{ \t" or text[-1:] == ">" or text.startswith(_SPEAKERS) or _STEERLM in text
    return "" if is_more else text


def _lead(one: object, two: object) -> float:
    """By how much the first of two scores is higher; 0 where that is not for two numbers to say."""
    if type(one) not in _NUMBERS or type(two) not in _NUMBERS:
        return 0.0
    lead = difference(*read_ratings(one, "score_a"), *read_ratings(two, "score_b"))
    return lead if isfinite(lead) else 0.0


def _turns(value: object, name: str) -> list[Message]:
    """The turns of a transcript."""
    text = _read(value)
    return read_transcript(text, name) if text else []


def _messages(value: object) -> list[Message]:
    """A list of messages, each with a role and a text; empty if it holds anything else."""
    turns: list[Message] = []
    for message in value if type(value) is list else ():
        if type(message) is not dict or len(message) != 2:
            return []
        name, content = ("role", "content") if "role" in message else ("from", "value")
        role = message.get(name)
        if type(role) is not str or role not in ROLES or role in CALLERS or not (text := _read(message.get(content))):
            return []
        turns.append({"role": ROLES[role], "content": text})
    return turns


def _split(one: list[Message], two: list[Message]) -> Split | None:
    """The prompt and answers of two conversations that differ in the last turn alone, which is the assistant's."""
    if len(one) < 2 or one[:-1] != two[:-1] or len(one) != len(two) or not all(turn["content"] for turn in one):
        return None
    last, other, before = one[-1], two[-1], one[-2]
    are_answers = last["role"] == other["role"] == "assistant" != before["role"]
    return (one[:-1], last["content"], other["content"]) if are_answers and other["content"] else None


def _begins(turns: list[Message], prompt: str) -> bool:
    """Whether turns begin with the user's or a system message, and have a prompt of its own among them."""
    return turns[0]["role"] not in ("assistant", "tool") and {"role": "user", "content": prompt} in turns
