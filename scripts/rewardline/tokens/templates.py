"""From conversations to text, split into the part that all answers share and the answers.

A split is exact when the tokens of the complete text are those of its two parts: where the tokenizer splits the text
into words before it looks for tokens, and splits it there (`splits_at_words`, `starts_with_special_token`).
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from os.path import commonprefix
from typing import Final, NamedTuple

from jinja2 import Environment, TemplateSyntaxError
from transformers import PreTrainedTokenizerFast

from rewardline.core.errors import UserError, first_line
from rewardline.data.schema import Message

Prompt = list[Message]
SPEAKERS = {"system": "System", "user": "Human", "assistant": "Assistant"}

TODAY: Final = date(2024, 7, 26)
"""The date given to chat templates that ask for it, so that equal conversations have equal tokens on every day."""
_DATED = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f".replace('%{code}', '{TODAY.strftime('%' + code)}')" for code in "aAbBdHIjmMpSyY")
    + " }}{% endmacro %}"
)
_DIFFERENT_ANSWERS = "0", "z"
_COMPARED_CHARACTERS = 24  # at the beginning of an answer, to find it in a text


class UnusableError(Exception):
    """A conversation that cannot become tokens; `reason` is a short code to count by."""

    reason = "unusable"


class TemplateRefusedError(UnusableError):
    """A conversation for which the tokenizer's chat template raises an error, such as one with a system message."""

    reason = "template_refused"


class ConversationText(NamedTuple):
    """A prompt with each of its answers as text: `head` followed by one of `bodies`.

    `head` ends before the heading of the answer, with which each body begins if `splits_at_heading`. `opening` is the
    text up to where the answers begin.
    """

    head: str
    bodies: list[str]
    opening: str
    splits_at_heading: bool = True


class PlainTemplate:
    """`Human: ...` and `Assistant: ...`, with an empty line between turns."""

    heading = "Assistant:"

    def render(self, prompt: Prompt, answers: Sequence[str]) -> ConversationText:
        """The text of the prompt with each answer."""
        head = "".join(f"{SPEAKERS[turn['role']]}: {turn['content']}\n\n" for turn in prompt)
        return ConversationText(head, [f"{self.heading} {answer}" for answer in answers], head + self.heading)


PLAIN = PlainTemplate()


def check_syntax(template: str) -> None:
    """Raise `UserError` for a chat template that is not valid Jinja."""
    try:
        Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
    except TemplateSyntaxError as error:
        raise UserError(f"chat_template: line {error.lineno}: {error.message}; it must be a Jinja template") from error


class ChatTemplate:
    """The chat template of a tokenizer. `heading` is the text before an answer; empty where it is not known."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        template = tokenizer.chat_template
        self._template = _DATED + template if isinstance(template, str) and "strftime_now" in template else None
        self.heading = ""
        question: Prompt = [{"role": "user", "content": "a"}]
        with suppress(UnusableError):
            unanswered = self._render(question)
            opening = self._opening(question)
            if opening.startswith(unanswered):
                self.heading = opening[len(unanswered) :]

    def render(self, prompt: Prompt, answers: Sequence[str]) -> ConversationText:
        """The text of the prompt with each answer, split before the heading of the last turn.

        Raises:
            TemplateRefusedError: the template raises an error for this conversation.
        """
        texts = [self._answered(prompt, answer) for answer in answers]
        shared = _common_start(texts)
        index = shared.rfind(self.heading) if self.heading else -1
        while index >= 0:
            start = index + len(self.heading)
            if texts[0][start:].lstrip().startswith(answers[0][:_COMPARED_CHARACTERS].strip()):
                return ConversationText(shared[:index], [text[index:] for text in texts], shared[:start])
            index = shared.rfind(self.heading, 0, index)
        opening = _common_start([shared, self._opening(prompt)])
        return ConversationText("", texts, opening, splits_at_heading=False)

    def _opening(self, prompt: Prompt) -> str:
        """The text up to an answer: the common beginning of conversations with different answers."""
        return _common_start([self._answered(prompt, answer) for answer in _DIFFERENT_ANSWERS])

    def _answered(self, prompt: Prompt, answer: str) -> str:
        return self._render([*prompt, {"role": "assistant", "content": answer}]).rstrip()

    def _render(self, messages: Prompt) -> str:
        try:
            return str(self._tokenizer.apply_chat_template(messages, chat_template=self._template, tokenize=False))
        except Exception as error:
            raise TemplateRefusedError(f"the chat template refuses it: {first_line(error)}") from error


def _common_start(texts: Sequence[str]) -> str:
    return commonprefix(texts)  # noqa: RUF071 (of characters, as intended)
