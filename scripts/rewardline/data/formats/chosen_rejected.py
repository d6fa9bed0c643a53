"""The formats whose row is one pair: the fields' names say which answer is better and which is worse."""

from typing import Final

from rewardline.data.conversation import (
    Reject,
    ends_with_answer,
    is_text_list,
    is_transcript,
    read_prompt,
    read_text,
    read_transcript,
    split_conversations,
    unwrap_messages,
)
from rewardline.data.formats.drafts import Draft, Drafts
from rewardline.data.formats.fields import RowFields
from rewardline.data.formats.prompts import explicit_prompt, split_sides

SIDES: Final = ("chosen", "rejected")
HEADINGS: Final = ("###The instruction to evaluate:", "###Response to evaluate:")


def read_transcripts(row: RowFields) -> Drafts:
    """Two complete transcripts."""
    chosen, rejected = (read_transcript(read_text(row.required(name), name), name) for name in SIDES)
    prompt, (one, two) = split_conversations((chosen, rejected), SIDES)
    yield Draft(prompt, one, two)


def read_pair(row: RowFields) -> Drafts:
    """A prompt of its own, a better and a worse answer."""
    row.required("prompt")
    yield from read_conversations(row)


def read_conversations(row: RowFields) -> Drafts:
    """Two conversations as messages; the prompt is what they share, or a field of its own.

    Where only the rejected answer has a name, a conversation that ends with an answer is the chosen side.
    """
    answered = not row.present("chosen") and ends_with_answer(row.optional("conversation"))
    first = unwrap_messages(row.required("conversation" if answered else "chosen"))
    second = unwrap_messages(row.required("rejected"))
    if is_text_list(first) and is_text_list(second) and are_turns(first, second):
        first, second = _alternate(first), _alternate(second)
    prompt, (one, two) = split_sides(explicit_prompt(row, (first, second)), (first, second), SIDES)
    yield Draft(prompt, one, two)


def are_turns(first: list[str], second: list[str]) -> bool:
    """Whether two lists of texts may be the turns of a user and an assistant: of even length, with an equal start."""
    return len(first) % 2 == len(second) % 2 == 0 and first[0] == second[0]


def _alternate(texts: list[str]) -> list[dict[str, str]]:
    """Messages of texts that a user and an assistant say in turn."""
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


def read_judge_prompts(row: RowFields) -> Drafts:
    """Two prompts to a judge, in which instruction and response come under headings."""
    (instruction, chosen), (other, rejected) = (_sections(read_text(row.required(name), name), name) for name in SIDES)
    if instruction != other:
        raise Reject("different_prompts", "chosen and rejected do not have the same instruction")
    if "\n\nAssistant:" in instruction and not is_transcript(instruction):
        instruction = "Human: " + instruction  # a transcript that lacks its first marker
    yield Draft(read_prompt(instruction), chosen, rejected)


def _sections(text: str, name: str) -> tuple[str, str]:
    _, start, rest = text.partition(HEADINGS[0])
    instruction, heading, rest = rest.partition("\n" + HEADINGS[1])
    if not start or not heading:
        raise Reject("not_judge", f'{name} has no "{HEADINGS[0]}" and "{HEADINGS[1]}"')
    return instruction.strip(), rest.partition("\n###")[0].strip()
