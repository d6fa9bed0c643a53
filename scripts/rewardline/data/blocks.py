"""Messages whose content is in blocks of other kinds than text, as Anthropic's and Google's APIs write them.

They become messages in OpenAI's form: calls of tools beside the content, and each result of a tool as a turn.
Sources: https://docs.anthropic.com/en/api/messages, https://ai.google.dev/api/caching#Content
"""

import json
from collections.abc import Mapping
from typing import Final

TEXTS: Final = ("text", "input_text", "output_text")
"""Types of blocks with text; `input_text` and `output_text` are those of OpenAI's responses."""
_TYPES: Final = ("tool_use", "tool_result", "thinking")
_KEYS: Final = ("functionCall", "function_call", "functionResponse", "function_response", "thought")
Block = Mapping[str, object]


def chat_messages(value: object) -> list[object]:
    """A message as one or several in OpenAI's form; what has no such blocks stays as it is."""
    key = next(
        (key for key in ("content", "parts") if isinstance(value, dict) and isinstance(value.get(key), list)), ""
    )
    if not key or not isinstance(value, dict) or not any(map(_is_other, value[key])):
        return [value]
    messages: list[object] = []
    others = {name: item for name, item in value.items() if name != key}
    texts: list[object] = []
    calls: list[object] = []
    thoughts: list[str] = []

    def close() -> None:
        if texts or calls or thoughts:
            content: dict[str, object] = {"content": [*texts]} if texts else {}
            content |= {"tool_calls": [*calls]} if calls else {}
            content |= {"reasoning_content": "\n\n".join(thoughts)} if thoughts else {}
            messages.append({**others, **content})
        for found in (texts, calls, thoughts):
            found.clear()

    for block in value[key]:
        if not isinstance(block, dict):
            texts.append(block)
        elif (result := _result(block)) is not None:
            close()
            messages.append(result)
        elif (call := _call(block)) is not None:
            calls.append(call)
        elif (thought := _thought(block)) is not None:
            thoughts.append(thought)
        else:
            texts.append(block)
    close()
    return messages


def _is_other(block: object) -> bool:
    return isinstance(block, dict) and (block.get("type") in _TYPES or any(block.get(key) for key in _KEYS))


def _call(block: Block) -> object:
    """A call of a tool; None for another block."""
    if block.get("type") == "tool_use":
        function = {"name": block.get("name"), "arguments": block.get("input")}
        return {"id": block.get("id"), "type": "function", "function": function}
    found = block.get("functionCall") or block.get("function_call")
    if not isinstance(found, dict):
        return None
    return {"type": "function", "function": {"name": found.get("name"), "arguments": found.get("args")}}


def _result(block: Block) -> object:
    """The turn of a tool; None for another block."""
    if block.get("type") == "tool_result":
        content = block.get("content")
        return {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": "" if content is None else content}
    found = block.get("functionResponse") or block.get("function_response")
    if not isinstance(found, dict):
        return None
    text = json.dumps(found.get("response"), ensure_ascii=False)
    return {"role": "tool", "name": found.get("name"), "content": text}


def _thought(block: Block) -> str | None:
    """Reasoning; None for another block."""
    text = (
        block.get("thinking")
        if block.get("type") == "thinking"
        else block.get("text")
        if block.get("thought")
        else None
    )
    return text if isinstance(text, str) else None
