"""Text for models that the pipeline did not train, as their publishers and other servers turn it into tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from rewardline.tokens.encoder import ConversationEncoder, Ids
from rewardline.tokens.templates import ChatTemplate, Prompt


class PublishedChat(ChatTemplate):
    """A chat template to the letter: what it puts behind an answer is where the published score stands."""

    def _answered(self, prompt: Prompt, answer: str) -> str:
        return self._render([*prompt, {"role": "assistant", "content": answer}])


class PublishedEncoder(ConversationEncoder):
    """Conversations as a chat template alone writes them; those of a model without one as the pipeline does."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, **options: Any) -> None:
        super().__init__(tokenizer, **options)
        if self.template == "chat":
            self._format = PublishedChat(tokenizer)
            self._ending = []


class TextEncoder:
    """Whole texts, with the headings of prompt and answer in them; names of special tokens are read as tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, end_id: int, max_length: int) -> None:
        """`end_id`: the token at the end of a text."""
        self._backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = False
        self._end_id = end_id
        self._dropped = {end_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
        self._max_length = max_length
        bare = self._backend.encode("a", add_special_tokens=False).ids
        full = self._backend.encode("a", add_special_tokens=True).ids
        starts = [k for k in range(len(full)) if full[k : k + len(bare)] == bare] or [0]
        self._first = full[: starts[0]]
        self._last = full[starts[0] + len(bare) :]
        self.cut = 0
        """How many texts lost tokens."""

    def encode(self, texts: Sequence[str], ended: bool) -> list[Ids]:
        """The tokens of each text, int32, with those that the tokenizer puts first unless they are there.

        `ended`: as OpenRLHF's reward server does, end and padding tokens around the text give way to one end token.
        Otherwise as vLLM's, with what the tokenizer adds behind a text. A text of too many tokens loses its beginning.
        """
        found = []
        for encoding in self._backend.encode_batch_fast(list(texts), add_special_tokens=False):
            ids = list(encoding.ids)
            if ended:
                ids = [*_stripped(ids, self._dropped), self._end_id]
            else:
                ids += self._last
            first = [] if self._first and ids[: len(self._first)] == self._first else self._first
            if len(first) + len(ids) > self._max_length:
                self.cut += 1
                first = self._first
                ids = ids[len(ids) + len(first) - self._max_length :]
            found.append(np.array([*first, *ids], np.int32))
        return found


def _stripped(ids: list[int], dropped: set[int]) -> list[int]:
    begin, end = 0, len(ids)
    while begin < end and ids[begin] in dropped:
        begin += 1
    while begin < end and ids[end - 1] in dropped:
        end -= 1
    return ids[begin:end]
