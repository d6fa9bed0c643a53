"""From conversations to tokens: templates, end tokens, and truncation that keeps answers complete."""

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile
from typing import Final

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from rewardline.core.errors import UserError
from rewardline.data.schema import Message
from rewardline.data.turns import INSTRUCTING, NO_INPUTS, TemplateInputs
from rewardline.tokens.store import Ids, common_length
from rewardline.tokens.templates import (
    PLAIN,
    ChatTemplate,
    ConversationText,
    PlainTemplate,
    Prompt,
    TemplateRefusedError,
    UnusableError,
    check_syntax,
    export_chat,
    export_plain,
    is_plain_export,
)
from rewardline.tokens.tokenizer import (
    added_tokens,
    encode_texts,
    set_end_token,
    splits_at_words,
    starts_with_special_token,
)

_SYSTEM: Final[Prompt] = [{"role": "system", "content": "Be brief."}]
_TURNS: Final[Prompt] = [
    {"role": "user", "content": "\u00e9?"},
    {"role": "assistant", "content": "<think>\nx\n</think>\n\nNo"},
]
_LAST: Final[Prompt] = [{"role": "user", "content": "And 2 + 2?"}]
_PROBES: Final = (_LAST, _TURNS + _LAST, _SYSTEM + _LAST, _SYSTEM + _TURNS + _LAST)
_PROBE_ANSWERS: Final = ("def f():\n    return 1.", "Yes")
"""Conversations, and answers to each, by which a template is examined."""


Group = tuple[Prompt, Sequence[str], TemplateInputs]
"""A prompt, its answers, and what its chat template gets besides them."""


class AnswerTooLongError(UnusableError):
    """An answer that leaves too little room for its prompt; `length` is its number of tokens."""

    reason = "answer_too_long"

    def __init__(self, length: int) -> None:
        super().__init__(f"the answer alone has {length} tokens")
        self.length = length


@dataclass(frozen=True)
class EncodedAnswers:
    """The token sequences of all answers to a prompt: [prompt, answer, end token] each, int32.

    `answer_start`: the index of the first token of the answers, up to which all sequences are equal;
    `truncated_tokens`: the number of tokens cut from the prompt; `changed`, `prompt_changed`: of which answers, by
    index, and whether of the prompt the template leaves out or changes something; `too_long`: answers, by index, that
    leave too little room for the prompt: their sequences are empty.
    """

    sequences: list[Ids]
    answer_start: int
    truncated_tokens: int = 0
    changed: frozenset[int] = frozenset()
    prompt_changed: bool = False
    too_long: Mapping[int, AnswerTooLongError] = field(default_factory=dict)


