"""Texts, messages and transcripts in a row: the strict reading that all formats share."""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, TypeGuard

from rewardline.data.blocks import TEXTS, chat_form, chat_messages, item_role
from rewardline.data.schema import Message
from rewardline.data.sources.rows import INVALID_TEXT
from rewardline.data.templated import messages_of, without_end
from rewardline.data.turns import INSTRUCTING, answer_of

MAX_CHARACTERS: Final = 1_000_000
_ROLE_NAMES: Final = {
    "system": ("system",),
    "developer": ("developer",),
    "user": ("user", "human", "prompter"),
    "tool": (
        "tool",
        "function",
        "observation",
        "ipython",
        "environment",
        "tool_response",
        "tool_result",
        "function_response",
    ),
    "assistant": ("assistant", "gpt", "chatgpt", "bot", "model", "ai", "function_call", "tool_call"),
}
CALLERS: Final = ("function_call", "tool_call")
"""Roles whose text is the JSON of a call, as LLaMA-Factory has them, and keys of the only call of a turn."""
ROLES: Final = {name: role for role, names in _ROLE_NAMES.items() for name in names}
"""The role that each name stands for."""
REASONING: Final = ("reasoning_content", "thinking", "reasoning")
"""The keys under which an assistant's message may have its reasoning, in the order of transformers."""
TOOL_KEYS: Final = ("name", "tool_call_id")
"""What a tool's message says besides its content."""
ANSWER_KEYS: Final = ("answer", "text", "content", "response", "completion", "output")
PROMPT_KEYS: Final = ("full_text", "text", "content", "question", "prompt")
_MESSAGES_AS_TEXT: Final = re.compile(r"""\[\s*\{\s*["'](role|from|content|value)["']\s*:""")
INDENTATIONS: Final = ("    ", "\t")
"""The beginnings of a line that is code, which `trim` keeps."""
_NO_ANSWER: Final = re.compile(r"(<think>\s*</think>)?")  # what a rendered prompt ends with, also without thinking
_MARKER: Final = re.compile(r"\s*Assistant:")
_FIRST_TURN: Final = re.compile(r"\s*(System|Human|Assistant):")
_TURN: Final = re.compile(r"\n\n(Human|Assistant):")
_SPEAKERS: Final = {"System": "system", "Human": "user", "Assistant": "assistant"}
_STEERLM_TURN: Final = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")
_TYPES: Final[dict[type, str]] = {
    type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list",
    dict: "an object",
}  # fmt: skip


class Reject(Exception):  # noqa: N818 - it is an outcome to count, not an error
    """A row that gives no pair. `reason` is a stable code to count by, `detail` a sentence for people.

    `detail` is valid UTF-8 of at most 500 characters, whatever the row holds.
    """

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail[:500].encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")
        super().__init__(f"{self.reason}: {self.detail}")


def describe_type(value: object) -> str:
    """The type of a JSON value, in words."""
    return _TYPES.get(type(value), type(value).__name__)


def trim(text: str) -> str:
    """`text` without outer white space, but for the indentation of code: four spaces or a tab before its first line."""
    trimmed = text.strip()
    if trimmed[:1] == text[:1]:
        return trimmed
    indentation = text[: len(text) - len(text.lstrip())].rpartition("\n")[2]
    return indentation + trimmed if trimmed and indentation.startswith(INDENTATIONS) else trimmed


def read_text(value: object, what: str) -> str:
    """`value` trimmed; it may be empty. Rejects all that is not well-formed text."""
    if not isinstance(value, str):
        raise Reject("not_text", f"{what} is {describe_type(value)}, not text")
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


def read_message(value: object, what: str) -> Message:
    """A message in OpenAI's form (role, content) or ShareGPT's (from, value). Content may be a list of text parts.

    As text, reasoning comes before the content, in `<think>`, and calls of tools follow it, each in `<tool_call>` as
    Hermes and Qwen write them. Blocks of other APIs, see `blocks`, may be calls and reasoning too.
    """
    messages = chat_messages(value)
    if len(messages) != 1:
        raise Reject("not_messages", f"{what} holds {len(messages)} turns: write each as a message")
    return _read_chat_message(messages[0], what)


