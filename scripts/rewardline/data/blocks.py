"""Messages in blocks of other kinds than text, as Anthropic's and Google's APIs write them, and items of OpenAI's
responses.

They become messages of OpenAI's chats: calls of tools beside the content, and each result of a tool as a turn.
Sources: https://docs.anthropic.com/en/api/messages, https://ai.google.dev/api/caching#Content,
https://platform.openai.com/docs/api-reference/responses/object
"""

import json
from collections.abc import Mapping, Sequence
from typing import Final

TEXTS: Final = ("text", "input_text", "output_text")
"""Types of blocks with text; `input_text` and `output_text` are those of OpenAI's responses."""
ITEM_ROLES: Final = {"reasoning": "assistant", "function_call": "assistant", "function_call_output": "tool"}
"""The role of each item of a response that has none of its own, by its type."""
_ORDER: Final = ("reasoning_content", "content", "tool_calls")
_TYPES: Final = ("tool_use", "tool_result", "thinking")
_KEYS: Final = ("functionCall", "function_call", "functionResponse", "function_response", "thought")
Block = Mapping[str, object]


def chat_form(values: Sequence[object]) -> list[tuple[int, object]]:
    """Messages in OpenAI's form, each with the number of its own among `values`, from 1.

    Reasoning, text and calls that are items of their own are one turn of the assistant.
    """
    if all(isinstance(value, dict) and "role" in value and type(value.get("content")) is str for value in values):
        return [*enumerate(values, 1)]  # as most are
    found: list[tuple[int, object]] = []
    joins = False
    for n, value in enumerate(values, 1):
        is_item = item_role(value) is not None
        for message in chat_messages(value):
            turn = _joined(found[-1][1], message) if found and (is_item or joins) else None
            if turn is not None:
                found.pop()
            found.append((n, message if turn is None else turn))
        joins = is_item
    return found


def item_role(value: object) -> str | None:
    """The role of an item of a response without one of its own; None for what is none."""
    if not isinstance(value, dict) or value.get("role") is not None or value.get("from") is not None:
        return None
    return ITEM_ROLES.get(str(value.get("type")))


def _joined(last: object, message: object) -> object:
    """Both as one turn of the assistant: reasoning, then text, then calls; None if they are not one."""
    if not isinstance(last, dict) or not isinstance(message, dict):
        return None
    if last.get("role") != "assistant" or message.get("role") != "assistant":
        return None
    before, after = ([k for k, key in enumerate(_ORDER) if turn.get(key)] for turn in (last, message))
    end, start = max(before, default=0), min(after, default=0)
    if end > start or end == start == _ORDER.index("content"):
        return None
    turn = {**last, **message}
    if end == start and before and after:
        key = _ORDER[end]
        one, other = last[key], message[key]
        if type(one) is not type(other):
            return None
        turn[key] = one + ("\n\n" if isinstance(one, str) else []) + other
    return turn


def chat_messages(value: object) -> list[object]:
    """A message as one or several in OpenAI's form; what has no such blocks stays as it is."""
    if isinstance(value, dict) and item_role(value):
        return _of_item(value)
    key = next((key for key in ("content", "parts") if isinstance(value, dict) and _list(value.get(key))), "")
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
            texts += [{"text": block["text"]}] if block.get("text") else []
        elif (thought := _thought(block)) is not None:
            thoughts.append(thought)
        else:
            texts.append(block)
    close()
    return messages


def chat_tools(tools: Sequence[Block]) -> list[Block]:
    """Tools of Anthropic's and Google's APIs and of OpenAI's responses as its chats have them; others as they are."""
    found: list[Block] = []
    for tool in tools:
        declared = _list(tool.get("functionDeclarations") or tool.get("function_declarations"))
        if declared:
            found += [{"type": "function", "function": one} for one in declared]
        elif "name" in tool and "input_schema" in tool:
            function = {key: tool[key] for key in ("name", "description") if key in tool}
            found.append({"type": "function", "function": {**function, "parameters": tool["input_schema"]}})
        elif tool.get("type") == "function" and "name" in tool:
            found.append({"type": "function", "function": {key: tool[key] for key in tool if key != "type"}})
        else:
            found.append(tool)
    return found


def _of_item(item: Block) -> list[object]:
    """The message of an item of a response; none for reasoning without text."""
    if item["type"] == "function_call_output":
        return [{"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")}]
    if item["type"] == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments") or {}}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        return [{"role": "assistant", "tool_calls": [call]}]
    parts = [part for key in ("summary", "content") for part in _list(item.get(key)) if isinstance(part, dict)]
    text = "\n\n".join(str(part["text"]) for part in parts if part.get("text"))
    return [{"role": "assistant", "reasoning_content": text}] if text else []


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _is_other(block: object) -> bool:
    return isinstance(block, dict) and (block.get("type") in _TYPES or any(block.get(key) for key in _KEYS))


def _call(block: Block) -> object:
    """A call of a tool; None for another block."""
    if block.get("type") == "tool_use":
        function = {"name": block.get("name"), "arguments": block.get("input") or {}}
        return {"id": block.get("id"), "type": "function", "function": function}
    found = block.get("functionCall") or block.get("function_call")
    if not isinstance(found, dict):
        return None
    return {"type": "function", "function": {"name": found.get("name"), "arguments": found.get("args") or {}}}


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
    if block.get("type") == "thinking":
        text = block.get("thinking")
        if isinstance(text, list) and all(isinstance(part, dict) for part in text):  # as Mistral's
            text = "".join(str(part.get("text") or "") for part in text)
    else:
        text = block.get("text") if block.get("thought") else None
    return text if isinstance(text, str) else None
