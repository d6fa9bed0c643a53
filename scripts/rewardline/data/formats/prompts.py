"""The prompt of a row with what a chat template gets besides it, and the split of complete conversations."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from rewardline.core.template_variables import RESERVED
from rewardline.data.blocks import chat_tools
from rewardline.data.conversation import (
    Reject,
    describe_type,
    ends_with_answer,
    from_json,
    is_conversation,
    is_transcript,
    read_answer,
    read_message,
    read_messages,
    read_prompt,
    read_text,
    split_conversations,
    strip_markers,
    unwrap_messages,
)
from rewardline.data.formats.fields import EMPTY, RowFields, is_history
from rewardline.data.schema import Message
from rewardline.data.turns import INSTRUCTING, NO_INPUTS, TemplateInputs, answer_of, turns_of

LONGEST_NAME: Final = 40
"""Characters of the name of a system."""
_ID: Final = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z_])[\w.:/#@+-]{3,}|[0-9]{4,}|\w+([_/-]\w+)+|[0-9a-fA-F]{12,}")
"""A word as ids and names of models are: letters with digits, parts joined by hyphens, long numbers."""
_VERSION: Final = re.compile(r"(?=.*[0-9])(([^\W_a-z]|[a-z]*[0-9])[\w.:/-]*( |$)){1,5}(\([^()]*\))?")
"""A few words, none of which begins as those of a sentence do, with a number among them: the name of a version."""


def are_ids(texts: Iterable[str]) -> bool:
    """Whether all texts are words as ids and names of models are."""
    return all(_ID.fullmatch(text) for text in texts)


def is_name(text: str) -> bool:
    """Whether a text by itself is the id of a system, or its name with a version, and no system prompt."""
    is_version = len(text) <= LONGEST_NAME and not text.isupper() and text[-1:] not in (*".!?:",)
    return are_ids([text]) or (is_version and _VERSION.fullmatch(text) is not None)


def explicit_prompt(row: RowFields, sides: Sequence[object] = ()) -> list[Message] | None:
    """The row's prompt, with Alpaca's `input` and `history`.

    None if the row has no prompt, or an empty one beside complete conversations.
    """
    value = row.optional("prompt")
    if value is None and not row.present("prompt"):
        return None
    if value in EMPTY and any(is_conversation(side) for side in sides):
        return None
    path = row.path("prompt")
    if ends_with_answer(value) and path == "messages" and not row.mapped("prompt"):
        return None  # a conversation with an answer
    turns = read_prompt(value, continued=bool(sides) and all(map(is_conversation, sides)))
    record = row.record
    if path == "instruction" and record.get("input") not in EMPTY and (text := read_text(record["input"], "input")):
        turns[-1]["content"] += "\n" + text
    history = record.get("history")
    if path in record and path != "history" and (path == "instruction" or is_history(history)):
        turns[:0] = _history_turns(history) if history not in EMPTY else ()
    return turns


def required_prompt(row: RowFields) -> list[Message]:
    """The row's prompt; rejects a row without one."""
    row.required("prompt")
    return explicit_prompt(row) or []


def _history_turns(value: object) -> Iterator[Message]:
    for n, turn in enumerate(value if isinstance(value, list) else [value], 1):
        if not isinstance(turn, list) or len(turn) != 2:
            raise Reject("not_messages", f"turn {n} of history is not a list of a question and its answer")
        yield {"role": "user", "content": read_text(turn[0], f"the question of turn {n} of history")}
        yield {"role": "assistant", "content": read_text(turn[1], f"the answer of turn {n} of history")}


def with_system_prompt(turns: list[Message], row: RowFields) -> list[Message]:
    """The turns of a prompt after the row's system prompt, if it has one."""
    system = row.optional("system") if row.has_attributes else None
    if isinstance(system, list | dict):  # in blocks, or as a message
        held = system if isinstance(system, dict) else {"content": system}
        system = read_message({**held, "role": "system"}, "system")["content"]
    if system is None or not (text := read_text(system, "system")):
        return turns
    if turns and turns[0]["role"] in INSTRUCTING:
        if turns[0]["content"] == text:
            return turns
        raise Reject("ambiguous_field", "the prompt has a system message and the row has a system prompt as well")
    return [{"role": "system", "content": text}, *turns]