def _read_chat_message(value: object, what: str) -> Message:
    if not isinstance(value, dict):
        raise Reject("not_messages", f"{what} is {describe_type(value)}, not a message with a role")
    name = value.get("role") if value.get("role") is not None else value.get("from")
    role = ROLES.get(name.strip().lower()) if isinstance(name, str) else None
    if role is None:
        shown = repr(name[:50]) if isinstance(name, str) else describe_type(name)
        if name is None and isinstance(kind := value.get("type"), str):
            raise Reject("bad_role", f"{what} has no role and is of type {kind[:50]!r}, which is not read")
        raise Reject("bad_role", f"{what} has the role {shown}; known are {', '.join(ROLES)}")
    content = value.get("content")
    for key in ("value", "text", "parts"):
        if not content and value.get(key) is not None:
            content = value[key]
    if isinstance(content, list):
        content = "".join(_read_part(part, f"part {n} of {what}") for n, part in enumerate(content, 1))
    calls = from_json(value.get("tool_calls")) or []
    for key in CALLERS if role == "assistant" else CALLERS[:1]:
        if value.get(key):
            calls = calls or _wrapped(from_json(value[key]))
    if not calls and str(name).strip().lower() in CALLERS and (calls := _spelled_calls(content)):
        content = None
    calls = list(map(from_json, calls)) if isinstance(calls, list) else [calls]
    texts = [_call_text(call, f"a tool call of {what}") for call in calls]
    reasons = _texts_of(value, REASONING, what) if role == "assistant" else {}
    other = _texts_of(value, TOOL_KEYS, what) if role == "tool" else {}
    spoken = read_text((content or "") if calls or reasons else content, f"the content of {what}")
    if not calls and not reasons and not other:
        return {"role": role, "content": spoken}
    native: dict[str, object] = {**({} if content is None else {"content": spoken}), **other}
    if calls:
        native["tool_calls"] = calls
    thought = ""
    if reasons:
        native["reasoning_content"] = next(iter(reasons.values()))
        thought = f"<think>\n{native['reasoning_content']}\n</think>\n\n"
    return {"role": role, "content": "\n".join(filter(None, (thought + spoken, *texts))), "native": native}


def _wrapped(call: object) -> list[object]:
    """The only call of a turn, if there is one, as one of a list of calls."""
    wrapped: object = call if isinstance(call, dict) and "function" in call else {"function": call}
    return [wrapped] if call else []


def _spelled_calls(text: object) -> list[object]:
    """The calls that a text spells in JSON, each with a name; none if it spells anything else."""
    found = from_json(text)
    items = found if isinstance(found, list) else [found]
    calls: list[object] = [
        call for item in items for call in _wrapped(item) if isinstance(call, dict) and _named(call["function"])
    ]
    return calls if len(calls) == len(items) else []


def _named(function: object) -> bool:
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _texts_of(message: Mapping[str, object], keys: tuple[str, ...], what: str) -> dict[str, object]:
    """Those of these keys of a message that have a text."""
    return {
        key: text
        for key in keys
        if isinstance(found := message.get(key), str) and (text := read_text(found, f"the {key} of {what}"))
    }


