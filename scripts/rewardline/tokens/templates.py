"""From conversations to text, split into the part that all answers share and the answers.

A split is exact when the tokens of the complete text are those of its two parts: where the tokenizer splits the text
into words before it looks for tokens, and splits it there (`splits_at_words`, `starts_with_special_token`).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from os.path import commonprefix
from typing import Final, NamedTuple

from jinja2 import Environment, TemplateSyntaxError
from transformers import PreTrainedTokenizerFast

from rewardline.core.errors import UserError, first_line
from rewardline.data.blocks import TEXTS
from rewardline.data.conversation import CALLERS, INDENTATIONS, REASONING, ROLES, TOOL_KEYS
from rewardline.data.schema import Message
from rewardline.data.turns import INSTRUCTING, NO_INPUTS, SPEAKERS, TemplateInputs, turns_of
from rewardline.tokens.settings import TODAY

Prompt = list[Message]

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
    """`Human: ...` and `Assistant: ...`, with an empty line between turns; calls of tools as text."""

    heading = "Assistant:"
    ending = ""

    def render(self, prompt: Prompt, answers: Sequence[str], inputs: TemplateInputs = NO_INPUTS) -> ConversationText:
        """The text of the prompt with each answer."""
        head = "".join(f"{SPEAKERS[turn['role']]}: {turn['content']}\n\n" for turn in prompt)
        headings = [f"{SPEAKERS[turns_of(answer)[0]['role']]}:" for answer in answers]
        bodies = [f"{heading} {answer}" for heading, answer in zip(headings, answers, strict=True)]
        opening = head + (headings[0] if len(set(headings)) == 1 else "")
        return ConversationText(
            head, bodies, opening, splits_at_heading=set(headings) == {self.heading}, prompt_changed=bool(inputs.tools)
        )


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


class Abilities(NamedTuple):
    """Which turns a chat template renders as such; it gets others as text, or under the role nearest to theirs."""

    tool: bool = False
    developer: bool = False
    calls: bool = False
    object_arguments: bool = True
    """Arguments of calls as objects; false if it takes their JSON only."""
    string_arguments: bool = False
    """Arguments of calls as JSON, which it does not quote again."""

    @property
    def roles(self) -> dict[str, str]:
        """The role in the template for each role of a turn."""
        return {
            **{role: role for role in ROLES.values()},
            "tool": "tool" if self.tool else "user",
            "developer": "developer" if self.developer else "system",
        }


_MARK = "{#- rewardline:"
_PLAIN_MARK = f"{_MARK} plain text"
_READ_MESSAGES = """ #}
{#- Messages are read as in training: roles by their other names, parts of content joined, texts trimmed; what the
    template does not render, such as calls of tools, as text. #}
{%- set roles = ROLES %}
{%- macro trimmed(text) %}
{%- set indentation = text[:text | length - text.lstrip() | length].split('\n') | last %}
{{- indentation if text.strip() and indentation.startswith(INDENTATIONS) }}{{ text.strip() }}
{%- endmacro %}
{%- set read = namespace(turns=[]) %}
{%- for message in messages %}
{%- set name = (message['role'] or message['from'] or '') | string | trim | lower %}
{%- if name not in roles %}{{ raise_exception('unknown role: ' ~ name) }}{% endif %}
{%- set role = roles[name] %}
{%- set read.content = none %}
{%- for key in ['content', 'value', 'text', 'parts'] %}
{%- if not read.content and message[key] is defined and message[key] is not none %}
{%- set read.content = message[key] %}
{%- endif %}
{%- endfor %}
{%- set calls = message['tool_calls'] or [] %}
{%- set read.calls = [] %}
{%- for key in CALLERS if message[key] and (role == 'assistant' or key == CALLERS[0]) and not read.calls %}
{%- set called = message[key] %}
{%- set read.calls = [called if called is string or called['function'] else {'function': called}] %}
{%- endfor %}
{%- set calls = calls or read.calls %}
{%- set calls = [calls] if calls is mapping else calls %}
{%- if calls is string or calls | select('string') | list or name in CALLERS and not calls %}
{{- raise_exception('tool_calls that are text, not a list of objects') }}
{%- endif %}
{%- set read.thought = '' %}
{%- for key in REASONING if role == 'assistant' and not read.thought and message[key] is string %}
{%- set read.thought = trimmed(message[key]) %}
{%- endfor %}
{%- set thought = read.thought %}
{%- set read.other = {'thinking': thought, 'reasoning_content': thought} if thought else {} %}
{%- for key in TOOL_KEYS if role == 'tool' and message[key] is string and message[key].strip() %}
{%- set read.other = dict(read.other, **{key: trimmed(message[key])}) %}
{%- endfor %}
{%- set is_null = read.content is none %}
{%- set read.content = '' if is_null and (calls or thought) else read.content %}
{%- if read.content is not string and (read.content is not iterable or read.content is mapping) %}
{{- raise_exception('a message whose content is no text') }}
{%- endif %}
{%- set read.text = read.content if read.content is string else '' %}
{%- for part in ([] if read.content is string else read.content) %}
{%- if part is not string and ((part['type'] or 'text') not in TEXTS or part['thought']) %}
{{- raise_exception('not of type text') }}
{%- elif part is not string and part['text'] is not string and part['value'] is not string %}
{{- raise_exception('a part without text') }}
{%- endif %}
{%- set read.text = read.text ~ (part if part is string else part['text'] or part['value'] or '') %}
{%- endfor %}
{%- set read.text = trimmed(read.text) %}
{%- set read.calls = [] %}
{%- for call in calls %}
{%- set function = call['function'] or call %}
{%- if function['arguments'] is string and not STRINGS %}
{{- raise_exception('arguments of a tool call that are text, not an object') }}
{%- elif function['arguments'] is mapping and not OBJECTS %}
{%- set function = dict(function, arguments=function['arguments'] | tojson) %}
{%- set call = dict(call, function=function) if call['function'] else function %}
{%- endif %}
{%- set read.calls = read.calls + [call] %}
{%- endfor %}
{%- set message = {'role': role} if is_null else {'role': role, 'content': read.text} %}
{%- if (CALLS if calls else thought and REASONS or role == 'tool' and read.other) %}
{%- set message = dict(message, **read.other) %}
{%- set message = dict(message, tool_calls=read.calls) if calls else message %}
{%- else %}
{%- set read.text = ('<think>\n' ~ thought ~ '\n</think>\n\n' if thought else '') ~ read.text %}
{%- for call in calls %}
{%- set call = call['function'] or call %}
{%- set given = call['arguments'] if call['arguments'] is defined else none %}
{%- set spoken = read.text ~ '\n' if read.text else '' %}
{%- set given = {'name': call['name'], 'arguments': given} | tojson %}
{%- set read.text = spoken ~ '<tool_call>\n' ~ given ~ '\n</tool_call>' %}
{%- endfor %}
{%- set message = {'role': role, 'content': read.text} %}
{%- endif %}
{%- if message['content'] or calls or role not in INSTRUCTING %}{% set read.turns = read.turns + [message] %}{% endif %}
{%- endfor %}
{%- set messages = read.turns %}
{%- set answered = 'assistant' in (messages | map(attribute='role') | list) and not add_generation_prompt %}
"""
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


def _reading(abilities: Abilities, text_only: bool = False) -> str:
    """The part of an exported template that reads messages."""
    values: dict[str, object] = {
        "STRINGS": abilities.string_arguments,
        "OBJECTS": abilities.object_arguments,
        "CALLS": abilities.calls,
        "REASONS": not text_only,
        "INDENTATIONS": INDENTATIONS,
        "INSTRUCTING": INSTRUCTING,
        "REASONING": REASONING,
        "TOOL_KEYS": TOOL_KEYS,
        "CALLERS": CALLERS,
        "TEXTS": TEXTS,
        "ROLES": {name: abilities.roles[role] for name, role in ROLES.items()},
    }
    return re.sub("|".join(rf"\b{name}\b" for name in values), lambda name: repr(values[name[0]]), _READ_MESSAGES)


def is_export(template: object) -> bool:
    """Whether a chat template is that of `export_plain` or `export_chat`."""
    return isinstance(template, str) and template.startswith(_MARK)


def is_plain_export(template: object) -> bool:
    """Whether a chat template is that of `export_plain`."""
    return isinstance(template, str) and template.startswith(_PLAIN_MARK)


def export_plain(leading: str, end: str) -> str:
    """A chat template for transformers that renders messages as `PlainTemplate`, between `leading` and `end`."""
    body = _PLAIN_BODY.replace("LEADING", repr(leading)).replace("END", repr(end))
    return f"{_PLAIN_MARK}, ends at {end}{_reading(Abilities(), text_only=True)}{body}".rstrip()


def export_chat(
    template: str,
    end: str,
    eos: str | None = None,
    variables: Mapping[str, object] | None = None,
    abilities: Abilities | None = None,
) -> str:
    """A chat template for transformers that renders messages as `ChatTemplate` does, up to the end token `end`.

    `eos`: the value of `eos_token` for `template`, where it is another than the end token. `variables`: those that it
    gets where a caller gives no others. `abilities`: its own.
    """
    mark = f"{_MARK} ends at {end}"
    if template.startswith(mark):
        return template
    body = _CHAT_BODY.replace("END", repr(end)).replace("TEMPLATE", fix_date(template).removesuffix("\n"))
    named = "" if eos is None else f"{{%- set eos_token = {eos!r} %}}\n"
    for name, value in (variables or {}).items():
        named += f"{{%- if {name} is not defined %}}{{% set {name} = {value!r} %}}{{% endif %}}\n"
    return f"{mark}{_reading(abilities or Abilities())}{named}{body}".rstrip()


_CALLED: Final = {"name": "zqname", "arguments": {"zqkey": "zqvalue"}}
_TEXT_ARGUMENTS: Final = '{"zqkey": "zqvalue"}'


def _probe(function: Mapping[str, object]) -> list[dict[str, object]]:
    """A conversation with a call of a tool."""
    ids = {"name": "zqname", "tool_call_id": "callzq001"}
    call = {"id": "callzq001", "type": "function", "function": function}
    return [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "zqresult", **ids},
        {"role": "assistant", "content": "b"},
    ]


class ChatTemplate:
    """The chat template of a tokenizer.

    `heading` is the text before an answer, `ending` the text after it; empty where they are not known.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, eos: str | None = None, variables: Mapping[str, object] | None = None
    ) -> None:
        """`eos`: the value of `eos_token` in the template; None for the tokenizer's. `variables`: others."""
        self._tokenizer = tokenizer
        self._variables = {**(variables or {}), **({} if eos is None else {"eos_token": eos})}
        self._template = fix_date(str(tokenizer.chat_template))
        self.heading = self.ending = ""
        question: Prompt = [{"role": "user", "content": "a"}]
        with suppress(UnusableError):
            unanswered = self._render(question)
            opening = self._opening(question, [""], NO_INPUTS)
            if opening.startswith(unanswered):
                self.heading = opening[len(unanswered) :]
            answered = [self._answered(question, answer) for answer in _DIFFERENT_ANSWERS]
            self.ending = _common_start([text[::-1] for text in answered])[::-1]

    @cached_property
    def abilities(self) -> Abilities:
        """What the template renders, by examples."""
        called = self._tried(_probe(_CALLED))
        quoted = self._tried(_probe({**_CALLED, "arguments": _TEXT_ARGUMENTS}))
        uncalled = [{"role": message["role"], "content": message["content"] or "c"} for message in _probe(_CALLED)]
        takes_objects, takes_strings = (
            all(part in text for part in ("zqname", "zqkey", "zqvalue")) for text in (called, quoted)
        )
        return Abilities(
            tool=any("zqresult" in text for text in (called, quoted, self._tried(uncalled))),
            developer="zqorder" in self._tried([{"role": "developer", "content": "zqorder"}, uncalled[0]]),
            calls=takes_objects or (takes_strings and _TEXT_ARGUMENTS in quoted),
            object_arguments=takes_objects or _TEXT_ARGUMENTS not in quoted,
            string_arguments=_TEXT_ARGUMENTS in quoted,
        )

    def _tried(self, messages: Sequence[Mapping[str, object]]) -> str:
        try:
            return self._apply(messages, NO_INPUTS)
        except TemplateRefusedError:
            return ""

    def render(self, prompt: Prompt, answers: Sequence[str], inputs: TemplateInputs = NO_INPUTS) -> ConversationText:
        """The text of the prompt with each answer, split before the heading of the last turn.

        Raises:
            TemplateRefusedError: the template raises an error for this conversation.
        """
        texts = [self._answered(prompt, answer, inputs) for answer in answers]
        changed = frozenset(
            n
            for n, (answer, text) in enumerate(zip(answers, texts, strict=True))
            if any(_is_lost(turn, text) for turn in turns_of(answer))
        )
        prompt_changed = any(_is_lost(turn, texts[0]) for turn in prompt)
        prompt_changed |= any(name not in texts[0] for name in _tool_names(inputs.tools))
        split = self._split(prompt, answers, texts, inputs)
        return split._replace(changed=changed, prompt_changed=prompt_changed)

    def _split(
        self, prompt: Prompt, answers: Sequence[str], texts: list[str], inputs: TemplateInputs
    ) -> ConversationText:
        shared = _common_start(texts)
        if any(len(turns_of(answer)) > 1 or "native" in turns_of(answer)[0] for answer in answers):
            opening = _common_start([shared, self._opening(prompt, answers, inputs)])
            if self.heading and opening.endswith(self.heading):
                index = len(opening) - len(self.heading)
                return ConversationText(opening[:index], [text[index:] for text in texts], opening)
            return ConversationText("", texts, opening, splits_at_heading=False)
        index = shared.rfind(self.heading) if self.heading else -1
        while index >= 0:
            start = index + len(self.heading)
            if texts[0][start:].lstrip().startswith(answers[0][:_COMPARED_CHARACTERS].strip()):
                return ConversationText(shared[:index], [text[index:] for text in texts], shared[:start])
            index = shared.rfind(self.heading, 0, index)
        opening = _common_start([shared, self._opening(prompt, answers, inputs)])
        return ConversationText("", texts, opening, splits_at_heading=False)

    def _opening(self, prompt: Prompt, answers: Sequence[str], inputs: TemplateInputs) -> str:
        """The text up to the answers: the common beginning of conversations in which they begin otherwise."""
        beginnings = {turns[0]["role"]: turns for turns in map(turns_of, answers)}
        texts = []
        for role, turns in beginnings.items():
            for text in _DIFFERENT_ANSWERS:
                first: Message = {**turns[0], "content": text}
                if "native" in first:
                    first["native"] = {**first["native"], "content": text}
                rest = [{"role": role, "content": text}] if role == "assistant" else [first, *turns[1:]]
                texts.append(self._rendered([*prompt, *rest], inputs))
        return _common_start(texts)

    def _answered(self, prompt: Prompt, answer: str, inputs: TemplateInputs = NO_INPUTS) -> str:
        return self._rendered([*prompt, *turns_of(answer)], inputs)

    def _rendered(self, turns: Prompt, inputs: TemplateInputs) -> str:
        """The text of a complete conversation."""
        return self._render(turns, inputs).rstrip()

    def _render(self, turns: Prompt, inputs: TemplateInputs = NO_INPUTS) -> str:
        return self._apply([self._message(turn) for turn in turns], inputs)

    def _message(self, turn: Message) -> dict[str, object]:
        """A turn as the template gets it."""
        if turn["role"] in ("tool", "developer"):
            turn = {**turn, "role": self.abilities.roles[turn["role"]]}
        native = turn.get("native")
        calls = native.get("tool_calls") if native else None
        if native is None or turn["role"] == "user" or (calls and not self.abilities.calls):
            return {"role": turn["role"], "content": turn["content"]}
        if isinstance(calls, list):
            native = {**native, "tool_calls": [_with_arguments(call, self.abilities) for call in calls]}
        return {"role": turn["role"], **native}

    def _apply(self, messages: Sequence[Mapping[str, object]], inputs: TemplateInputs) -> str:
        try:
            text = self._tokenizer.apply_chat_template(
                list(messages),
                tools=list(inputs.tools) or None,
                chat_template=self._template,
                tokenize=False,
                **{**self._variables, **inputs.variables},
            )
            return str(text)
        except Exception as error:
            raise TemplateRefusedError(f"the chat template refuses it: {first_line(error)}") from error


