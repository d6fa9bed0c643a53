"""Text that a chat template has already rendered, back to messages, so that it is not put into a template again."""

import re
from collections.abc import Iterator
from typing import Final

_START: Final = re.compile(r"\s*(<s>|<\|begin_of_text\|>|<bos>|<\|endoftext\|>)?\s*")
# ChatML (Qwen, Phi 4), Llama 3, Gemma, and Zephyr (Phi 3, Tulu)
_TURN: Final = re.compile(
    r"(?:<s>)?<\|im_start\|>\s*(\w+)\s*?(?:<\|im_sep\|>|\n|$)"
    r"|<\|start_header_id\|>\s*(\w+)\s*<\|end_header_id\|>\s*"
    r"|<start_of_turn>(\w+)(?:\n|$)"
    r"|<\|(system|user|assistant)\|>\s*?(?:\n|$)"
)
_ANSWERING: Final = ("assistant", "model")
_INSTRUCTION: Final = re.compile(r"(?:<s>)?\s*\[INST\](.*?)\[/INST\](.*?)(?=(?:<s>)?\s*\[INST\]|\Z)", re.DOTALL)
_SYSTEM: Final = re.compile(r"\s*<<SYS>>(.*?)<</SYS>>", re.DOTALL)  # Llama 2
_END: Final = re.compile(
    r"(\s*(<\|im_end\|>|<\|eot_id\|>|<end_of_turn>|<\|end\|>|<\|endoftext\|>|<\|end_of_text\|>|</s>|<eos>))+\s*\Z"
)


def without_end(text: str) -> str:
    """An answer without the marker of an assistant's turn before it, and without end tokens after it."""
    if "<" not in text:
        return text
    turn = _TURN.match(text)
    start = turn.end() if turn and _role(turn) in _ANSWERING else 0
    return _END.sub("", text[start:])


def end_marker(text: str) -> str:
    """The end tokens that `without_end` takes from a text; empty for text without any."""
    found = _END.search(text) if "<" in text else None
    return found[0].strip() if found else ""


def messages_of(text: str) -> list[dict[str, str]] | None:
    """The messages of a rendered conversation; None for other text.

    The text must begin with the marker of a turn of the user or the system. A last turn of the assistant without
    content is the place of the answer.
    """
    start = _START.match(text)
    begin = start.end() if start else 0
    if text.startswith("[INST]", begin):
        return list(_instructions(text))
    first = _TURN.match(text, begin)
    if not first or _role(first) in _ANSWERING:
        return None
    turns = list(_TURN.finditer(text, begin))
    ends = [turn.start() for turn in turns[1:]] + [len(text)]
    return [
        {"role": _role(turn), "content": _END.sub("", text[turn.end() : end])}
        for turn, end in zip(turns, ends, strict=True)
    ]


def _role(turn: re.Match[str]) -> str:
    return turn[turn.lastindex or 0].lower()


def _instructions(text: str) -> Iterator[dict[str, str]]:
    for question, answer in _INSTRUCTION.findall(text):
        system = _SYSTEM.match(question)
        if system:
            yield {"role": "system", "content": system[1]}
        yield {"role": "user", "content": question[system.end() :] if system else question}
        yield {"role": "assistant", "content": _END.sub("", answer)}
