"""From conversations to text, split into what all answers share and the answers.

A split is exact when the tokens of the whole text are those of its two parts. That holds where the tokenizer cuts the
text into words before it looks for tokens, and cuts at the split; `words_apart` and `special_first` tell.
"""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from typing import Any, Final, NamedTuple

from jinja2 import Environment, TemplateSyntaxError
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from rewardline.core.errors import UserError

Prompt = list[dict[str, str]]
SPEAKERS = {"system": "System", "user": "Human", "assistant": "Assistant"}


TODAY: Final = date(2024, 7, 26)
"""The day that chat templates are told it is, so that equal conversations are equal tokens on every day."""
_DATED = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f".replace('%{code}', '{TODAY.strftime('%' + code)}')" for code in "aAbBdHIjmMpSyY")
    + " }}{% endmacro %}"
)
_SIGNS = "0", "z"
_COMPARED = 24  # signs of an answer by which it is found in a text


class UnusableError(Exception):
    """A conversation that cannot become tokens; `reason` is a short name for counting."""

    reason = "unusable"


class TemplateRefusedError(UnusableError):
    """A conversation that the tokenizer's chat template refuses, such as one with a system message."""

    reason = "template_refused"


class Split(NamedTuple):
    """A prompt with its answers as texts.

    `head` is what all of them begin with, up to the heading of the answer; `bodies` are the rest of each; `opening` is
    the text up to where the answers begin. `apart`: the heading stands between head and answers.
    """

    head: str
    bodies: list[str]
    opening: str
    apart: bool = True


class PlainTemplate:
    """`Human: ...` and `Assistant: ...`, an empty line between turns."""

    heading = "Assistant:"

    def split(self, prompt: Prompt, answers: Sequence[str]) -> Split:
        """What the answers share, and each answer under its heading."""
        head = "".join(f"{SPEAKERS[turn['role']]}: {turn['content']}\n\n" for turn in prompt)
        return Split(head, [f"{self.heading} {answer}" for answer in answers], head + self.heading)


PLAIN = PlainTemplate()


def check_syntax(template: str) -> None:
    """Raise `UserError` for a chat template that is no Jinja."""
    try:
        Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
    except TemplateSyntaxError as error:
        raise UserError(f"chat_template: line {error.lineno}: {error.message}; it must be a Jinja template") from error


class ChatTemplate:
    """The chat template of a tokenizer. `heading` is what opens an answer; empty where that cannot be told."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        template = tokenizer.chat_template
        self._template = _DATED + template if isinstance(template, str) and "strftime_now" in template else None
        self.heading = ""
        question = [{"role": "user", "content": "a"}]
        with suppress(UnusableError):
            asked = self._render(question)
            opened = self._opening(question)
            if opened.startswith(asked):
                self.heading = opened[len(asked) :]

    def split(self, prompt: Prompt, answers: Sequence[str]) -> Split:
        """What the answers share up to the heading of the last answer, and the rest of each.

        Raises:
            TemplateRefusedError: the template raises an error for this conversation.
        """
        texts = [self._answered(prompt, answer) for answer in answers]
        shared = _common_start(texts)
        place = shared.rfind(self.heading) if self.heading else -1
        while place >= 0:
            start = place + len(self.heading)
            if texts[0][start:].lstrip().startswith(answers[0][:_COMPARED].strip()):
                return Split(shared[:place], [text[place:] for text in texts], shared[:start])
            place = shared.rfind(self.heading, 0, place)
        return Split("", texts, _common_start([shared, self._opening(prompt)]), apart=False)

    def _opening(self, prompt: Prompt) -> str:
        """The text up to an answer: what conversations that end with different answers have in common."""
        return _common_start([self._answered(prompt, sign) for sign in _SIGNS])

    def _answered(self, prompt: Prompt, answer: str) -> str:
        return self._render([*prompt, {"role": "assistant", "content": answer}]).rstrip()

    def _render(self, messages: Prompt) -> str:
        try:
            return str(self._tokenizer.apply_chat_template(messages, chat_template=self._template, tokenize=False))
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise TemplateRefusedError(f"the chat template refuses it: {reason}") from error


def _common_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    size = next((k for k, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    return first[:size]


_WORD_CUTTERS = ("Whitespace", "WhitespaceSplit", "BertPreTokenizer")
_LOOKS_BACK = re.compile(r"(?<!\[)\^|\\A|\\G|\\b|\(\?<[=!]")
_LOCAL = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "BertNormalizer", "StripAccents")


def words_apart(backend: Tokenizer) -> bool:
    """Whether the tokenizer cuts every text in front of a word that follows an empty line, whatever stands around it.

    Known of tokenizers that cut text into words by patterns which look at no more than the neighbouring signs.
    """
    cutters = _components(backend.pre_tokenizer, "pretokenizers")
    known = all(_cuts_words(cutter) or _only_divides(cutter) for cutter in cutters)
    local = all(part["type"] in _LOCAL for part in _components(backend.normalizer, "normalizers"))
    return known and local and any(_cuts_words(cutter) for cutter in cutters)


def special_first(backend: Tokenizer, heading: str) -> bool:
    """Whether `heading` begins with a special token, at which every text is cut before anything else is done."""
    return any(
        token.special and not token.lstrip and heading.startswith(token.content)
        for token in backend.get_added_tokens_decoder().values()
    )


def _components(part: Any, key: str) -> list[dict[str, Any]]:
    """The parts of a normaliser or pre-tokenizer, as their JSON."""
    if part is None:
        return []
    state = json.loads(part.__getstate__())
    return list(state[key]) if state["type"] == "Sequence" else [state]


def _only_divides(state: dict[str, Any]) -> bool:
    """Whether a pre-tokenizer only cuts further what others leave."""
    if state["type"] == "Punctuation":
        return bool(state["behavior"] == "Isolated")
    return state["type"] == "Digits" or bool(state["type"] == "ByteLevel" and not state["add_prefix_space"])


def _cuts_words(state: dict[str, Any]) -> bool:
    if state["type"] == "Split":
        pattern = next(iter(state["pattern"].values()))
        known = "\\p{L}" in pattern and not _LOOKS_BACK.search(pattern)
        return state["behavior"] == "Isolated" and not state["invert"] and known
    if state["type"] == "ByteLevel":
        return not state["add_prefix_space"] and bool(state.get("use_regex", True))
    return state["type"] in _WORD_CUTTERS
