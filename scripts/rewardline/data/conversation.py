"""Texts, messages and dialogues: the strict reading that all formats share."""

import re
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypedDict

from rewardline.data.sources.rows import INVALID_TEXT

MAX_CHARACTERS: Final = 1_000_000
ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "tool": "user",  # what a tool returns comes from outside, as what a user says
    "function": "user",
}
TEXT_KEYS: Final = ("answer", "text", "content", "response", "completion", "output")
PROMPT_KEYS: Final = ("full_text", "text", "content", "question", "prompt")
AS_TEXT: Final = re.compile(r"""\[\s*\{\s*["'](role|from|content|value)["']\s*:""")
INDENTED: Final = re.compile(r"(?:[^\S\n]*\n)*(?= {4}|\t)")
MARKER: Final = re.compile(r"\s*Assistant:")
TURN: Final = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
STEERLM: Final = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")
KINDS: Final = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    str: "text",
}


class Message(TypedDict):
    """A turn of a conversation. `role` is system, user or assistant; `content` is trimmed."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference between two answers to one prompt.

    `margin` is how much better `chosen` is (in the data set's own unit, never negative; null if unknown).
    `confidence` is the probability that it is better, in (0.5, 1]; 0.5 only for a tie that the user wants kept, whose
    texts then stand in alphabetical order. `sources` are the model or person that wrote each, empty if unknown.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    margin: float | None = None
    weight: float = 1.0
    subset: str = ""
    confidence: float = 1.0
    sources: tuple[str, str] = ("", "")
    place: "Place | None" = None


class Place(NamedTuple):
    """Where a pair's answers stand in their row, for benchmarks that count by row.

    `item` is the row's own id; `chosen` and `rejected` are positions, from 0, in the row's list of answers, or in the
    lists of its good and of its bad ones; `answers` is how many answers the row has.
    """

    item: str = ""
    chosen: int = 0
    rejected: int = 0
    answers: int = 2


class Reject(Exception):  # noqa: N818 - it is an outcome to count, not a fault
    """A row that gives no pair. `reason` is a stable code to count by, `detail` a sentence for people.

    `detail` is valid UTF-8 of at most 500 characters, whatever the row holds.
    """

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail[:500].encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")
        super().__init__(f"{self.reason}: {self.detail}")


def kind(value: object) -> str:
    """What `value` is, in words."""
    return KINDS.get(type(value), type(value).__name__)


def trim(text: str) -> str:
    """`text` without outer white space, but for the indentation of code: four spaces or a tab before its first line."""
    blank = INDENTED.match(text) if text[:1].isspace() else None
    return text[blank.end() :].rstrip() if blank else text.strip()


def clean(value: object, what: str) -> str:
    """`value` trimmed; it may be empty. Rejects all that is not well-formed text."""
    if not isinstance(value, str):
        raise Reject("not_text", f"{what} is {kind(value)}, not text")
    if len(value) > MAX_CHARACTERS:
        raise Reject("too_long", f"{what} has {len(value):,} characters; {MAX_CHARACTERS:,} are allowed")
    if "\0" in value:
        raise Reject("bad_text", f"{what} contains a NUL character")
    if value.startswith(INVALID_TEXT):
        raise Reject("bad_text", f"{what}: {value.removeprefix(INVALID_TEXT)}")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise Reject("bad_text", f"{what} contains half of a surrogate pair") from None
    return trim(value)


def message(value: object, what: str) -> Message:
    """A message in OpenAI's form (role, content) or ShareGPT's (from, value). Content may be a list of text parts."""
    if not isinstance(value, dict):
        raise Reject("not_messages", f"{what} is {kind(value)}, not a message with a role")
    name = value.get("role") if value.get("role") is not None else value.get("from")
    role = ROLES.get(name.strip().lower()) if isinstance(name, str) else None
    if role is None:
        shown = repr(name[:50]) if isinstance(name, str) else kind(name)
        raise Reject("bad_role", f"{what} has the role {shown}; known are {', '.join(ROLES)}")
    content = next((value[key] for key in ("content", "value", "text", "parts") if value.get(key) is not None), None)
    if isinstance(content, list):
        content = "".join(_part(part, f"part {n} of {what}") for n, part in enumerate(content, 1))
    return {"role": role, "content": clean(content, f"the content of {what}")}


def _part(value: object, what: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or value.get("type", "text") != "text":
        raise Reject("not_text", f"{what} is not of type text")
    text = value.get("text") if value.get("text") is not None else value.get("value")
    if not isinstance(text, str):
        raise Reject("not_text", f"{what} is {kind(text)}, not text")
    return text


def messages(value: list[Any], what: str) -> list[Message]:
    """A list of messages. An empty system message says nothing and is left out."""
    read = [message(item, f"message {n} of {what}") for n, item in enumerate(value, 1)]
    return [item for item in read if item["content"] or item["role"] != "system"]


def dialogue(text: str, what: str) -> list[Message]:
    r"""The turns of a transcript: "\n\nHuman: ...\n\nAssistant: ...".

    A marker opens a turn where the speaker changes. A repeated marker is the speaker's own text (a model that wrote
    the marker itself, as HH-RLHF has) and stays in it, so that an answer is what was judged, word for word.
    """
    result: list[Message] = []
    role, start = "", 0
    for match in TURN.finditer(text):
        speaker = "user" if match[1] == "Human" else "assistant"
        if speaker == role:
            continue
        if role:
            result.append({"role": role, "content": text[start : match.start()].strip()})
        elif match.start():
            break
        role, start = speaker, match.end()
    if not role:
        raise Reject("not_transcript", f'{what} does not start with "Human:" or "Assistant:"')
    result.append({"role": role, "content": text[start:].strip()})
    return result


def is_dialogue(text: object) -> bool:
    """Whether `text` is a whole transcript rather than a text that merely mentions one."""
    return isinstance(text, str) and "\n\nAssistant:" in text and text.lstrip().startswith("Human:")


def prompt(value: object, what: str = "the prompt") -> list[Message]:
    """The messages of an explicit prompt: plain text, a transcript that awaits an answer, or a list of messages."""
    if isinstance(value, list):
        result = messages(value, what)
    elif opened(value) is not value:
        return prompt(opened(value), what)  # OpenAI's preference format
    elif isinstance(value, dict) and not {"role", "from"} & value.keys():
        return [{"role": "user", "content": clean(only_text(value, PROMPT_KEYS, what), what)}]
    elif isinstance(value, dict):
        result = [message(value, what)]
    else:
        text = clean(value, what)
        if "<extra_id_1>Assistant\n" in text:
            return _steerlm(text, what)
        if not text.startswith("Human:"):
            return [{"role": "user", "content": text}]
        result = dialogue(text, what)
        if not result[-1]["content"] and result[-1]["role"] == "assistant":
            result.pop()
    return _awaiting(result, what)


def _awaiting(result: list[Message], what: str) -> list[Message]:
    if not result:
        raise Reject("empty_prompt", f"{what} is empty")
    if result[-1]["role"] == "assistant":
        raise Reject("prompt_ends_with_assistant", f"{what} ends with an assistant turn: what do the answers answer?")
    return result


def _steerlm(text: str, what: str) -> list[Message]:
    r"""The turns of "Q\n<extra_id_1>Assistant\nA\n<extra_id_1>User\nR", as HelpSteer has them."""
    first, *rest = STEERLM.split(text)
    turns = [("User", first), *zip(rest[::2], rest[1::2], strict=True)]
    result: list[Message] = [
        {"role": "user" if role == "User" else "assistant", "content": said.strip()} for role, said in turns
    ]
    if not result[0]["content"] and len(result) > 1 and result[1]["role"] == "user":
        result.pop(0)  # a marker before the first turn as well
    return _awaiting(result, what)


def opened(value: Any) -> Any:
    """A list of messages that an object holds; all else as it is."""
    return value["messages"] if isinstance(value, dict) and isinstance(value.get("messages"), list) else value


def is_plain(value: object) -> bool:
    """Whether `value` is a list of texts."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def alternate(texts: list[str]) -> list[dict[str, str]]:
    """Messages of texts that a user and an assistant say in turn."""
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


