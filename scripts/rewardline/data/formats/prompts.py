"""The prompt of a row, and the split of complete conversations into prompt and answer."""

from collections.abc import Iterator, Sequence

from rewardline.data.conversation import (
    Reject,
    ends_with_answer,
    is_conversation,
    is_transcript,
    read_answer,
    read_messages,
    read_prompt,
    read_text,
    split_conversations,
    strip_markers,
    unwrap_messages,
)
from rewardline.data.formats.fields import EMPTY, RowFields, is_history
from rewardline.data.schema import Message


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
    turns = read_prompt(value)
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
    system = row.optional("system")
    if system is None or not (text := read_text(system, "system")):
        return turns
    if turns and turns[0]["role"] == "system":
        if turns[0]["content"] == text:
            return turns
        raise Reject("ambiguous_field", "the prompt has a system message and the row has a system prompt as well")
    return [{"role": "system", "content": text}, *turns]


def split_sides(
    prompt: list[Message] | None, first: object, second: object, names: tuple[str, str]
) -> tuple[list[Message], str, str]:
    """Prompt and texts of two sides, each an answer to `prompt` or a complete conversation."""
    first, second = unwrap_messages(first), unwrap_messages(second)
    if is_conversation(first) or is_conversation(second):
        return _split_conversations(prompt, first, second, names)
    first, second = strip_markers(first, second)
    if is_transcript(first) and is_transcript(second):
        raise Reject("whole_dialogue", f"{names[0]} and {names[1]} are complete transcripts: use `format: transcript`")
    if prompt is None:
        raise Reject("missing_field", "the row has no prompt, and its answers are not complete conversations")
    return prompt, read_answer(first, names[0]), read_answer(second, names[1])


def _split_conversations(
    prompt: list[Message] | None, first: object, second: object, names: tuple[str, str]
) -> tuple[list[Message], str, str]:
    conversations = [side for side in (first, second) if is_conversation(side)]
    if prompt is None and len(conversations) == 1:
        prompt = _before_answer(conversations[0])
    sides = _conversation(prompt, first, names[0]), _conversation(prompt, second, names[1])
    shared, one, two = split_conversations(*sides, names)
    if prompt is not None:
        turns = [turn for turn in prompt if turn["role"] != "system"]
        if not any(shared[n : n + len(turns)] == turns for n in range(len(shared))):
            raise Reject("different_prompts", f"the prompt is not in what {names[0]} and {names[1]} share")
        if prompt[0]["role"] == "system" and shared[0]["role"] != "system":
            shared.insert(0, prompt[0])
    return shared, one, two


def _before_answer(conversation: Sequence[object]) -> list[Message] | None:
    """What comes before the last turn, if that is an answer: the prompt of an answer without one."""
    turns = read_messages(conversation, "the conversation")
    return turns[:-1] if len(turns) > 1 and turns[-1]["role"] == "assistant" else None


def _conversation(prompt: list[Message] | None, side: object, name: str) -> list[Message]:
    """A side as a conversation that begins with the prompt."""
    if not is_conversation(side):
        return [*(prompt or ()), {"role": "assistant", "content": read_answer(side, name)}]
    turns = read_messages(side, name)
    return [*prompt, *turns] if prompt and turns and turns[0]["role"] == "assistant" else turns
