"""Reward models that the second step of DeepSpeed-Chat saved: their weights, their text, and where their score stands.

Such a folder holds the base model's config.json and a pytorch_model.bin with `rwtransformer.*` and `v_head.weight`. A
text is "Human: <prompt> Assistant: <answer><|endoftext|>", and its score is the value at the last token before the
padding. Where `<|endoftext|>` is the padding token as well (GPT-2 and its like), that is the answer's last token.
A text that holds the name of the padding token is read to its end here, where DeepSpeed-Chat stops at that token.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor
from transformers import PreTrainedTokenizerFast

from rewardline.core.errors import UserError
from rewardline.model.score_positions import Score
from rewardline.tokens.encoder import ConversationEncoder
from rewardline.tokens.templates import SPEAKERS, PlainTemplate, Prompt, Split

TRANSFORMERS = ("rwtransformer.", "rwtranrsformer.")
"""What the names of its transformer's weights begin with; the second in folders of older versions."""
HEAD = "v_head.weight"
END = "<|endoftext|>"


def is_deepspeed_chat(weights: Mapping[str, Tensor]) -> bool:
    """Whether the weights are those of a DeepSpeed-Chat reward model."""
    return HEAD in weights and any(name.startswith(TRANSFORMERS) for name in weights)


def renamed(weights: Mapping[str, Tensor], base: str) -> dict[str, Tensor]:
    """The weights as a sequence classifier calls them; `base` is its name for the transformer.

    Names of other kinds stay, for the strict loading to refuse.
    """
    result = {}
    for name, tensor in weights.items():
        old = next((prefix for prefix in TRANSFORMERS if name.startswith(prefix)), None)
        new = "score.weight" if name == HEAD else name if old is None else f"{base}.{name.removeprefix(old)}"
        result[new] = tensor
    return result


class Turns(PlainTemplate):
    """Turns on one line, `ending` behind the answer."""

    def __init__(self, ending: str) -> None:
        self._ending = ending

    def split(self, prompt: Prompt, answers: Sequence[str]) -> Split:
        """What the answers share, and each answer under its heading."""
        head = "".join(f"{SPEAKERS[turn['role']]}: {turn['content']} " for turn in prompt)
        bodies = [f"{self.heading} {answer}{self._ending}" for answer in answers]
        return Split(head, bodies, head + self.heading, apart=False)


class Place(NamedTuple):
    """Where the score stands: `ending` is the text that stands between the answer and the token of `score`."""

    ending: str
    score: Score


def place_of_score(tokenizer: PreTrainedTokenizerFast, leading: int, num_padding_at_beginning: int | None) -> Place:
    """Where DeepSpeed-Chat reads the score: just before the first padding token after `num_padding_at_beginning` such.

    `leading`: how many padding tokens (its end tokens) the tokenizer puts first. None stands for as many, which is
    where its third step reads too. One more moves the place by a token: onto `<|endoftext|>` if that is the padding
    token, else onto the first padding token, where a model that was trained so has learned to score.

    Raises:
        UserError: the place would be in front of the answer, or behind its text by more than a token.
    """
    further = 0 if num_padding_at_beginning is None else num_padding_at_beginning - leading
    if further not in (0, 1):
        raise UserError(
            f"--num-padding-at-beginning {num_padding_at_beginning}: the tokenizer puts {leading} padding tokens "
            f"first; give {leading}, or {leading + 1} if the model was trained so"
        )
    padded_with_end = tokenizer.eos_token == END
    if further == 0:
        return Place("" if padded_with_end else END, "end")
    return Place(END, "end" if padded_with_end else "first_padding")


class TurnsEncoder(ConversationEncoder):
    """Conversations as DeepSpeed-Chat's; `place` is where their score stands."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        *,
        max_length: int,
        num_padding_at_beginning: int | None = None,
    ) -> None:
        """Prepare the text.

        Raises:
            UserError: `num_padding_at_beginning` does not go with the tokenizer.
        """
        super().__init__(tokenizer, max_length=max_length, template="plain")
        self.place = place_of_score(tokenizer, self.num_padding_at_beginning, num_padding_at_beginning)
        self._format = Turns(self.place.ending)
        self._ending = []
        self._backend.encode_special_tokens = False  # names of tokens are tokens there, the ending among them
        self.encodes_prompts_once = False