def _with_arguments(call: object, abilities: Abilities) -> object:
    """A call of a tool whose arguments are an object or JSON, whichever the template takes."""
    if not isinstance(call, dict):
        return call
    if isinstance(call.get("function"), dict):
        return {**call, "function": _with_arguments(call["function"], abilities)}
    arguments = call.get("arguments")
    if isinstance(arguments, dict) and not abilities.object_arguments:
        return {**call, "arguments": json.dumps(arguments, ensure_ascii=False)}
    if isinstance(arguments, str) and not abilities.string_arguments:
        with suppress(ValueError, RecursionError):
            return {**call, "arguments": json.loads(arguments)}
    return call


def _is_lost(turn: Message, text: str) -> bool:
    """Whether the text of a conversation lacks what a turn says."""
    native = turn.get("native")
    if turn["role"] == "tool":  # which templates may write as JSON
        quoted = json.dumps(turn["content"], ensure_ascii=False)[1:-1]
        return turn["content"] not in text and quoted not in text
    if native is None:
        return turn["content"] not in text
    calls = native.get("tool_calls")
    said = [value for value in native.values() if isinstance(value, str)]
    return any(part not in text for part in (*said, *_tool_names(calls if isinstance(calls, list) else ())))


def _tool_names(tools: Sequence[object]) -> Iterator[str]:
    """The names of tools, by their schemas or calls."""
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(name, str):
            yield name


def _common_start(texts: Sequence[str]) -> str:
    return commonprefix(texts)  # noqa: RUF071 (of characters, as intended)
