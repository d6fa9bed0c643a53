"""Text for models that the pipeline did not train, as their publishers and other servers turn it into tokens."""

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from rewardline.tokens.encoder import ConversationEncoder
from rewardline.tokens.store import Ids
from rewardline.tokens.templates import ChatTemplate, Prompt
from rewardline.tokens.tokenizer import added_tokens


class PublishedChat(ChatTemplate):
    """A chat template to the letter: the published score is read at the last token that it puts behind an answer."""

    def _answered(self, prompt: Prompt, answer: str) -> str:
        return self._render([*prompt, {"role": "assistant", "content": answer}])


class PublishedEncoder(ConversationEncoder):
    """Conversations as a chat template alone writes them; those of a model without one as the pipeline does."""

    chat_format = PublishedChat
    ends_chats = False


class TextEncoder:
    """Complete texts, with the headings of prompt and answer in them; names of special tokens are read as tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, end_id: int, max_length: int) -> None:
        """`end_id`: the token at the end of a text."""
        self._backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = False
        self._end_id = end_id
        self._stripped = {end_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
        self._max_length = max_length
        self._leading_ids, self._trailing_ids = added_tokens(self._backend)
        self.cut = 0
        """Number of texts that lost tokens."""

    def encode(self, texts: Sequence[str], ended: bool) -> list[Ids]:
        """The tokens of each text, int32, with those that the tokenizer puts first unless the text begins with them.

        `ended`: as OpenRLHF's reward server does, end and padding tokens around the text give way to one end token.
        Otherwise as vLLM's, with what the tokenizer adds behind a text. A text of too many tokens loses its beginning.
        """
        results = []
        for encoding in self._backend.encode_batch_fast(list(texts), add_special_tokens=False):
            ids = list(encoding.ids)
            if ended:
                ids = [*_strip(ids, self._stripped), self._end_id]
            else:
                ids += self._trailing_ids
            leading = self._leading_ids
            if leading and ids[: len(leading)] == leading:
                leading = []
            if len(leading) + len(ids) > self._max_length:
                self.cut += 1
                leading = self._leading_ids
                ids = ids[len(ids) + len(leading) - self._max_length :]
            results.append(np.array([*leading, *ids], np.int32))
        return results


def _strip(ids: list[int], stripped: set[int]) -> list[int]:
    begin, end = 0, len(ids)
    while begin < end and ids[begin] in stripped:
        begin += 1
    while begin < end and ids[end - 1] in stripped:
        end -= 1
    return ids[begin:end]