def unmarked(first: Any, second: Any) -> tuple[Any, Any]:
    """Two answers without the marker "Assistant:", if both are texts that start with it."""
    if not all(isinstance(text, str) and MARKER.match(text) for text in (first, second)):
        return first, second
    return MARKER.sub("", first, count=1), MARKER.sub("", second, count=1)


def answer(value: object, what: str) -> str:
    """One answer: text, an assistant's message (alone or as a list of one), or an object with one text in it."""
    if isinstance(value, list):
        if len(value) != 1:
            reason = "several_turns" if value else "empty_answer"
            raise Reject(reason, f"{what} is a list of {len(value)} items, not of one message")
        value = value[0]
        if not isinstance(value, dict):
            raise Reject("not_messages", f"{what} is a list of {kind(value)}, not of a message")
    if isinstance(value, dict):
        if value.get("role") is not None or value.get("from") is not None:
            read = message(value, what)
            if read["role"] != "assistant":
                raise Reject("bad_role", f"{what} is a {read['role']} message")
            return read["content"]
        if isinstance(value.get("completion"), dict):
            return answer(value["completion"], what)  # Gemini's candidates
        value = only_text(value, TEXT_KEYS, what)
    text = clean(value, what)
    if AS_TEXT.match(text):
        raise Reject("messages_as_text", f"{what} is text that spells a list of messages: write it as a list")
    return text


