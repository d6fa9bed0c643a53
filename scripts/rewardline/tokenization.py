"""From conversations to tokens: templates, the end token, and truncation that keeps what matters."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rewardline.cli import UserError

Ids = npt.NDArray[np.int32]
Prompt = list[dict[str, str]]
PAD_TOKEN = "<|pad|>"
SPEAKERS = {"system": "System", "user": "Human", "assistant": "Assistant"}


class UnusableError(Exception):
    """A conversation that cannot become tokens; `reason` is a short name for counting."""

    reason = "unusable"


class DoesNotFitError(UnusableError):
    """An answer that leaves no room for any of its prompt; `length` is its number of tokens."""

    reason = "answer_too_long"

    def __init__(self, length: int) -> None:
        super().__init__(f"the answer alone has {length} tokens")
        self.length = length


class TemplateRefusedError(UnusableError):
    """A conversation that the tokenizer's chat template refuses, such as one with a system message."""

    reason = "template_refused"


def load_tokenizer(folder: Path | str, trust_remote_code: bool = False) -> PreTrainedTokenizerFast:
    """The tokenizer in a model folder, with a padding token that is not its end token.

    Raises:
        UserError: there is none, it is not a fast tokenizer, or it knows no end token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    except Exception as error:
        raise UserError(f"{folder}: its tokenizer cannot be loaded: {_first_line(error)}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"{folder}: needs a fast tokenizer (tokenizer.json); found {type(tokenizer).__name__}")
    if tokenizer.eos_token_id is None and tokenizer.sep_token_id is not None:
        tokenizer.eos_token = tokenizer.sep_token
    if tokenizer.eos_token_id is None:
        raise UserError(f"{folder}: its tokenizer has no end token; set eos_token in its tokenizer_config.json")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        # Plain transformers find the score by skipping padding tokens by id, and would skip an equal end token too.
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    tokenizer.padding_side = "right"
    return tokenizer


@dataclass(frozen=True)
class Encoded:
    """The sequences of all answers to a prompt: [prompt, answer, end token] each, and what was cut from the prompt."""

    sequences: list[Ids]
    cut_tokens: int = 0


class ConversationEncoder:
    """Turns a prompt and its answers into token sequences of at most `max_length` tokens, as the model sees them."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        *,
        max_length: int,
        template: str = "auto",
        end_token: str | None = None,
        num_padding_at_beginning: int | None = None,
    ) -> None:
        """Prepare the template.

        Raises:
            UserError: the template, the end token or `num_padding_at_beginning` does not go with the tokenizer.
        """
        has_chat = bool(getattr(tokenizer, "chat_template", None))
        if template == "chat" and not has_chat:
            raise UserError("template: chat is set, but the tokenizer has no chat template; use plain or auto")
        self.template = ("chat" if has_chat else "plain") if template == "auto" else template
        self.max_length = max_length
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        # In a plain text, a token's name written by a person is text, not a token.
        self._backend.encode_special_tokens = self.template == "plain"
        self.end_id = self._end_id(end_token)
        bare = self._backend.encode("a", add_special_tokens=False).ids
        full = self._backend.encode("a", add_special_tokens=True).ids
        starts = [k for k in range(len(full)) if full[k : k + len(bare)] == bare]
        self._first: list[int] = full[: starts[0]] if starts and self.template == "plain" else []
        self.num_padding_at_beginning = sum(
            token in (tokenizer.eos_token_id, tokenizer.pad_token_id) for token in full[: starts[0] if starts else 0]
        )
        if num_padding_at_beginning not in (None, self.num_padding_at_beginning):
            raise UserError(
                f"num_padding_at_beginning is {num_padding_at_beginning}, but the tokenizer puts "
                f"{self.num_padding_at_beginning} end or padding tokens first; correct it or leave it out"
            )

    def _end_id(self, end_token: str | None) -> int:
        if end_token is None:
            return int(self._tokenizer.eos_token_id)
        end_id = self._tokenizer.get_vocab().get(end_token)
        if end_id is None:
            raise UserError(f"end_token: {end_token!r} is not in the vocabulary of the tokenizer")
        return int(end_id)

    def encode(self, prompts: Sequence[Prompt], answers: Sequence[Sequence[str]]) -> list[Encoded | UnusableError]:
        """The sequences of all answers of each prompt, encoded together; as many results as prompts."""
        texts: list[list[str] | UnusableError] = []
        for prompt, group in zip(prompts, answers, strict=True):
            try:
                texts.append([self._text(prompt, answer) for answer in group])
            except UnusableError as error:
                texts.append(error)
        sequences = iter(self._sequences([text for group in texts if isinstance(group, list) for text in group]))
        results: list[Encoded | UnusableError] = []
        for prompt, group, own_texts in zip(prompts, answers, texts, strict=True):
            if isinstance(own_texts, UnusableError):
                results.append(own_texts)
                continue
            own = [next(sequences) for _ in own_texts]
            try:
                fits = max(map(len, own)) <= self.max_length
                results.append(Encoded(own) if fits else self._truncated(prompt, group, own))
            except UnusableError as error:
                results.append(error)
        return results

    def _sequences(self, texts: list[str]) -> list[Ids]:
        first = self._first
        result = []
        for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False):
            ids = encoding.ids
            if not ids or ids[-1] != self.end_id or self.template == "plain":
                ids = [*first, *ids, self.end_id]
            result.append(np.asarray(ids, dtype=np.int32))
        return result

    def _text(self, prompt: Prompt, answer: str) -> str:
        if self.template == "chat":
            messages = [*prompt, {"role": "assistant", "content": answer}]
            try:
                return str(self._tokenizer.apply_chat_template(messages, tokenize=False)).rstrip()
            except Exception as error:
                raise TemplateRefusedError(f"the chat template refuses it: {_first_line(error)}") from error
        turns = [f"{SPEAKERS[turn['role']]}: {turn['content']}" for turn in prompt]
        return "\n\n".join([*turns, f"Assistant: {answer}"])

    def _truncated(self, prompt: Prompt, answers: Sequence[str], full: list[Ids]) -> Encoded:
        """Drop the oldest turns until all answers fit; where the last turn alone is too long, its beginning."""
        longest = max(map(len, full))
        system = [turn for turn in prompt if turn["role"] == "system"]
        turns = [turn for turn in prompt if turn["role"] != "system"]
        starts = [k for k in range(1, len(turns)) if turns[k]["role"] == "user"]
        current = full
        for start in starts:
            current = self._sequences([self._text([*system, *turns[start:]], answer) for answer in answers])
            if max(map(len, current)) <= self.max_length:
                return Encoded(current, longest - max(map(len, current)))
        shared = common_prefix(current)
        head = len(self._first)
        tails = [sequence[shared:] for sequence in current]
        room = self.max_length - head - max(map(len, tails))
        if room < 1:
            raise DoesNotFitError(max(map(len, tails)))
        kept = [np.concatenate([sequence[:head], sequence[shared - room :]]) for sequence in current]
        return Encoded(kept, longest - max(map(len, kept)))


def common_prefix(sequences: Sequence[Ids]) -> int:
    """How many leading tokens all sequences share, leaving each at least one of its own."""
    shortest = min(map(len, sequences)) - 1
    shared = shortest
    for sequence in sequences[1:]:
        different = np.flatnonzero(sequences[0][:shared] != sequence[:shared])
        if different.size:
            shared = int(different[0])
    return max(0, shared)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def describe(tokenizer: PreTrainedTokenizerFast, encoder: ConversationEncoder) -> dict[str, Any]:
    """What a manifest says of the tokenizer."""
    return {
        "template": encoder.template,
        "max_length": encoder.max_length,
        "end_id": encoder.end_id,
        "end_token": tokenizer.convert_ids_to_tokens(encoder.end_id),
        "pad_id": tokenizer.pad_token_id,
        "pad_token": tokenizer.pad_token,
        "num_padding_at_beginning": encoder.num_padding_at_beginning,
        "vocabulary": len(tokenizer),
    }
