"""Reward models that the second step of DeepSpeed-Chat saved: their weights, their text, and where scores are read.

Such a folder contains the base model's config.json and a pytorch_model.bin with `rwtransformer.*` and `v_head.weight`.
A text is "Human: <prompt> Assistant: <answer><|endoftext|>", and its score is the value at the last token before the
padding. Where `<|endoftext|>` is also the padding token (GPT-2 and similar), that is the answer's last token.
A text that contains the name of the padding token is read to its end here, while DeepSpeed-Chat stops at that token.
"""

from collections.abc import Mapping, Sequence
from os.path import commonprefix

from torch import Tensor
from transformers import PreTrainedTokenizerFast

from rewardline.core.errors import UserError
from rewardline.data.schema import Message
from rewardline.data.turns import NO_INPUTS, SPEAKERS, TemplateInputs, turns_of
from rewardline.model.score_positions import Score
from rewardline.tokens.encoder import ConversationEncoder
from rewardline.tokens.templates import ConversationText, PlainTemplate, Prompt

TRANSFORMERS = ("rwtransformer.", "rwtranrsformer.")
"""Prefixes of the transformer's weights; the second in folders of older versions."""
HEAD = "v_head.weight"
KEY_MAPPING = {r"^rwtranr?sformer\.": "", r"^v_head\.weight$": "score.weight"}
"""Names of weights, as regular expressions, and their names in a sequence classifier, for `from_pretrained`."""
END = "<|endoftext|>"


def is_deepspeed_chat(weights: Mapping[str, Tensor]) -> bool:
    """Whether the weights are those of a DeepSpeed-Chat reward model."""
    return HEAD in weights and any(name.startswith(TRANSFORMERS) for name in weights)


class DeepSpeedChatTemplate(PlainTemplate):
    """All turns on one line, with `ending` after the answer."""

    def __init__(self, ending: str) -> None:
        self._ending = ending

    def render(self, prompt: Prompt, answers: Sequence[str], inputs: TemplateInputs = NO_INPUTS) -> ConversationText:
        """The text of the prompt with each answer."""
        head = _line(prompt)
        bodies = [f"{_line(turns_of(answer)).removesuffix(' ')}{self._ending}" for answer in answers]
        opening = head + commonprefix([self.heading, *bodies])  # noqa: RUF071 (of characters, as intended)
        return ConversationText(head, bodies, opening, splits_at_heading=False, prompt_changed=bool(inputs.tools))


def _line(turns: Sequence[Message]) -> str:
    return "".join(f"{SPEAKERS[turn['role']]}: {turn['content']} " for turn in turns)


def score_token(
    tokenizer: PreTrainedTokenizerFast, leading: int, num_padding_at_beginning: int | None
) -> tuple[str, Score]:
    """Where DeepSpeed-Chat reads the score: before the first padding token after the first `num_padding_at_beginning`.

    Returns the text that follows an answer, and the position of the score relative to that.

    `leading`: the number of padding tokens (its end tokens) that the tokenizer adds first, for which None stands; its
    third step reads there as well. One more reads a token later: at `<|endoftext|>` if that is the padding token, else
    at the first padding token, for models that were trained so.

    Raises:
        UserError: the score would be read before the answer, or more than one token after its text.
    """
    further = 0 if num_padding_at_beginning is None else num_padding_at_beginning - leading
    if further not in (0, 1):
        raise UserError(
            f"--num-padding-at-beginning {num_padding_at_beginning}: the tokenizer puts {leading} padding tokens "
            f"first; give {leading}, or {leading + 1} if the model was trained so"
        )
    padded_with_end = tokenizer.eos_token == END
    if further == 0:
        return "" if padded_with_end else END, "end"
    return END, "end" if padded_with_end else "first_padding"


class DeepSpeedChatEncoder(ConversationEncoder):
    """Encodes conversations as DeepSpeed-Chat does; `score` is where their score is read."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        *,
        max_length: int,
        num_padding_at_beginning: int | None = None,
    ) -> None:
        """Raise `UserError` if `num_padding_at_beginning` does not fit the tokenizer."""
        super().__init__(tokenizer, max_length=max_length, template="plain")
        ending, self.score = score_token(tokenizer, self.num_padding_at_beginning, num_padding_at_beginning)
        self._format = DeepSpeedChatTemplate(ending)
        self._end_ids = []
        self._backend.encode_special_tokens = False  # names of special tokens, as in the ending, are tokens there
        self.encodes_prompts_once = False