class ConversationEncoder:
    """Encodes a prompt and its answers as token sequences of at most `max_length` tokens.

    Where the tokenizer is known to split the text at the answers' heading, the prompt is encoded once for all answers
    (`encodes_prompts_once`); the tokens are those of the complete conversations in either case.
    """

    chat_format: type[ChatTemplate] = ChatTemplate
    appends_end = True
    """Whether an end token is appended where the chat template adds none."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        *,
        max_length: int,
        template: str = "auto",
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, object] | None = None,
        end_token: str | None = None,
        num_padding_at_beginning: int | None = None,
    ) -> None:
        """Prepare the template.

        Raises:
            UserError: a template, the end token or `num_padding_at_beginning` does not fit the tokenizer.
        """
        if chat_template is not None:
            check_syntax(chat_template)
            tokenizer.chat_template = chat_template
        elif isinstance(tokenizer.chat_template, dict):  # several, by name
            if "default" not in tokenizer.chat_template:
                names = ", ".join(tokenizer.chat_template)
                raise UserError(f"the tokenizer has chat templates for {names}, but no default; set chat_template")
            tokenizer.chat_template = tokenizer.chat_template["default"]
        has_chat = bool(tokenizer.chat_template)
        if template == "chat" and not has_chat:
            raise UserError("template: chat is set, but the tokenizer has no chat template; use plain or auto")
        if template == "auto":
            template = "chat" if has_chat and not is_plain_export(tokenizer.chat_template) else "plain"
        if template == "plain" and chat_template_kwargs:
            raise UserError(
                "chat_template_kwargs is set, but the model reads plain text; remove it, or template: plain"
            )
        self.template = template
        self._variables = dict(chat_template_kwargs or {})
        self.max_length = max_length
        self._tokenizer = tokenizer
        self._backend: Tokenizer = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        # In plain text, the name of a special token is text.
        self._backend.encode_special_tokens = self.template == "plain"
        end_id = tokenizer.eos_token_id if end_token is None else tokenizer.get_vocab().get(end_token)
        if end_id is None and end_token is None:
            raise UserError(
                "the tokenizer has no end token; set end_token to a token of its vocabulary, or eos_token in its "
                "tokenizer_config.json"
            )
        if end_id is None:
            raise UserError(f"end_token: {end_token!r} is not in the vocabulary of the tokenizer")
        if end_id == tokenizer.pad_token_id:
            raise UserError(f"end_token: {end_token!r} is the padding token of the tokenizer; name another")
        self.end_id = int(end_id)
        self._eos = None if end_id == tokenizer.eos_token_id else tokenizer.eos_token
        set_end_token(tokenizer, tokenizer.convert_ids_to_tokens(self.end_id))
        self._end_ids = [self.end_id] if self.template == "plain" or self.appends_end else []
        leading, _ = added_tokens(self._backend)
        self.leading_ids = leading if self.template == "plain" else []
        self.num_padding_at_beginning = sum(
            token in (tokenizer.eos_token_id, tokenizer.pad_token_id) for token in leading
        )
        if num_padding_at_beginning not in (None, self.num_padding_at_beginning):
            raise UserError(
                f"num_padding_at_beginning is {num_padding_at_beginning}, but the tokenizer puts "
                f"{self.num_padding_at_beginning} end or padding tokens first; correct it or leave it out"
            )
        self._format: PlainTemplate | ChatTemplate
        if self.template == "plain":
            self._format = PLAIN
            splits = splits_at_words(self._backend)
        else:
            self._format = self.chat_format(tokenizer, self._eos, self._variables)
            splits = starts_with_special_token(self._backend, self._format.heading)
        end = tokenizer.convert_ids_to_tokens(self.end_id)
        self.ending = self._format.ending
        if not self.ending.endswith(end):
            self.ending += end
        heading = self._format.heading
        self._heading_ids: list[int] = self._backend.encode(heading, add_special_tokens=False).ids
        self.encodes_prompts_once = bool(heading) and splits

    def first_ids(self) -> list[int]:
        """The tokens that every text begins with among those that may also be around one: leading, end and padding.

        Some chat templates begin with a token that is the end token too, as that of OLMo 2 does.
        """
        (encoded,) = self._encode_in_full([(_LAST, ["a"], NO_INPUTS)])
        if self.template == "plain" or isinstance(encoded, UnusableError):
            return self.leading_ids
        around = {self.end_id, self._tokenizer.eos_token_id, self._tokenizer.pad_token_id}
        return list(takewhile(around.__contains__, encoded.sequences[0].tolist()))

    def export_template(self) -> str | None:
        """A chat template with which plain transformers give messages the tokens of `encode`, end token included.

        None if there is none, as the tokenizer divides a complete text otherwise than its parts.
        """
        end = self._tokenizer.convert_ids_to_tokens(self.end_id)
        if isinstance(self._format, ChatTemplate):
            base, abilities = self._tokenizer.chat_template, self._format.abilities
            candidates = [export_chat(base, end, self._eos, self._variables, abilities)]
        else:
            leading = "".join(self._tokenizer.convert_ids_to_tokens(self.leading_ids))
            # Some tokenizers put a space before a text, but not after the tokens that come first.
            candidates = [export_plain(leading + space, end) for space in ("", " ")]
        encodings = self._encode_in_full([(prompt, _PROBE_ANSWERS, NO_INPUTS) for prompt in _PROBES])
        accepted = [
            (prompt, encoded.sequences)
            for prompt, encoded in zip(_PROBES, encodings, strict=True)
            if isinstance(encoded, EncodedAnswers)
        ]
        names_are_text = self._backend.encode_special_tokens
        self._backend.encode_special_tokens = False  # as plain transformers have it
        try:
            for candidate in candidates:
                if all(self._is_rendered_so(candidate, *probe) for probe in accepted):
                    return candidate
        finally:
            self._backend.encode_special_tokens = names_are_text
        return None

    def _is_rendered_so(self, template: str, prompt: Prompt, sequences: Sequence[Ids]) -> bool:
        """Whether plain transformers with a template give a prompt with the answers of the probes their tokens."""
        for answer, ids in zip(_PROBE_ANSWERS, sequences, strict=True):
            messages = [*prompt, {"role": "assistant", "content": f"{answer}\n"}]
            text = self._tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
            if self._tokenizer(text, add_special_tokens=False)["input_ids"] != ids.tolist():
                return False
        return True

    def encode(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[Sequence[str]],
        inputs: Sequence[TemplateInputs] | None = None,
    ) -> list[EncodedAnswers | UnusableError]:
        """The sequences of all answers to each prompt, encoded together; as many results as prompts.

        `inputs`: what the chat template gets besides each prompt; None for nothing.
        """
        groups: list[Group] = list(zip(prompts, answers, inputs or [NO_INPUTS] * len(prompts), strict=True))
        results = self._encode_in_full(groups)
        for index, (group, full) in enumerate(zip(groups, results, strict=True)):
            if isinstance(full, EncodedAnswers) and max(map(len, full.sequences)) > self.max_length:
                try:
                    results[index] = self._truncated(*group, full)
                except UnusableError as error:
                    results[index] = error.with_traceback(None)
        return results

    def _encode_in_full(self, groups: Sequence[Group]) -> list[EncodedAnswers | UnusableError]:
        """Encode each prompt with its answers, whatever the length; all texts in one call of the tokenizer."""
        texts: list[ConversationText | UnusableError] = []
        flat: list[str] = []
        for group in groups:
            try:
                text = self._format.render(*group)
            except UnusableError as error:
                texts.append(error.with_traceback(None))  # which holds this frame, and so all texts
                continue
            texts.append(text)
            flat.append(text.opening)
            flat += text.bodies if self._is_encoded_once(text) else [text.head + body for body in text.bodies]
        encodings = iter(self._encode_texts(flat))
        return [
            self._assemble(text, *islice(encodings, 1 + len(text.bodies)))
            if isinstance(text, ConversationText)
            else text
            for text in texts
        ]

    def _is_encoded_once(self, text: ConversationText) -> bool:
        return self.encodes_prompts_once and text.splits_at_heading

    def _encode_texts(self, texts: list[str]) -> list[Ids]:
        return [np.array(ids, np.int32) for ids in encode_texts(self._backend, texts)]

    def _assemble(self, text: ConversationText, opening: Ids, *bodies: Ids) -> EncodedAnswers:
        """The sequences [leading tokens, prompt, answer, end token] from the tokens of a text's parts."""
        if self._is_encoded_once(text):
            size = len(opening) - len(self._heading_ids)
            if opening[size:].tolist() == self._heading_ids:
                bodies = tuple(np.concatenate([opening[:size], body]) for body in bodies)
            else:  # tokens of the heading merge with the text before it
                bodies = tuple(self._encode_texts([text.head + body for body in text.bodies]))
        leading, end = np.array(self.leading_ids, np.int32), np.array(self._end_ids, np.int32)
        start = min(common_length(opening, body) for body in bodies)
        sequences = []
        for body in bodies:
            has_end = self.template == "chat" and len(body) and body[-1] == self.end_id
            sequences.append(np.concatenate([leading, body] if has_end else [leading, body, end]))
        return EncodedAnswers(sequences, len(leading) + start, changed=text.changed, prompt_changed=text.prompt_changed)

    def _encode_one(self, prompt: Prompt, answers: Sequence[str], inputs: TemplateInputs) -> EncodedAnswers:
        (result,) = self._encode_in_full([(prompt, answers, inputs)])
        if isinstance(result, UnusableError):
            raise result
        return result

    def _truncated(
        self, prompt: Prompt, answers: Sequence[str], inputs: TemplateInputs, full: EncodedAnswers
    ) -> EncodedAnswers:
        """The sequences with a shorter prompt, the same for all answers that leave room for some of it.

        The oldest turns are removed first, up to one of the user; then the beginning of the last turn is cut. System
        messages, and the turns between the user's and the last one, are kept while they leave room. Tools are kept, and
        answers are never cut.
        """
        last = max((k for k, turn in enumerate(prompt) if turn["role"] not in INSTRUCTING), default=len(prompt) - 1)
        bare = self._encode_one([_bare(prompt[last])], ["a"], inputs)
        lengths = [len(sequence) - full.answer_start for sequence in full.sequences]
        room = self.max_length - bare.answer_start - self._least_prompt(prompt[last]["content"])
        fitting = [index for index, length in enumerate(lengths) if length <= room]
        if not fitting:
            raise AnswerTooLongError(min(lengths))
        longest = max(fitting, key=lambda index: lengths[index])
        shorter = self._longest_fitting_prompt(prompt, last, answers[longest], inputs)
        encoded = self._encode_one(shorter, [answers[index] for index in fitting], inputs)
        sequences = [np.zeros(0, np.int32) for _ in answers]
        for index, sequence in zip(fitting, encoded.sequences, strict=True):
            sequences[index] = sequence
        too_long = {index: AnswerTooLongError(length) for index, length in enumerate(lengths) if length > room}
        cut = full.answer_start - encoded.answer_start
        return replace(
            full, sequences=sequences, answer_start=encoded.answer_start, truncated_tokens=cut, too_long=too_long
        )

    def _least_prompt(self, content: str) -> int:
        """The least tokens to keep of the last turn: all of a short one, else a sixteenth of `max_length`."""
        return min(len(self._encode_texts([content])[0]), max(8, self.max_length // 16))

    def _longest_fitting_prompt(self, prompt: Prompt, last: int, answer: str, inputs: TemplateInputs) -> Prompt:
        """The longest end of the prompt that fits with an answer; `last` is the index of its last turn."""

        def length(messages: Prompt) -> int:
            try:
                return len(self._encode_one(messages, [answer], inputs).sequences[0])
            except TemplateRefusedError:  # such as a tool's turn without its call
                return self.max_length + 1

        def since(start: int) -> Prompt:
            return [turn for k, turn in enumerate(prompt) if k >= start or turn["role"] in INSTRUCTING]

        def cut_at(start: int, before: Prompt) -> Prompt:
            return [*before, _with_content(prompt[last], content[start:])]

        is_users = prompt[last]["role"] not in ("assistant", "tool")
        starts = [k for k in range(last + 1) if prompt[k]["role"] == "user" or k == 0 or (k == last and is_users)]
        first = bisect_left(starts, True, key=lambda start: length(since(start)) <= self.max_length)
        if first < len(starts):
            return since(starts[first])
        content = prompt[last]["content"]
        least = self._least_prompt(content)
        system = [turn for k, turn in enumerate(prompt) if turn["role"] in INSTRUCTING and k != last]
        between = [turn for k, turn in enumerate(prompt) if k != last and (k >= starts[-1] or turn in system)]
        for before in (*([between] if between != system else []), *([system] if system else []), []):
            # Cut at words, and encode each cut: tokens of a part of a text need not be those of the complete text.
            cuts = [0, *(match.start() for match in re.finditer(r"(?<=\s)\S", content))]
            cuts = cuts if len(cuts) > 1 else list(range(len(content)))
            first = bisect_left(cuts, True, key=lambda cut: length(cut_at(cut, before)) <= self.max_length)
            if first < len(cuts) and (len(self._encode_texts([content[cuts[first] :]])[0]) >= least or not before):
                return cut_at(cuts[first], before)
        raise AnswerTooLongError(length([_bare(prompt[last])]))


def _bare(turn: Message) -> Message:
    """A short turn of the same role, or of the user's."""
    return {"role": turn["role"] if turn["role"] in INSTRUCTING else "user", "content": "a"}


def _with_content(turn: Message, content: str) -> Message:
    """A turn with another text."""
    cut: Message = {"role": turn["role"], "content": content}
    if turn["role"] == "tool" and "native" in turn:
        cut["native"] = {**turn["native"], "content": content}
    return cut
