"""Encoding of text for models that the pipeline did not train, as their publishers and other servers encode it."""

import re
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from rewardline.data.turns import TemplateInputs
from rewardline.tokens.encoder import ConversationEncoder
from rewardline.tokens.store import Ids
from rewardline.tokens.templates import ChatTemplate, Prompt
from rewardline.tokens.tokenizer import added_tokens, encode_texts, starts_with_special_token


class PublishedChat(ChatTemplate):
    """A chat template without changes: the published score is read at the last token that it adds after an answer."""

    def _rendered(self, turns: Prompt, inputs: TemplateInputs) -> str:
        return self._render(turns, inputs)


class PublishedEncoder(ConversationEncoder):
    """Encodes conversations by the chat template alone, or as the pipeline does for a model without one."""

    chat_format = PublishedChat
    appends_end = False


class TextEncoder:
    """Encodes complete texts, which include the headings of prompt and answer, and special tokens by name.

    Attributes:
        cut: the number of texts that lost tokens.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        end_id: int,
        max_length: int,
        leading: Sequence[int] | None = None,
        ending: str = "",
    ) -> None:
        """`end_id`: the token at the end of a text. `leading`: those before a text whose last part is `ending`, as in
        training; None for the leading and trailing tokens that the tokenizer adds."""
        self._backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = False
        self._end_id = end_id
        self._stripped = {end_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
        self._max_length = max_length
        self._leading_ids, self._trailing_ids = added_tokens(self._backend)
        if leading is not None:
            self._leading_ids, self._trailing_ids = list(leading), []
        self._names = tokenizer.convert_ids_to_tokens(list(self._stripped | {*self._leading_ids}))
        self._ending = ending
        special = "|".join(map(re.escape, tokenizer.all_special_tokens))
        self._closing = {*self._names, *(part.strip() for part in re.split(f"({special})", ending))} - {""}
        self.cut = 0

    def complete(self, text: str) -> str:
        """The text as in training, whatever of its ending and of leading, end and padding tokens it has.

        White space before it is part of it, except before a special token.
        """
        before = None
        while text != before:
            before = text
            for name in self._names:
                text = text.removeprefix(name)
            for part in self._closing:
                text = text.rstrip().removesuffix(part)
            if starts_with_special_token(self._backend, start := text.lstrip()):
                text = start
        return text + self._ending

    def encode(self, texts: Sequence[str], ended: bool) -> list[Ids]:
        """The tokens of each text, int32, after the leading tokens of the tokenizer unless the text begins with them.

        `ended`: as OpenRLHF's reward server, replace end and padding tokens around the text by one end token;
        otherwise, as vLLM's, append the tokenizer's trailing tokens. A text of too many tokens loses its beginning.
        """
        results = []
        for ids in encode_texts(self._backend, texts):
            if ended:
                ids = [*self._without_ends(ids), self._end_id]
            else:
                ids += self._trailing_ids
            results.append(self._from_start(ids))
        return results

    def end(self, ids: Sequence[int]) -> Ids:
        """The tokens of a text, int32, from tokens of it that someone else has encoded or sampled.

        For a trained model they begin and end as in training, whatever of that they have; for others they are used as
        they are. Too many lose their beginning.
        """
        if self._ending:
            ending: list[int] = self._backend.encode(self._ending, add_special_tokens=False).ids
            text = list(self._without_ends(ids))
            there = next(k for k in range(len(ending), -1, -1) if text[len(text) - k :] == ending[:k])
            return self._from_start([*text, *ending[there:]])
        self.cut += len(ids) > self._max_length
        return np.array(ids[-self._max_length :], np.int32)

    def _without_ends(self, ids: Sequence[int]) -> Sequence[int]:
        """Tokens without end and padding tokens around them."""
        text = [index for index, token in enumerate(ids) if token not in self._stripped]
        return ids[text[0] : text[-1] + 1] if text else []

    def _from_start(self, ids: list[int]) -> Ids:
        """Tokens after the leading ones, which they may have already; too many lose their beginning."""
        leading = self._leading_ids
        if leading and ids[: len(leading)] == leading:
            leading = []
        if len(leading) + len(ids) > self._max_length:
            self.cut += 1
            leading = self._leading_ids
            ids = ids[len(ids) + len(leading) - self._max_length :]
        return np.array([*leading, *ids], np.int32)