def read_inputs(row: RowFields) -> tuple[TemplateInputs, str]:
    """The tools and the variables that a row has for chat templates, as objects or as JSON; and what is ignored.

    A value of another type is ignored where `fields` does not map it: then it merely has that name.
    """
    if not row.present("tools") and not row.present("chat_template_kwargs"):
        return NO_INPUTS, ""
    elsewhere = [path for name, path in row.settings.fields.items() if name != "tools"]  # tools as the system prompt
    tools = None if row.path("tools") in elsewhere else from_json(row.optional("tools"))
    variables = from_json(row.optional("chat_template_kwargs"))
    if isinstance(tools, list):
        tools = [from_json(tool) for tool in tools]
    are_tools = isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)
    ignored = ""
    for name, value, is_read, kind in (
        ("tools", tools, are_tools, "a list of JSON schemas"),
        ("chat_template_kwargs", variables, isinstance(variables, dict), "an object"),
    ):
        if not is_read and value not in (None, "", []):
            if row.mapped(name):
                raise Reject(f"bad_{name}", f"{row.path(name)} is {describe_type(value)}, not {kind}")
            ignored = ignored or f"{name} ignored, as it is not {kind},"
    found = variables if isinstance(variables, dict) else {}
    if taken := RESERVED & found.keys():
        raise Reject(
            "bad_chat_template_kwargs", f"chat_template_kwargs has {', '.join(sorted(taken))}, which is set here"
        )
    return TemplateInputs(chat_tools(tools) if are_tools and isinstance(tools, list) else (), found), ignored


def split_sides(
    prompt: list[Message] | None, sides: Sequence[object], names: Sequence[str]
) -> tuple[list[Message], list[str]]:
    """The prompt and the answer of each side, each an answer to `prompt` or a complete conversation."""
    sides = [unwrap_messages(side) for side in sides]
    if any(map(is_conversation, sides)):
        return _split_conversations(prompt, sides, names)
    sides = strip_markers(sides)
    if all(map(is_transcript, sides)):
        raise Reject("whole_dialogue", f"{' and '.join(names)} are complete transcripts: use `format: transcript`")
    if prompt is None:
        raise Reject("missing_field", "the row has no prompt, and its answers are not complete conversations")
    return prompt, [read_answer(side, name) for side, name in zip(sides, names, strict=True)]


def _split_conversations(
    prompt: list[Message] | None, sides: Sequence[object], names: Sequence[str]
) -> tuple[list[Message], list[str]]:
    conversations = [side for side in sides if is_conversation(side)]
    if prompt is None and len(conversations) < len(sides):
        prompt = _before_answer(conversations[0])
    complete = [_conversation(prompt, side, name) for side, name in zip(sides, names, strict=True)]
    if prompt and len(sides) == 1 and complete[0][: len(prompt)] == prompt and len(complete[0]) > len(prompt):
        return prompt, [answer_of(complete[0][len(prompt) :])]
    shared, answers = split_conversations(complete, names)
    if prompt is not None:
        turns = [turn for turn in prompt if turn["role"] not in INSTRUCTING]
        if not any(shared[n : n + len(turns)] == turns for n in range(len(shared))):
            raise Reject("different_prompts", f"the prompt is not in what {' and '.join(names)} share")
        if prompt[0]["role"] in INSTRUCTING and shared[0]["role"] not in INSTRUCTING:
            shared.insert(0, prompt[0])
    return shared, answers


def _before_answer(conversation: Sequence[object]) -> list[Message] | None:
    """What comes before the last turn, if that is an answer: the prompt of an answer without one."""
    turns = read_messages(conversation, "the conversation")
    return turns[:-1] if len(turns) > 1 and turns[-1]["role"] == "assistant" else None


def _conversation(prompt: list[Message] | None, side: object, name: str) -> list[Message]:
    """A side as a conversation that begins with the prompt."""
    if not is_conversation(side):
        return [*(prompt or ()), *turns_of(read_answer(side, name))]
    turns = read_messages(side, name)
    return [*prompt, *turns] if prompt and turns and _continues(prompt, turns) else turns


def _continues(prompt: list[Message], turns: list[Message]) -> bool:
    """Whether turns come after a prompt, rather than begin with it."""
    if turns[0]["role"] in ("assistant", "tool"):
        return True
    spoken = [[turn for turn in part if turn["role"] not in INSTRUCTING] for part in (prompt, turns)]
    return prompt[-1]["role"] == "assistant" and spoken[1][: len(spoken[0])] != spoken[0]
