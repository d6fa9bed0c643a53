"""Rows to score: their prompts and answers, read as the rows of a dataset are, and the names of their scores."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

from pydantic import JsonValue

from rewardline.core.settings import JsonObject
from rewardline.data.conversation import (
    Reject,
    ends_with_answer,
    is_conversation,
    is_text_list,
    is_transcript,
    read_answer,
    read_text,
    read_transcript,
    role_of,
    unwrap_messages,
)
from rewardline.data.formats.fields import SYNONYMS, Fields, with_held_tools
from rewardline.data.formats.prompts import explicit_prompt, is_name, read_inputs, split_sides, with_system_prompt
from rewardline.data.formats.settings import FormatSettings
from rewardline.data.turns import NO_INPUTS, TemplateInputs
from rewardline.tokens.templates import Prompt

SIDES: Final = ("chosen", "rejected")
SINGLE: Final = ("answer", *SYNONYMS["answer"])
SEVERAL: Final = SYNONYMS["answers"]
CONVERSATIONS: Final = (*SYNONYMS["conversation"], "trajectory")
MEDIA: Final = tuple(f"{name}{end}" for name in ("image", "video", "audio") for end in ("", "s"))
_PROMPTS: Final = (*SYNONYMS["prompt"], *SYNONYMS["system"])
_SIDES: Final = (*SYNONYMS["chosen"], *SYNONYMS["rejected"])
INPUTS: Final = ("tools", "chat_template_kwargs")
"""The columns that a chat template gets besides messages."""
COLUMNS: Final = tuple(dict.fromkeys((*_PROMPTS, *SEVERAL, *SINGLE, *_SIDES, *CONVERSATIONS, *INPUTS)))
"""The columns of a row that are read."""
ROWS_AT_ONCE: Final = 512
_CHARACTERS_AT_ONCE: Final = 8 << 20
_FIELDS: Final = Fields(FormatSettings(), ())


class _Record(Protocol):
    @property
    def record(self) -> str | None:
        """The text of a JSON object; None for a row that cannot be read."""


ReadRow = TypeVar("ReadRow", bound=_Record)


class UnscorableError(Exception):
    """The reason why a row or a text cannot be scored, and the remedy; `reason` is a code to count by."""

    def __init__(self, message: str, reason: str = "unscorable") -> None:
        super().__init__(message)
        self.reason = reason


class AnswerScores(list[float]):
    """The scores of a prompt's answers; `beside` has what else is known of each, by the end of its name."""

    def __init__(self, scores: Iterable[float], beside: Mapping[str, list[float]]) -> None:
        super().__init__(scores)
        self.beside = beside


class PromptAnswers(NamedTuple):
    """A prompt, its answers, and the names of their scores: one for all of a list, else one each.

    `inputs`: the tools and variables of its row for the chat template; `ignored`: what of the row is not read, and why.
    """

    prompt: Prompt
    answers: list[str]
    names: tuple[str, ...]
    inputs: TemplateInputs = NO_INPUTS
    ignored: str = ""

    def named(self, scores: Sequence[float]) -> JsonObject:
        """The scores by their names, and what is `beside` them."""
        kinds = scores.beside if isinstance(scores, AnswerScores) else {}
        named: JsonObject = {}
        for end, values in (("", scores), *((f"_{kind}", values) for kind, values in kinds.items())):
            names = [f"{name}{end}" for name in self.names]
            found: list[JsonValue] = [list(values)] if self.names == ("scores",) else list(values)
            named |= dict(zip(names, found, strict=True))
        return named


def chunks(rows: Iterable[ReadRow]) -> Iterator[list[ReadRow]]:
    """Rows whose texts are in memory together, in their order."""
    chunk: list[ReadRow] = []
    characters = 0
    for row in rows:
        chunk.append(row)
        characters += len(row.record or "")
        if len(chunk) == ROWS_AT_ONCE or characters > _CHARACTERS_AT_ONCE:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def columns(rows: Sequence[PromptAnswers]) -> tuple[list[Prompt], list[list[str]], list[TemplateInputs]]:
    """The prompts, the answers and the inputs of rows, as `Scorer.score` takes them."""
    return [row.prompt for row in rows], [row.answers for row in rows], [row.inputs for row in rows]


def score_names(columns: Sequence[str], lists: Collection[str]) -> tuple[str, ...]:
    """The names of all scores that rows with these columns, of which some hold `lists`, can get."""
    names = []
    if any(name in lists for name in SEVERAL):
        names.append("scores")
    is_single = any(name in columns for name in SINGLE)
    if "answer" in columns or any(name in columns for name in CONVERSATIONS) or (names and is_single):
        names.append("score")
    fields = _FIELDS.of(dict.fromkeys(columns))
    if fields.present("rejected") and (fields.present("chosen") or any(name in columns for name in CONVERSATIONS)):
        names += ["chosen_score", "rejected_score"]
    return tuple(names) or (("score",) if is_single else ())


def with_beside(names: Sequence[str], kinds: Sequence[str]) -> tuple[str, ...]:
    """The names of scores, and of what is beside them."""
    return (*names, *(f"{name}_{kind}" for kind in kinds for name in names))


