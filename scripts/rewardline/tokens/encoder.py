"""From conversations to tokens: the end token, and truncation that keeps what matters."""

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rewardline.core.errors import UserError
from rewardline.tokens.templates import (
    PLAIN,
    ChatTemplate,
    PlainTemplate,
    Prompt,
    Split,
    UnusableError,
    check_syntax,
    special_first,
    words_apart,
)

Ids = npt.NDArray[np.int32]
PAD_TOKEN = "<|pad|>"


class DoesNotFitError(UnusableError):
    """An answer that leaves too little room for its prompt; `length` is its number of tokens."""

    reason = "answer_too_long"

    def __init__(self, length: int) -> None:
        super().__init__(f"the answer alone has {length} tokens")
        self.length = length


def load_tokenizer(folder: Path | str, trust_remote_code: bool = False) -> PreTrainedTokenizerFast:
    """The tokenizer in a model folder, with a padding token that is not its end token.

    Raises:
        UserError: there is none, it is not a fast tokenizer, or it knows no end token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{folder}: its tokenizer cannot be loaded: {reason}") from error
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
    """The sequences of all answers to a prompt: [prompt, answer, end token] each.

    `answer_start` is the index of the first token of the answers, at which all sequences are still the same or part;
    `cut_tokens` is what they lost of their prompt. `unfit` are answers (by index) that leave too little room for the
    prompt: their sequences are empty.
    """

    sequences: list[Ids]
    answer_start: int
    cut_tokens: int = 0
    unfit: Mapping[int, DoesNotFitError] = field(default_factory=dict)


class ConversationEncoder:
    """Turns a prompt and its answers into token sequences of at most `max_length` tokens, as the model sees them.

    Where the tokenizer is known to treat what stands before and after the answers' heading apart, the prompt is
    encoded once for all answers; the tokens are those of the whole conversations in either case.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        *,
        max_length: int,
        template: str = "auto",
        chat_template: str | None = None,
        end_token: str | None = None,
        num_padding_at_beginning: int | None = None,
    ) -> None:
        """Prepare the template.

        Raises:
            UserError: a template, the end token or `num_padding_at_beginning` does not go with the tokenizer.
        """
        if chat_template is not None:
            check_syntax(chat_template)
            tokenizer.chat_template = chat_template
        self.chat_template = chat_template
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
        self._ending: list[int] = [self.end_id]
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
        self._format: PlainTemplate | ChatTemplate = PLAIN if self.template == "plain" else ChatTemplate(tokenizer)
        heading = self._format.heading
        self._heading: list[int] = self._backend.encode(heading, add_special_tokens=False).ids
        apart = words_apart(self._backend) if self.template == "plain" else special_first(self._backend, heading)
        self.encodes_prompts_once = bool(heading) and apart

    def _end_id(self, end_token: str | None) -> int:
        if end_token is None:
            return int(self._tokenizer.eos_token_id)
        end_id = self._tokenizer.get_vocab().get(end_token)
        if end_id is None:
            raise UserError(f"end_token: {end_token!r} is not in the vocabulary of the tokenizer")
        return int(end_id)

    def encode(self, prompts: Sequence[Prompt], answers: Sequence[Sequence[str]]) -> list[Encoded | UnusableError]:
        """The sequences of all answers of each prompt, encoded together; as many results as prompts."""
        results: list[Encoded | UnusableError] = []
        encoded = self._encode_all(list(zip(prompts, answers, strict=True)))
        for prompt, group, own in zip(prompts, answers, encoded, strict=True):
            try:
                if isinstance(own, Encoded) and max(map(len, own.sequences)) > self.max_length:
                    own = self._fitted(prompt, group, own)
                results.append(own)
            except UnusableError as error:
                results.append(error)
        return results

    def _encode_all(self, groups: list[tuple[Prompt, Sequence[str]]]) -> list[Encoded | UnusableError]:
        """Encode each prompt with its answers, whatever the length; all texts in one call of the tokenizer."""
        texts: list[Split | UnusableError] = []
        for prompt, answers in groups:
            try:
                texts.append(self._format.split(prompt, answers))
            except UnusableError as error:
                texts.append(error)
        flat: list[str] = []
        for split in texts:
            if isinstance(split, Split):
                flat.append(split.opening)
                flat += split.bodies if self._once(split) else [split.head + body for body in split.bodies]
        encodings = iter(self._ids(flat))
        results: list[Encoded | UnusableError] = []
        for split in texts:
            if isinstance(split, UnusableError):
                results.append(split)
            else:
                opening = next(encodings)
                results.append(self._assembled(split, opening, [next(encodings) for _ in split.bodies]))
        return results

    def _once(self, split: Split) -> bool:
        return self.encodes_prompts_once and split.apart

    def _ids(self, texts: list[str]) -> list[Ids]:
        batch = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, np.int32) for encoding in batch]

    def _assembled(self, split: Split, opening: Ids, bodies: list[Ids]) -> Encoded:
        """Put prompt, answers, the tokens that come first and the end token together."""
        if self._once(split):
            size = len(opening) - len(self._heading)
            if opening[size:].tolist() == self._heading:
                bodies = [np.concatenate([opening[:size], body]) for body in bodies]
            else:  # the heading runs into what stands before it
                bodies = self._ids([split.head + body for body in split.bodies])
        first = np.array(self._first, np.int32)
        end = np.array(self._ending, np.int32)
        start = min(_common(opening, body) for body in bodies)
        sequences = []
        for body in bodies:
            ended = self.template == "chat" and len(body) and body[-1] == self.end_id
            parts = [first, body] if ended else [first, body, end]
            sequences.append(np.concatenate(parts))
        return Encoded(sequences, len(first) + start)

    def _one(self, prompt: Prompt, answers: Sequence[str]) -> Encoded:
        (result,) = self._encode_all([(prompt, answers)])
        if isinstance(result, UnusableError):
            raise result
        return result

    def _fitted(self, prompt: Prompt, answers: Sequence[str], full: Encoded) -> Encoded:
        """Shorten the prompt, the same for all answers that leave room for some of it.

        Its oldest turns go first; where the last one alone is too long, its beginning goes. System messages stay while
        they leave room. Answers are never cut.
        """
        last = max((k for k, turn in enumerate(prompt) if turn["role"] != "system"), default=len(prompt) - 1)
        system = [turn for k, turn in enumerate(prompt) if turn["role"] == "system" and k != last]
        bare = self._one([{**prompt[last], "content": "a"}], ["a"])
        sizes = [len(sequence) - full.answer_start for sequence in full.sequences]
        room = self.max_length - bare.answer_start - self._least_prompt(prompt[last]["content"])
        fit = [size <= room for size in sizes]
        if not any(fit):
            raise DoesNotFitError(min(sizes))
        unfit = {k: DoesNotFitError(size) for k, size in enumerate(sizes) if size > room}
        kept = [answer for answer, good in zip(answers, fit, strict=True) if good]
        longest = max((k for k, good in enumerate(fit) if good), key=lambda k: sizes[k])
        shorter = self._shortest_cut(prompt, system, last, answers[longest])
        sequences = iter((found := self._one(shorter, kept)).sequences)
        nothing = np.zeros(0, np.int32)
        every = [next(sequences) if good else nothing for good in fit]
        return Encoded(every, found.answer_start, full.answer_start - found.answer_start, unfit)

    def _least_prompt(self, content: str) -> int:
        """Tokens that must be left of the last turn: all of a short one, else a sixteenth of the room."""
        return min(len(self._ids([content])[0]), max(8, self.max_length // 16))

    def _shortest_cut(self, prompt: Prompt, system: Prompt, last: int, answer: str) -> Prompt:
        """The most of the prompt that fits with an answer."""

        def length(messages: Prompt) -> int:
            return len(self._one(messages, [answer]).sequences[0])

        def since(start: int) -> Prompt:
            return [turn for k, turn in enumerate(prompt) if k >= start or turn["role"] == "system"]

        starts = [k for k in range(last + 1) if prompt[k]["role"] == "user" or k in (0, last)]
        place = bisect_left(starts, True, key=lambda start: length(since(start)) <= self.max_length)
        if place < len(starts):
            return since(starts[place])
        content = prompt[last]["content"]
        least = self._least_prompt(content)
        for before in (system, []) if system else ([],):
            # Whole words, found by length: tokens of a part of a text need not be those of the whole.
            cuts = [0, *(match.start() for match in re.finditer(r"(?<=\s)\S", content))]
            cuts = cuts if len(cuts) > 1 else list(range(len(content)))
            found = bisect_left(
                cuts,
                True,
                key=lambda cut: length([*before, {**prompt[last], "content": content[cut:]}]) <= self.max_length,
            )
            if found < len(cuts) and (len(self._ids([content[cuts[found] :]])[0]) >= least or not before):
                return [*before, {**prompt[last], "content": content[cuts[found] :]}]
        raise DoesNotFitError(length([{**prompt[last], "content": "a"}]))


def common_prefix(sequences: Sequence[Ids]) -> int:
    """How many leading tokens all sequences share, leaving each at least one of its own."""
    shared = min(map(len, sequences)) - 1
    for sequence in sequences[1:]:
        shared = min(shared, _common(sequences[0], sequence))
    return max(0, shared)


def _common(one: Ids, other: Ids) -> int:
    """How many leading tokens two sequences share."""
    size = min(len(one), len(other))
    different = np.flatnonzero(one[:size] != other[:size])
    return int(different[0]) if different.size else size


def describe(tokenizer: PreTrainedTokenizerFast, encoder: ConversationEncoder) -> dict[str, Any]:
    """What a manifest says of the tokenizer."""
    return {
        "template": encoder.template,
        "chat_template": encoder.chat_template,
        "max_length": encoder.max_length,
        "end_id": encoder.end_id,
        "end_token": tokenizer.convert_ids_to_tokens(encoder.end_id),
        "pad_id": tokenizer.pad_token_id,
        "pad_token": tokenizer.pad_token,
        "num_padding_at_beginning": encoder.num_padding_at_beginning,
        "vocabulary": len(tokenizer),
    }
