"""From conversations to text, split into what all answers share and the answers.

A split is exact when the tokens of the whole text are those of its two parts. That holds where the tokenizer cuts the
text into words before it looks for tokens, and cuts at the split; `words_apart` and `special_first` tell.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, TemplateSyntaxError
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from rewardline.cli import UserError

Prompt = list[dict[str, str]]
SPEAKERS = {"system": "System", "user": "Human", "assistant": "Assistant"}


class UnusableError(Exception):
    """A conversation that cannot become tokens; `reason` is a short name for counting."""

    reason = "unusable"


class TemplateRefusedError(UnusableError):
    """A conversation that the tokenizer's chat template refuses, such as one with a system message."""

    reason = "template_refused"


class PlainTemplate:
    """`Human: ...` and `Assistant: ...`, an empty line between turns."""

    heading = "Assistant:"

    def split(self, prompt: Prompt, answers: Sequence[str]) -> tuple[str, list[str]]:
        """What the answers share, and each answer under its heading."""
        turns = [f"{SPEAKERS[turn['role']]}: {turn['content']}\n\n" for turn in prompt]
        return "".join(turns), [f"{self.heading} {answer}" for answer in answers]


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
        self.heading = ""
        question = [{"role": "user", "content": "a"}]
        try:
            without, with_heading = (self._render(question, generation) for generation in (False, True))
        except UnusableError:
            return
        if with_heading.startswith(without):
            self.heading = with_heading[len(without) :]

    def split(self, prompt: Prompt, answers: Sequence[str]) -> tuple[str, list[str]]:
        """What the answers share up to the heading of the last answer, and the rest of each.

        Raises:
            TemplateRefusedError: the template raises an error for this conversation.
        """
        texts = [self._render([*prompt, {"role": "assistant", "content": answer}]).rstrip() for answer in answers]
        shared = _common_start(texts)
        place = shared.rfind(self.heading) if self.heading else -1
        if place < 0:
            place = len(_common_start([shared, self._render(prompt)]))
            if self.heading:
                place = 0  # this conversation is opened in another way: nothing is taken for shared
        return shared[:place], [text[place:] for text in texts]

    def _render(self, messages: Prompt, generation: bool = False) -> str:
        try:
            return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation))
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise TemplateRefusedError(f"the chat template refuses it: {reason}") from error


_WORD_CUTTERS = ("Whitespace", "WhitespaceSplit", "BertPreTokenizer")
_LOOKS_BACK = re.compile(r"(?<!\[)\^|\\A|\\G|\\b|\(\?<[=!]")
_LOCAL = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "BertNormalizer", "StripAccents")


def _common_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    size = next((k for k, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    return first[:size]


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
