"""Settings of tokenizers and of the encoding of text."""

from collections.abc import Mapping
from datetime import date
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, JsonValue, field_validator

from rewardline.core.settings import Integer, Number, Settings, Text
from rewardline.core.template_variables import RESERVED

TODAY: Final = date(2024, 7, 26)
"""The date given to chat templates that ask for it, so that equal conversations have equal tokens on every day."""


_TOKENIZER_FILES: Final = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.*"),
    *("merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "chat_template.*"),
)


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a folder that are those of a tokenizer, in order."""
    return sorted(path for path in folder.iterdir() if any(fnmatch(path.name, name) for name in _TOKENIZER_FILES))


class EncodingSettings(Settings):
    """How text becomes tokens."""

    max_length: Integer = Field(
        512,
        ge=8,
        description="Maximum number of tokens of a prompt with an answer. A longer prompt loses its oldest turns, then"
        " the beginning of its last turn. Answers are never truncated: a pair whose answer leaves less than a"
        " sixteenth of `max_length` to a longer prompt is left out and counted.",
    )
    template: Literal["auto", "chat", "plain"] = Field(
        "auto",
        description="`chat` uses the chat template of the tokenizer, `plain` writes `Human: ...` and `Assistant: ...`,"
        " and `auto` uses `chat` if the tokenizer has a chat template, else `plain`.",
    )
    chat_template: Text | None = Field(
        None,
        description="Chat template (Jinja, as in transformers) to use instead of the tokenizer's. Each model is saved"
        " with a template that renders messages as in training, up to the end token.",
    )
    chat_template_kwargs: dict[str, JsonValue] = Field(
        {},
        description="Variables of the chat template, such as `enable_thinking`, for all rows; those of a row's own"
        " `chat_template_kwargs` come first.",
    )
    end_token: Text | None = Field(
        None,
        description="Token that ends an answer and at which the score is read; by default the EOS token of the"
        " tokenizer.",
    )
    num_padding_at_beginning: Integer | None = Field(
        None,
        ge=0,
        description="Number of EOS or padding tokens that the tokenizer puts first: 1 for OPT. It is detected; a wrong"
        " value is an error.",
    )

    @field_validator("chat_template_kwargs")
    @classmethod
    def _are_variables(cls, variables: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name in variables:
            if name in RESERVED or not name.isidentifier():
                raise ValueError(f"names of variables of the template, not {name}, which is set by other means")
        return variables


OFFSET_POSITIONS = (
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "roberta-prelayernorm",
    "camembert",
    "longformer",
    "mpnet",
    "data2vec-text",
)
"""Types of models whose first positions, up to that of the padding token's id, are for padding."""


def stated_positions(config: Mapping[str, object]) -> int | None:
    """How many tokens a model has positions for, by its configuration alone; None if that does not say it.

    With dynamic NTK scaling, the configuration has their number before scaling. `model.folder.usable_positions` knows
    it exactly, from the model.
    """
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if not isinstance(positions, int):
        return None
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    if isinstance(rope, Mapping) and "dynamic" in (rope.get("rope_type"), rope.get("type")):
        positions = int(positions * rope.get("factor", 1))
    padding = config.get("pad_token_id")
    offset = 1 + (padding if isinstance(padding, int) else 1) if config.get("model_type") in OFFSET_POSITIONS else 0
    return positions - offset


class TokenizeSettings(EncodingSettings):
    """Settings of the tokenization of a mixture."""

    trust_remote_code: bool = False


class JoinTokensSettings(Settings):
    """Settings of joining the tokens of a mixture."""

    max_reject_fraction: Number
    reads_names: bool = Field(False, exclude_if=lambda reads_names: not reads_names)
    """Whether a dataset's `fields` name its system prompts, so that names of systems are such too."""


class NewTokenizerSettings(Settings):
    """A tokenizer trained on a mixture."""

    mixture: Text = Field(description="Mixture whose training texts the tokenizer is trained on.")
    vocab_size: Integer = Field(4096, ge=300, description="Size of the vocabulary.")
    bos_token: Text | None = Field(None, description="Token before every text; none by default.")
    eos_token: Text = Field("<|end|>", description="Token at the end of every answer.")
    pad_token: Text = Field("<|pad|>", description="Padding token.")
