"""Reward models that the second step of DeepSpeed-Chat saved: their weights, their text, and where scores are read.

Such a folder holds the base model's config.json and a pytorch_model.bin with `rwtransformer.*` and `v_head.weight`. A
text is "Human: <prompt> Assistant: <answer><|endoftext|>", and its score is the value at the last token before the
padding. Where `<|endoftext|>` is the padding token as well (GPT-2 and similar), that is the answer's last token.
A text that holds the name of the padding token is read to its end here, where DeepSpeed-Chat stops at that token.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor
from transformers import PreTrainedTokenizerFast

from rewardline.core.errors import UserError
from rewardline.model.score_positions import Score
from rewardline.tokens.encoder import ConversationEncoder
from rewardline.tokens.templates import SPEAKERS, ConversationText, PlainTemplate, Prompt

TRANSFORMERS = ("rwtransformer.", "rwtranrsformer.")
"""Prefixes of its transformer's weights; the second in folders of older versions."""
HEAD = "v_head.weight"
END = "<|endoftext|>"


def is_deepspeed_chat(weights: Mapping[str, Tensor]) -> bool:
    """Whether the weights are those of a DeepSpeed-Chat reward model."""
    return HEAD in weights and any(name.startswith(TRANSFORMERS) for name in weights)


def renamed(weights: Mapping[str, Tensor], base: str) -> dict[str, Tensor]:
    """The weights by their names in a sequence classifier; `base` is its name for the transformer.

    Names of other kinds stay, for the strict loading to refuse.
    """
    result = {}
    for name, tensor in weights.items():
        old = next((prefix for prefix in TRANSFORMERS if name.startswith(prefix)), None)
        new = "score.weight" if name == HEAD else name if old is None else f"{base}.{name.removeprefix(old)}"
        result[new] = tensor
    return result


class DeepSpeedChatTemplate(PlainTemplate):
    """Turns on one line, `ending` behind the answer."""

    def __init__(self, ending: str) -> None:
        self._ending = ending

    def render(self, prompt: Prompt, answers: Sequence[str]) -> ConversationText:
        """The text of the prompt with each answer."""
        head = "".join(f"{SPEAKERS[turn['role']]}: {turn['content']} " for turn in prompt)
        bodies = [f"{self.heading} {answer}{self._ending}" for answer in answers]
        return ConversationText(head, bodies, head + self.heading, splits_at_heading=False)


class ScoreToken(NamedTuple):
    """The token whose value is the score, counted from `ending`, the text between the answer and that token."""

    ending: str
    score: Score


def score_token(tokenizer: PreTrainedTokenizerFast, leading: int, num_padding_at_beginning: int | None) -> ScoreToken:
    """Where DeepSpeed-Chat reads the score: just before the first padding token after `num_padding_at_beginning` such.

    `leading`: the number of padding tokens (its end tokens) that the tokenizer puts first. None stands for as many,
    where its third step reads too. One more reads a token later: at `<|endoftext|>` if that is the padding token, else
    at the first padding token, where a model that was trained so has learned to score.

    Raises:
        UserError: the score would be read in front of the answer, or behind its text by more than a token.
    """
    further = 0 if num_padding_at_beginning is None else num_padding_at_beginning - leading
    if further not in (0, 1):
        raise UserError(
            f"--num-padding-at-beginning {num_padding_at_beginning}: the tokenizer puts {leading} padding tokens "
            f"first; give {leading}, or {leading + 1} if the model was trained so"
        )
    padded_with_end = tokenizer.eos_token == END
    if further == 0:
        return ScoreToken("" if padded_with_end else END, "end")
    return ScoreToken(END, "end" if padded_with_end else "first_padding")


class DeepSpeedChatEncoder(ConversationEncoder):
    """Conversations as DeepSpeed-Chat's; `score` is where their score is read."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        *,
        max_length: int,
        num_padding_at_beginning: int | None = None,
    ) -> None:
        """Prepare the text.

        Raises:
            UserError: `num_padding_at_beginning` does not fit the tokenizer.
        """
        super().__init__(tokenizer, max_length=max_length, template="plain")
        ending, self.score = score_token(tokenizer, self.num_padding_at_beginning, num_padding_at_beginning)
        self._format = DeepSpeedChatTemplate(ending)
        self._end_ids = []
        self._backend.encode_special_tokens = False  # names of tokens are tokens there, the ending among them
        self.encodes_prompts_once = False
