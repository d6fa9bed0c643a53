"""The formats whose row is one pair: what is better and what is worse is said by the fields' names."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from rewardline.data.conversation import (
    Message,
    Reject,
    alternate,
    answer,
    clean,
    dialogue,
    is_conversation,
    is_dialogue,
    is_plain,
    messages,
    opened,
    part,
    prompt,
    speaker,
    unmarked,
)
from rewardline.data.formats.fields import EMPTY, Fields, Record, is_history
from rewardline.data.formats.options import Options

SIDES: Final = ("chosen", "rejected")
HEADINGS: Final = ("###The instruction to evaluate:", "###Response to evaluate:")


class Draft(NamedTuple):
    """A pair before the checks that all formats share; its texts may still be empty."""

    prompt: list[Message]
    chosen: str
    rejected: str
    margin: float | None = None
    confidence: float | None = None
    """How sure it is that `chosen` is better, in [0, 1]; null: as sure as the row is."""
    node: str = ""
    """Which of its prompts, in a row or group that has several."""
    sources: tuple[str, str] = ("", "")
    """Who wrote `chosen` and `rejected`, as far as the row says it of them by itself."""
    places: tuple[int, int, int] = (0, 0, 2)
    """Positions of `chosen` and `rejected` in the row, and how many answers it has; see `Place`."""


Drafts = Iterator[Draft | Reject]


def transcript(record: Record, fields: Fields, _options: Options) -> Drafts:
    """Two whole dialogues in text."""
    chosen, rejected = (dialogue(clean(fields.required(record, name), name), name) for name in SIDES)
    yield Draft(*part(chosen, rejected, SIDES))


def pairs(record: Record, fields: Fields, options: Options) -> Drafts:
    """A prompt of its own, a better and a worse answer."""
    fields.required(record, "prompt")
    yield from implicit(record, fields, options)


def implicit(record: Record, fields: Fields, _options: Options) -> Drafts:
    """Two conversations as messages; the prompt is what they share, or a field of its own.

    Where only the rejected answer has a name, a conversation that ends with an answer is the chosen side.
    """
    answered = not fields.present(record, "chosen") and is_answered(fields.optional(record, "conversation"))
    side = "conversation" if answered else "chosen"
    sides = [opened(fields.required(record, name)) for name in (side, "rejected")]
    if all(is_plain(texts) and len(texts) % 2 == 0 for texts in sides) and sides[0][0] == sides[1][0]:
        sides = [alternate(texts) for texts in sides]
    shared = explicit_prompt(record, fields, sides)
    yield Draft(*compare(shared, sides[0], sides[1], SIDES))


def judge(record: Record, fields: Fields, _options: Options) -> Drafts:
    """Two prompts to a judge, in which instruction and response stand under headings."""
    found = [_sections(clean(fields.required(record, name), name), name) for name in SIDES]
    (instruction, chosen), (other, rejected) = found
    if instruction != other:
        raise Reject("different_prompts", "chosen and rejected do not have the same instruction")
    if "\n\nAssistant:" in instruction and not is_dialogue(instruction):
        instruction = "Human: " + instruction  # a dialogue that lost its first marker
    yield Draft(prompt(instruction), chosen, rejected)


def _sections(text: str, name: str) -> tuple[str, str]:
    _, start, rest = text.partition(HEADINGS[0])
    instruction, heading, rest = rest.partition("\n" + HEADINGS[1])
    if not start or not heading:
        raise Reject("not_judge", f'{name} has no "{HEADINGS[0]}" and "{HEADINGS[1]}"')
    return instruction.strip(), rest.partition("\n###")[0].strip()


def explicit_prompt(record: Record, fields: Fields, sides: Sequence[Any] = ()) -> list[Message] | None:
    """The row's prompt with Alpaca's `input` and `history`; None if it has none, or none beside whole conversations."""
    value = fields.optional(record, "prompt")
    if value is None and not fields.present(record, "prompt"):
        return None
    if value in EMPTY and any(is_conversation(side) for side in sides):
        return None
    place = fields.path(record, "prompt")
    if is_answered(value) and place == "messages" and not fields.mapped("prompt"):
        return None  # a conversation with an answer
    result = prompt(value)
    extra = record.get("input")
    if place == "instruction" and extra not in EMPTY and (text := clean(extra, "input")):
        result[-1]["content"] += "\n" + text
    history = record.get("history")
    if place in record and place != "history" and (place == "instruction" or is_history(history)):
        result[:0] = _history(history) if history not in EMPTY else ()
    return result


def with_system(turns: list[Message], record: Record, fields: Fields) -> list[Message]:
    """The turns of a prompt after the row's system prompt, if it has one."""
    system = fields.optional(record, "system")
    if system is None or not (text := clean(system, "system")):
        return turns
    if turns and turns[0]["role"] == "system":
        if turns[0]["content"] == text:
            return turns
        raise Reject("ambiguous_field", "the prompt has a system message and the row has a system prompt as well")
    return [{"role": "system", "content": text}, *turns]


def _history(value: Any) -> Iterator[Message]:
    for n, turn in enumerate(value if isinstance(value, list) else [value], 1):
        if not isinstance(turn, list) or len(turn) != 2:
            raise Reject("not_messages", f"turn {n} of history is not a list of a question and its answer")
        yield {"role": "user", "content": clean(turn[0], f"the question of turn {n} of history")}
        yield {"role": "assistant", "content": clean(turn[1], f"the answer of turn {n} of history")}


def compare(
    shared: list[Message] | None, first: Any, second: Any, names: tuple[str, str]
) -> tuple[list[Message], str, str]:
    """Prompt and texts of two sides, each an answer to the prompt `shared` or a whole conversation."""
    if is_conversation(first) or is_conversation(second):
        if shared is None and is_conversation(first) != is_conversation(second):
            shared = _before_answer(first if is_conversation(first) else second)
        found, one, two = part(_whole(shared, first, names[0]), _whole(shared, second, names[1]), names)
        if shared is not None:
            turns = [turn for turn in shared if turn["role"] != "system"]
            if not any(found[n : n + len(turns)] == turns for n in range(len(found))):
                raise Reject("different_prompts", f"the prompt is not in what {names[0]} and {names[1]} share")
            if shared[0]["role"] == "system" and found[0]["role"] != "system":
                found.insert(0, shared[0])
        return found, one, two
    first, second = unmarked(first, second)
    if is_dialogue(first) and is_dialogue(second):
        raise Reject("whole_dialogue", f"{names[0]} and {names[1]} are whole dialogues: use `format: transcript`")
    if shared is None:
        raise Reject("missing_field", "the row has no prompt, and its answers are not whole conversations")
    return shared, answer(first, names[0]), answer(second, names[1])


def is_answered(value: Any) -> bool:
    """Whether a list of messages ends with an answer."""
    return isinstance(value, list) and len(value) > 1 and speaker(value[-1]) == "assistant"


def _before_answer(conversation: list[Any]) -> list[Message] | None:
    """What stands before the last turn, if that is an answer: the prompt of an answer that stands alone."""
    turns = messages(conversation, "the conversation")
    return turns[:-1] if len(turns) > 1 and turns[-1]["role"] == "assistant" else None


def _whole(shared: list[Message] | None, side: Any, name: str) -> list[Message]:
    """A side as a conversation that begins with the prompt."""
    if not is_conversation(side):
        return [*(shared or ()), {"role": "assistant", "content": answer(side, name)}]
    turns = messages(side, name)
    return [*shared, *turns] if shared and turns and turns[0]["role"] == "assistant" else turns
