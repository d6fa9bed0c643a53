"""Turns of conversations: answers of several turns, and what chat templates read besides texts.

Every turn has a text, with calls of tools written out, by which prompts and answers are compared and shown, and which
plain text and templates without tools get. What the row has instead is in the turn's `native`.
"""

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from rewardline.data.schema import Message

SPEAKERS: Final = {
    "system": "System", "developer": "System", "user": "Human", "tool": "Human", "assistant": "Assistant",
}  # fmt: skip
"""How plain text names each role."""
INSTRUCTING: Final = ("system", "developer")
"""The roles of instructions."""


class Trajectory(str):
    """An answer that is more than one text: the turns after its prompt. As a `str` it is their plain text.

    Attributes:
        turns: its messages, at least one.
    """

    __slots__ = ("turns",)
    turns: tuple["Message", ...]

    def __new__(cls, turns: Sequence["Message"]) -> "Trajectory":
        """The answer that consists of `turns`."""
        first, *rest = turns
        text = first["content"] + "".join(f"\n\n{SPEAKERS[turn['role']]}: {turn['content']}" for turn in rest)
        answer = super().__new__(cls, text)
        answer.turns = tuple(turns)
        return answer

    def __getnewargs__(self) -> tuple[Sequence["Message"]]:  # type: ignore[override]  # for copies
        return (self.turns,)


def answer_of(turns: Sequence["Message"]) -> str:
    """The answer of these turns: a text, if that is all that it is."""
    (first, *rest) = turns
    return Trajectory(turns) if rest or first["role"] != "assistant" or "native" in first else first["content"]


def turns_of(answer: str) -> Sequence["Message"]:
    """The turns of an answer."""
    return answer.turns if isinstance(answer, Trajectory) else ({"role": "assistant", "content": answer},)


class TemplateInputs(NamedTuple):
    """What a chat template gets besides messages: JSON schemas of `tools`, and variables such as `enable_thinking`."""

    tools: Sequence[object] = ()
    variables: Mapping[str, object] = MappingProxyType({})

    def __bool__(self) -> bool:
        return bool(self.tools or self.variables)


NO_INPUTS: Final = TemplateInputs()


def pack(prompt: Sequence["Message"], answers: tuple[str, str], inputs: TemplateInputs) -> str | None:
    """What the texts of a pair do not say, as JSON; None if they say it all.

    An object with `tools`, `chat_template_kwargs`, the turns of `prompt`, `chosen` and `rejected`, each if it is there.
    """
    found: dict[str, object] = {}
    if inputs.tools:
        found["tools"] = inputs.tools
    if inputs.variables:
        found["chat_template_kwargs"] = inputs.variables
    if any("native" in turn for turn in prompt):
        found["prompt"] = list(prompt)
    for name, answer in zip(("chosen", "rejected"), answers, strict=True):
        if isinstance(answer, Trajectory):
            found[name] = answer.turns
    # In the order of the row, which templates print.
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")) if found else None


def packed_inputs(packed: str | None) -> str:
    """The inputs of a chat template among what `pack` gives, by which equal texts differ; empty without any."""
    found = {} if packed is None else json.loads(packed)
    inputs = {name: found[name] for name in ("tools", "chat_template_kwargs") if name in found}
    return json.dumps(inputs, sort_keys=True) if inputs else ""


class UnpackedPair(NamedTuple):
    """The texts of a pair, with all that its row has."""

    prompt: list["Message"]
    chosen: str
    rejected: str
    inputs: TemplateInputs


def unpack(prompt: list["Message"], chosen: str, rejected: str, packed: str | None) -> UnpackedPair:
    """A pair as it was given to `pack`, from its texts and the result."""
    if packed is None:
        return UnpackedPair(prompt, chosen, rejected, NO_INPUTS)
    found = json.loads(packed)
    sides = [
        Trajectory(found[name]) if name in found else text
        for name, text in (("chosen", chosen), ("rejected", rejected))
    ]
    inputs = TemplateInputs(found.get("tools", ()), found.get("chat_template_kwargs", {}))
    return UnpackedPair(found.get("prompt", prompt), sides[0], sides[1], inputs)