def parse_row(row: Mapping[str, object], reads_names: bool = False) -> PromptAnswers:
    """The prompt and the answers of a row: {prompt, answers}, {prompt, answer}, {prompt, chosen, rejected}, {messages}.

    Prompts, answers and conversations are read as in a dataset, so that the same row has the same tokens. An answer may
    be a complete conversation, messages or a transcript; what all have before their last turn is then the prompt.
    `reads_names`: whether the model was trained with names of systems as system prompts, as `fields` can say.

    Raises:
        UnscorableError: something is missing, or is not text.
    """
    try:
        return _parsed(row, reads_names)
    except Reject as reject:
        detail, _, remedy = reject.detail.partition(": set `fields: {")
        text = f"{detail}; name it `{remedy.partition(':')[0]}`" if remedy else detail
        raise UnscorableError(text, reject.reason) from None


def read_full_text(text: str) -> PromptAnswers | None:
    """The prompt and the answer of a complete transcript; None for other texts."""
    if is_transcript(text):
        *prompt, answer = read_transcript(text, "the text")
        if prompt and answer["role"] == "assistant":
            return PromptAnswers(prompt, [answer["content"]], ("score",))
    return None


def check_text(text: str) -> None:
    """Raise `UnscorableError` for a text that is too long or not valid Unicode."""
    try:
        read_text(text, "a text")
    except Reject as reject:
        raise UnscorableError(reject.detail, reject.reason) from None


def _parsed(row: Mapping[str, object], reads_names: bool) -> PromptAnswers:
    row = with_held_tools(row)
    keys, names = _answer_columns(row)
    found = [row[name] for name in keys]
    if names == ("scores",) and isinstance(found[0], list):
        found = found[0]
    values = [unwrap_messages(value) for value in found]
    labels = keys if len(keys) == len(values) else [f"answer {n}" for n in range(1, len(values) + 1)]
    fields = _FIELDS.of(_with_one_prompt({name: value for name, value in row.items() if name not in keys}))
    prompt = explicit_prompt(fields, values)
    if all(is_transcript(value) for value in values) and (prompt is None or len(names) == 2):
        texts = [read_text(value, label) for value, label in zip(values, labels, strict=True)]
        values = [read_transcript(text, label) for text, label in zip(texts, labels, strict=True)]
    answers: list[str]
    if any(is_conversation(value) for value in values) or len(names) == 2:
        prompt, answers = split_sides(prompt, values, labels)
    else:
        answers = [read_answer(value, label) for value, label in zip(values, labels, strict=True)]
    system, ignored = fields.optional("system"), ""
    if not reads_names and isinstance(system, str) and is_name(system.strip()):  # which training leaves out too
        ignored = f"{fields.path('system')} ignored, as it is a name and no system prompt,"
    else:
        prompt = with_system_prompt(prompt or [], fields)
    if not prompt or not any(turn["content"] for turn in prompt):
        raise Reject("empty_prompt", "has no `prompt`, or an empty one; it must be a text or a list of messages")
    inputs, unread = read_inputs(fields)
    media = next((f"{name} ignored, as only text is read," for name in MEDIA if row.get(name)), "")
    if names == ("score",):
        others = [name for name in SEVERAL if name not in keys and is_text_list(row.get(name))]
        media = media or next((f"{name} ignored, as {keys[0]} is what is scored," for name in others), "")
    return PromptAnswers(prompt, answers, names, inputs, ignored or unread or media)


def _with_one_prompt(row: Mapping[str, object]) -> dict[str, object]:
    """The row, in which `prompt` is the prompt whatever else may be one."""
    if row.get("prompt") is None:
        return {name: value for name, value in row.items() if name != "prompt"}
    others = set(SYNONYMS["prompt"]) - {"prompt", "history"}
    return {name: value for name, value in row.items() if name not in others}


def _side_columns(row: Mapping[str, object]) -> tuple[str, str] | None:
    """The columns of two answers, of which the better one may end a conversation; None if the row has not both."""
    if row.keys() >= set(SIDES):
        return SIDES
    fields = _FIELDS.of(row)
    if not (rejected := fields.path("rejected")):
        return None
    conversation = next((name for name in CONVERSATIONS if ends_with_answer(row.get(name))), "")
    chosen = fields.path("chosen") or conversation
    return (chosen, rejected) if chosen else None


def _answer_columns(row: Mapping[str, object]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns of a row's answers, and the names of their scores."""
    given = {name for name, value in row.items() if value is not None}
    if "answers" in given:
        if not isinstance(row["answers"], list) or not row["answers"]:
            raise Reject("not_list", "its `answers` must be a list with at least one answer")
        return ("answers",), ("scores",)
    if "answer" not in given and (sides := _side_columns({name: row[name] for name in row if name in given})):
        return sides, ("chosen_score", "rejected_score")
    firsts = {name: found[0] for name in SEVERAL if isinstance(found := row.get(name), list) and found}
    lists = list(firsts)
    singles = [name for name in SINGLE if name in given and (name not in lists or role_of(firsts[name]) is not None)]
    for name in ("answer", *CONVERSATIONS, *singles, *lists):
        if name in CONVERSATIONS and (lists or singles) and not ends_with_answer(row.get(name)):
            continue  # it is the prompt
        if name in lists and name not in singles:
            return (name,), ("scores",)
        if name in given:
            if name in CONVERSATIONS and not is_conversation(row[name]):
                detail = f"its `{name}` must be a list of a prompt's messages and the assistant's answer"
                raise Reject("not_messages", detail)
            return (name,), ("score",)
    names = "neither `answer` nor `answers` nor `chosen` and `rejected` nor `messages`"
    raise Reject("missing_field", f"has {names}")