def _call_text(value: object, what: str) -> str:
    """A call of a tool as text: its name and its arguments as JSON."""
    call = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise Reject("not_messages", f"{what} has no name")
    arguments = from_json(call.get("arguments"))
    text = json.dumps({"name": call["name"], "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{read_text(text, what)}\n</tool_call>"


def from_json(value: object) -> object:
    """A value, or that of its JSON, as columns of text have it."""
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            parsed: object = json.loads(value)
            return parsed
    return value


def _read_part(value: object, what: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or (kind := value.get("type") or "text") not in TEXTS:
        found = f"of type {kind!r:.50}" if isinstance(value, dict) else describe_type(value)
        raise Reject("not_text", f"{what} is {found}, not of type text; only text can be read")
    text = value.get("text") if value.get("text") is not None else value.get("value")
    if not isinstance(text, str):
        raise Reject("not_text", f"{what} is {describe_type(text)}, not text")
    return text


def read_messages(values: Sequence[object], what: str) -> list[Message]:
    """A list of messages; empty system messages are left out."""
    turns = [_read_chat_message(message, f"message {n} of {what}") for n, message in chat_form(values)]
    return [turn for turn in turns if turn["content"] or turn["role"] not in INSTRUCTING]


def read_transcript(text: str, what: str) -> list[Message]:
    r"""The turns of a transcript: "\n\nHuman: ...\n\nAssistant: ...", which may begin with "System: ...".

    A marker opens a turn where the speaker changes. A repeated marker is the speaker's own text (a model that wrote
    the marker itself, as HH-RLHF has) and stays in it, so that an answer is what was judged, word for word.
    """
    turns: list[Message] = []
    first = _FIRST_TURN.match(text)
    if not first:
        raise Reject("not_transcript", f'{what} does not start with "Human:" or "Assistant:"')
    role, start = _SPEAKERS[first[1]], first.end()
    for match in _TURN.finditer(text, start):
        speaker = _SPEAKERS[match[1]]
        if speaker != role:
            turns.append({"role": role, "content": _content(text[start : match.start()])})
            role, start = speaker, match.end()
    turns.append({"role": role, "content": _content(text[start:])})
    return [turn for turn in turns if turn["content"] or turn["role"] != "system"]


def _content(text: str) -> str:
    """What a speaker says: `text` without the space after the marker, trimmed."""
    return trim(text.removeprefix(" "))


def is_transcript(value: object) -> bool:
    """Whether `value` is a complete transcript rather than a text that merely mentions one."""
    return isinstance(value, str) and "\n\nAssistant:" in value and _starts_transcript(value.lstrip())


def _starts_transcript(text: str) -> bool:
    return text.startswith("Human:") or (text.startswith("System:") and "\n\nHuman:" in text)


def read_prompt(value: object, what: str = "the prompt", continued: bool = False) -> list[Message]:
    """The messages of an explicit prompt: plain text, a transcript that awaits an answer, or a list of messages.

    `continued`: what follows may begin with another turn than the assistant's, so that the prompt may end with one.
    """
    templated, value = isinstance(value, str), unwrap_messages(value)
    if isinstance(value, dict) and not {"role", "from"} & value.keys():
        return [{"role": "user", "content": read_text(only_text(value, PROMPT_KEYS, what), what)}]
    if isinstance(value, list | dict):
        turns = read_messages(value, what) if isinstance(value, list) else [read_message(value, what)]
        if templated and turns and turns[-1]["role"] == "assistant" and _NO_ANSWER.fullmatch(turns[-1]["content"]):
            turns.pop()
    elif "<extra_id_1>Assistant\n" in (text := read_text(value, what)):
        turns = _steerlm_turns(text)
    elif _starts_transcript(text):
        turns = read_transcript(text, what)
        if not turns[-1]["content"] and turns[-1]["role"] == "assistant":
            turns.pop()
    elif text.endswith(("]", "}")) and _spells_messages(text):
        raise Reject("messages_as_text", f"{what} is text that spells a list or a message: write it as such")
    else:
        return [{"role": "user", "content": text}]
    if not turns:
        raise Reject("empty_prompt", f"{what} is empty")
    if turns[-1]["role"] == "assistant" and not continued:
        raise Reject("prompt_ends_with_assistant", f"{what} ends with an assistant turn: what do the answers answer?")
    return turns


def _spells_messages(text: str) -> bool:
    """Whether a text is the JSON of a message, of several, or of a list of texts, as LMSYS has a user's questions."""
    if not text.startswith(("[", "{")):
        return False
    found = from_json(text)
    is_message = isinstance(found, dict) and ({"role", "content"} <= found.keys() or "messages" in found)
    return is_message or is_text_list(found) or bool(text.endswith("]") and _MESSAGES_AS_TEXT.match(text))


def _steerlm_turns(text: str) -> list[Message]:
    r"""The turns of "Q\n<extra_id_1>Assistant\nA\n<extra_id_1>User\nR", as HelpSteer has them."""
    first, *rest = _STEERLM_TURN.split(text)
    turns: list[Message] = [{"role": "user", "content": first.strip()}]
    for speaker, content in zip(rest[::2], rest[1::2], strict=True):
        turns.append({"role": "user" if speaker == "User" else "assistant", "content": content.strip()})
    if not turns[0]["content"] and len(turns) > 1 and turns[1]["role"] == "user":
        turns.pop(0)  # a marker before the first turn as well
    return turns


def unwrap_messages(value: object) -> object:
    """The list of messages of an object that holds one, as in OpenAI's preference format, or of a text that a chat
    template has rendered; all else as it is."""
    if isinstance(value, str):
        return messages_of(value) or value
    return value["messages"] if isinstance(value, dict) and isinstance(value.get("messages"), list) else value


def is_text_list(value: object) -> TypeGuard[list[str]]:
    """Whether `value` is a list of texts, and not empty."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def strip_markers(sides: Sequence[object]) -> Sequence[object]:
    """Answers without the marker "Assistant:", if there are several and all are texts that start with it."""
    texts = [_MARKER.sub("", side, count=1) for side in sides if isinstance(side, str) and _MARKER.match(side)]
    return texts if len(texts) == len(sides) > 1 else sides


def read_answer(value: object, what: str) -> str:
    """One answer: text, an assistant's message (alone or as a list), or an object with one text in it.

    A list of several messages is an answer of several turns, which begins with the assistant's.
    """
    value = unwrap_messages(value) if isinstance(value, dict) else value
    if isinstance(value, list):
        if len(value) > 1 and role_of(value[0]) == "assistant":
            return answer_of(read_messages(value, what))
        if len(value) != 1:
            reason = "several_turns" if value else "empty_answer"
            begins = f" that begins with the {role}'s" if value and (role := role_of(value[0])) else ""
            raise Reject(reason, f"{what} is a list of {len(value)} items{begins}, not of an assistant's messages")
        value = value[0]
        if not isinstance(value, dict):
            raise Reject("not_messages", f"{what} is a list of {describe_type(value)}, not of a message")
    if isinstance(value, dict):
        if value.get("role") is not None or value.get("from") is not None or item_role(value):
            turn = read_message(value, what)
            if turn["role"] != "assistant":
                raise Reject("bad_role", f"{what} is a {turn['role']} message")
            return answer_of([turn])
        for key in ("completion", "message", "content"):  # OpenAI's choices, Gemini's candidates
            if isinstance(value.get(key), dict):
                return read_answer(value[key], what)
        value = only_text(value, ANSWER_KEYS, what)
    text = trim(without_end(read_text(value, what)))
    if _MESSAGES_AS_TEXT.match(text):
        raise Reject("messages_as_text", f"{what} is text that spells a list of messages: write it as a list")
    return text


def only_text(value: Mapping[str, object], keys: tuple[str, ...], what: str) -> str:
    """The text of an object that has exactly one under any of `keys`."""
    texts = [text for key in keys if isinstance(text := value.get(key), str)]
    if len(texts) != 1:
        raise Reject("not_text", f"{what} is an object with {len(texts)} of the keys {', '.join(keys)}")
    return texts[0]


def is_conversation(value: object) -> TypeGuard[list[object]]:
    """Whether `value` is a list of messages that holds more than an answer."""
    return isinstance(value, list) and (len(value) > 1 or bool(value and role_of(value[0]) not in ("assistant", None)))


def ends_with_answer(value: object) -> TypeGuard[list[object]]:
    """Whether `value` is a list of several messages, of which the last is the assistant's."""
    return isinstance(value, list) and len(value) > 1 and role_of(value[-1]) == "assistant"


def role_of(value: object) -> str | None:
    """The role of a message; None for what is no message."""
    name = (value.get("role") or value.get("from") or item_role(value)) if isinstance(value, dict) else None
    return ROLES.get(name.strip().lower()) if isinstance(name, str) else None


def split_conversations(
    conversations: Sequence[list[Message]], names: Sequence[str]
) -> tuple[list[Message], list[str]]:
    """The prompt that conversations share, and the answer of each, which may have several turns.

    The prompt ends before the assistant turn in which they differ; where all go on with a turn of the user or a tool,
    before that. Of one conversation, or of equal ones, the answer begins with the assistant's last turn.
    """
    first = conversations[0]
    turns_of_each = enumerate(zip(*conversations, strict=False))
    differing = (n for n, turns in turns_of_each if turns.count(turns[0]) < len(turns))
    shared = next(differing, min(map(len, conversations)))
    if all(len(conversation) == shared for conversation in conversations):
        shared = max((n for n, turn in enumerate(first) if turn["role"] == "assistant"), default=shared)
    answered = any(len(turns) == shared or turns[shared]["role"] == "assistant" for turns in conversations)
    while answered and shared and first[shared - 1]["role"] == "assistant":
        shared -= 1
    rests = [conversation[shared:] for conversation in conversations]
    for rest, name in zip(rests, names, strict=True):
        if not rest:
            raise Reject("no_answer", f"{name} ends where the answer should begin")
    several = any(len(rest) > 1 or rest[0]["role"] != "assistant" for rest in rests)
    if several and not any(turn["role"] == "user" for turn in first[:shared]):
        if len(conversations) == 1:
            raise Reject("empty_prompt", f"{names[0]} has no turn of the user before the answer")
        raise Reject("different_prompts", f"{' and '.join(names)} do not begin with the same prompt")
    return first[:shared], [answer_of(rest) for rest in rests]
