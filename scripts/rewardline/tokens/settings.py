"""What the tokens of a mixture depend on."""

from typing import Literal

from pydantic import Field

from rewardline.core.settings import Integer, Settings, Text


class EncodingSettings(Settings):
    """How text becomes tokens."""

    max_length: Integer = Field(
        512,
        ge=8,
        description="Most tokens of a prompt with an answer. A longer prompt loses its oldest turns, then the beginning"
        " of its last one; answers are never cut: a pair whose answer leaves less than a sixteenth of the room to a"
        " longer prompt is left out and counted.",
    )
    template: Literal["auto", "chat", "plain"] = Field(
        "auto",
        description="`chat` is the tokenizer's chat template, `plain` is `Human: ...` and `Assistant: ...`, `auto` is"
        " `chat` where there is one.",
    )
    chat_template: Text | None = Field(
        None,
        description="A chat template of your own (Jinja, as transformers have it) in place of the tokenizer's; it is"
        " saved with the model.",
    )
    end_token: Text | None = Field(
        None,
        description="Token that ends an answer and carries the score; the tokenizer's own end token by default.",
    )
    num_padding_at_beginning: Integer | None = Field(
        None,
        ge=0,
        description="End or padding tokens that the tokenizer puts first: 1 for OPT. It is found by itself; a wrong"
        " value is an error.",
    )


class TokenizeSettings(EncodingSettings):
    """What the tokenising of a mixture depends on."""

    trust_remote_code: bool = False


class NewTokenizerSettings(Settings):
    """A tokenizer trained on a mixture."""

    mixture: Text = Field(description="Mixture whose training text the tokenizer is trained on.")
    vocab_size: Integer = Field(4096, ge=300, description="Tokens in the vocabulary.")
    bos_token: Text | None = Field(None, description="Token put before every text; none by default.")
    eos_token: Text = Field("<|end|>", description="End token.")
    pad_token: Text = Field("<|pad|>", description="Padding token.")
