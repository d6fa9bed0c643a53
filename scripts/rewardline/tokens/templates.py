"""From conversations to text, split into the part that all answers share and the answers.

A split is exact when the tokens of the complete text are those of its two parts: where the tokenizer splits the text
into words before it looks for tokens, and splits it there (`splits_at_words`, `starts_with_special_token`).
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from os.path import commonprefix
from typing import NamedTuple

from jinja2 import Environment, TemplateSyntaxError
from transformers import PreTrainedTokenizerFast

from rewardline.core.errors import UserError, first_line
from rewardline.data.conversation import INDENTATIONS, ROLES
from rewardline.data.schema import Message
from rewardline.tokens.settings import TODAY

Prompt = list[Message]
SPEAKERS = {"system": "System", "user": "Human", "assistant": "Assistant"}

_GENERATION_TAG = re.compile(r"\{%[-+]?\s*(end)?generation\s*[-+]?%\}")  # which transformers add to Jinja
_DATE_CALL = re.compile(r"""strftime_now\(\s*(?:'([^'\\]*)'|"([^"\\]*)")\s*\)""")
_CODES = [flag + code for flag in ("-", "") for code in "aAbBcdDeFgGhHIjklmMnpPrRsSTtuUVwWxXyYZz"]
_FIXED_DATE = (
    "{%- macro fixed_date(format) -%}{{ format"
    + "".join(f".replace('%{code}', {TODAY.strftime('%' + code)!r})" for code in _CODES)
    + " }}{%- endmacro -%}"
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
    changed: frozenset[int] = frozenset()
    """The indices of answers of which the template leaves out or changes something."""
    prompt_changed: bool = False
    """Whether that is so of a turn of the prompt."""


class PlainTemplate:
    """`Human: ...` and `Assistant: ...`, with an empty line between turns."""

    heading = "Assistant:"
    ending = ""

    def render(self, prompt: Prompt, answers: Sequence[str]) -> ConversationText:
        """The text of the prompt with each answer."""
        head = "".join(f"{SPEAKERS[turn['role']]}: {turn['content']}\n\n" for turn in prompt)
        return ConversationText(head, [f"{self.heading} {answer}" for answer in answers], head + self.heading)


PLAIN = PlainTemplate()


def check_syntax(template: str) -> None:
    """Raise `UserError` for a chat template that is not valid Jinja."""
    try:
        Environment(extensions=["jinja2.ext.loopcontrols"]).parse(_GENERATION_TAG.sub("", template))
    except TemplateSyntaxError as error:
        raise UserError(f"chat_template: line {error.lineno}: {error.message}; it must be a Jinja template") from error


def fix_date(template: str) -> str:
    """A chat template without `strftime_now`: with `TODAY` for the current date."""
    template = _DATE_CALL.sub(lambda call: repr(TODAY.strftime(call[1] or call[2] or "")), template)
    if "strftime_now" not in template:
        return template
    return _FIXED_DATE + template.replace("strftime_now", "fixed_date")


_MARK = "{#- rewardline:"
_PLAIN_MARK = f"{_MARK} plain text"
_READ_MESSAGES = """ #}
{#- Messages are read as in training: roles by their other names, parts of content joined, texts trimmed, tool calls
    as text. #}
{%- set roles = ROLES %}
{%- macro trimmed(text) %}
{%- set indentation = text[:text | length - text.lstrip() | length].split('\\n') | last %}
{{- indentation if text.strip() and indentation.startswith(INDENTATIONS) }}{{ text.strip() }}
{%- endmacro %}
{%- set read = namespace(turns=[]) %}
{%- for message in messages %}
{%- set name = (message['role'] or message['from'] or '') | string | trim | lower %}
{%- if name not in roles %}{{ raise_exception('unknown role: ' ~ name) }}{% endif %}
{%- set read.content = none %}
{%- for key in ['content', 'value', 'text', 'parts'] %}
{%- if read.content is none and message[key] is defined %}{% set read.content = message[key] %}{% endif %}
{%- endfor %}
{%- set calls = message['tool_calls'] or message['function_call'] or [] %}
{%- set read.content = '' if read.content is none and calls else read.content %}
{%- if read.content is not string and (read.content is not iterable or read.content is mapping) %}
{{- raise_exception('a message whose content is no text') }}
{%- endif %}
{%- set read.text = read.content if read.content is string else '' %}
{%- for part in ([] if read.content is string else read.content) %}
{%- if part is not string and (part['type'] or 'text') != 'text' %}{{ raise_exception('not of type text') }}{% endif %}
{%- set read.text = read.text ~ (part if part is string else part['text'] or part['value'] or '') %}
{%- endfor %}
{%- set read.text = trimmed(read.text) %}
{%- for call in ([calls] if calls is mapping else calls) %}
{%- set call = call['function'] or call %}
{%- set given = call['arguments'] if call['arguments'] is defined else none %}
{%- if given is string %}{{ raise_exception('arguments of a tool call that are text, not an object') }}{% endif %}
{%- set spoken = read.text ~ '\n' if read.text else '' %}
{%- set given = {'name': call['name'], 'arguments': given} | tojson %}
{%- set read.text = spoken ~ '<tool_call>\n' ~ given ~ '\n</tool_call>' %}
{%- endfor %}
{%- if read.text or roles[name] != 'system' %}
{%- set read.turns = read.turns + [{'role': roles[name], 'content': read.text}] %}
{%- endif %}
{%- endfor %}
{%- set messages = read.turns %}
{%- set answered = messages and messages[-1]['role'] == 'assistant' and not add_generation_prompt %}
""".replace("ROLES", repr(ROLES)).replace("INDENTATIONS", repr(INDENTATIONS))
_PLAIN_BODY = """
{{- LEADING }}
{%- for message in messages %}
{{- SPEAKERS[message['role']] ~ ': ' ~ message['content'] ~ (END if loop.last and answered else '\\n\\n') }}
{%- endfor %}
{{- HEADING if add_generation_prompt }}
""".replace("SPEAKERS", repr(SPEAKERS)).replace("HEADING", repr(PlainTemplate.heading))
_CHAT_BODY = """
{%- set rendered %}
TEMPLATE{%+ endset %}
{%- if not answered %}{{ rendered }}
{%- else %}{% set rendered = rendered.rstrip() %}{{ rendered ~ ('' if rendered.endswith(END) else END) }}
{%- endif %}
"""


def is_export(template: object) -> bool:
    """Whether a chat template is that of `export_plain` or `export_chat`."""
    return isinstance(template, str) and template.startswith(_MARK)


def is_plain_export(template: object) -> bool:
    """Whether a chat template is that of `export_plain`."""
    return isinstance(template, str) and template.startswith(_PLAIN_MARK)


def export_plain(leading: str, end: str) -> str:
    """A chat template for transformers that renders messages as `PlainTemplate`, between `leading` and `end`."""
    body = _PLAIN_BODY.replace("LEADING", repr(leading)).replace("END", repr(end))
    return f"{_PLAIN_MARK}, ends at {end}{_READ_MESSAGES}{body}".rstrip()


def export_chat(template: str, end: str, eos: str | None = None) -> str:
    """A chat template for transformers that renders messages as `ChatTemplate` does, up to the end token `end`.

    `eos`: the value of `eos_token` for `template`, where it is another than the end token.
    """
    mark = f"{_MARK} ends at {end}"
    if template.startswith(mark):
        return template
    body = _CHAT_BODY.replace("END", repr(end)).replace("TEMPLATE", fix_date(template).removesuffix("\n"))
    named = "" if eos is None else f"{{%- set eos_token = {eos!r} %}}\n"
    return f"{mark}{_READ_MESSAGES}{named}{body}".rstrip()


class ChatTemplate:
    """The chat template of a tokenizer.

    `heading` is the text before an answer, `ending` the text after it; empty where they are not known.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, eos: str | None = None) -> None:
        """`eos`: the value of `eos_token` in the template; None for the tokenizer's."""
        self._tokenizer = tokenizer
        self._variables = {} if eos is None else {"eos_token": eos}
        self._template = fix_date(str(tokenizer.chat_template))
        self.heading = self.ending = ""
        question: Prompt = [{"role": "user", "content": "a"}]
        with suppress(UnusableError):
            unanswered = self._render(question)
            opening = self._opening(question)
            if opening.startswith(unanswered):
                self.heading = opening[len(unanswered) :]
            answered = [self._answered(question, answer) for answer in _DIFFERENT_ANSWERS]
            self.ending = _common_start([text[::-1] for text in answered])[::-1]

    def render(self, prompt: Prompt, answers: Sequence[str]) -> ConversationText:
        """The text of the prompt with each answer, split before the heading of the last turn.

        Raises:
            TemplateRefusedError: the template raises an error for this conversation.
        """
        texts = [self._answered(prompt, answer) for answer in answers]
        changed = frozenset(
            n for n, (answer, text) in enumerate(zip(answers, texts, strict=True)) if answer not in text
        )
        prompt_changed = any(turn["content"] not in texts[0] for turn in prompt)
        split = self._split(prompt, answers, texts)
        return split._replace(changed=changed, prompt_changed=prompt_changed)

    def _split(self, prompt: Prompt, answers: Sequence[str], texts: list[str]) -> ConversationText:
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
            text = self._tokenizer.apply_chat_template(
                messages, chat_template=self._template, tokenize=False, **self._variables
            )
            return str(text)
        except Exception as error:
            raise TemplateRefusedError(f"the chat template refuses it: {first_line(error)}") from error


def _common_start(texts: Sequence[str]) -> str:
    return commonprefix(texts)  # noqa: RUF071 (of characters, as intended)