def only_text(value: dict[str, Any], keys: tuple[str, ...], what: str) -> str:
    """The text of an object that has exactly one under any of `keys`."""
    found = [key for key in keys if isinstance(value.get(key), str)]
    if len(found) != 1:
        raise Reject("not_text", f"{what} is an object with {len(found)} of the keys {', '.join(keys)}")
    return str(value[found[0]])


def is_conversation(value: object) -> bool:
    """Whether `value` is a list of messages that holds more than an answer."""
    return isinstance(value, list) and (len(value) > 1 or bool(value and speaker(value[0]) in ("user", "system")))


def speaker(value: object) -> str | None:
    """The role of a message; None for what is no message."""
    name = (value.get("role") or value.get("from")) if isinstance(value, dict) else None
    return ROLES.get(name.strip().lower()) if isinstance(name, str) else None


def part(first: list[Message], second: list[Message], names: tuple[str, str]) -> tuple[list[Message], str, str]:
    """Split two conversations into the prompt that they share and their answers.

    The prompt runs up to the last turn before the assistant turn where they part. What follows must be one assistant
    turn on each side: where more follows, the preference is about a whole course of conversation, in which the user
    speaks as well, and it cannot be laid to one answer.
    """
    shared = 0
    while shared < min(len(first), len(second)) and first[shared] == second[shared]:
        shared += 1
    while shared and first[shared - 1]["role"] == "assistant":
        shared -= 1
    rests = first[shared:], second[shared:]
    for rest, name in zip(rests, names, strict=True):
        if not rest:
            raise Reject("no_answer", f"{name} ends where the answer should begin")
    if any(len(rest) > 1 or rest[0]["role"] != "assistant" for rest in rests):
        if not any(turn["role"] == "user" for turn in first[:shared]):
            raise Reject("different_prompts", f"{names[0]} and {names[1]} do not begin with the same prompt")
        raise Reject(
            "several_turns",
            f"{names[0]} and {names[1]} part before their last answer: "
            f"{len(rests[0])} and {len(rests[1])} turns follow what they share",
        )
    return first[:shared], rests[0][0]["content"], rests[1][0]["content"]
