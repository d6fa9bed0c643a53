"""What a training run depends on."""

from typing import Annotated, Literal

from pydantic import Field

from rewardline.core.settings import Flag, Integer, JsonObject, Number, Settings, Unique
from rewardline.model.settings import LoraSettings

Loss = Literal["pairwise", "kwise", "per_token", "per_token_published"]
Precision = Literal["fp32", "bf16", "fp16"]
Logger = Literal["tensorboard", "wandb", "mlflow"]
Offload = Literal["none", "optimizer", "all"]


class EarlyStoppingSettings(Settings):
    """When a training run ends early."""

    patience: Integer = Field(5, ge=1, description="How many evaluations without a lower loss end the training.")
    min_delta: Number = Field(0.0, ge=0, description="By how much a loss must be lower to count.")


class TrainingSettings(Settings):
    """The keys of `runs.*.training`."""

    learning_rate: Number = Field(5.0e-5, gt=0, description="Peak learning rate of AdamW.")
    epochs: Number = Field(1, gt=0, description="Passes over the training pairs; may be a fraction.")
    max_steps: Integer | None = Field(None, ge=1, description="Most optimiser steps.")
    pairs_per_step: Integer = Field(32, ge=1, description="Most pairs of an optimiser step, over all processes.")
    tokens_per_micro_batch: Integer = Field(
        4096, ge=8, description="Most tokens computed at once by a process: the key to memory."
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="Course of the learning rate after the warm-up: `cosine`, `linear` or `constant`."
    )
    warmup: Number = Field(0.03, ge=0, description="Warm-up: a share of the steps below 1, else a number of steps.")
    weight_decay: Number = Field(0.1, ge=0, description="Weight decay of matrices; norms and biases have none.")
    betas: list[Annotated[Number, Field(ge=0, lt=1)]] = Field(
        [0.9, 0.95],
        min_length=2,
        max_length=2,
        description="AdamW's decay rates of the means of gradients and of their squares.",
    )
    eps: Number = Field(1.0e-8, gt=0, description="What AdamW adds to the root of the squares' mean.")
    clip: Number = Field(1.0, ge=0, description="Largest gradient norm; 0 for no limit.")
    dropout: Number | None = Field(
        0.0, ge=0, lt=1, description="Dropout probability everywhere in the model; `null` leaves the model's own."
    )
    loss: Loss = Field(
        "pairwise",
        description="What is compared, see below: `pairwise`, `kwise`, `per_token` or `per_token_published`.",
    )
    score: Literal["end", "first_padding", "mean"] = Field(
        "end",
        description="Where the score is read: at the `end` token, at the `first_padding` token behind it, or the `mean`"
        " over the answer's tokens, the end token included.",
    )
    normalize: Literal[False, True, "fold"] = Field(
        False,
        description="`true` keeps mean and standard deviation of the eval split's scores with the model, and `fold`"
        " puts them into its weights, see below.",
    )
    centering: Number = Field(
        0.0, ge=0, description="Coefficient of (chosen + rejected)², which keeps the mean score near 0."
    )
    label_smoothing: Number = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="Probability that a label is wrong, beside the `confidence` that a pair may have of its own.",
    )
    margin: Flag = Field(False, description="Subtract the pair's margin from the score difference.")
    precision: Precision = Field("fp32", description="Number format of the computation: `fp32`, `bf16` or `fp16`.")
    zero_stage: Literal[0, 1, 2, 3] = Field(0, description="ZeRO stage, 0 to 3: what processes share out among them.")
    offload: Offload = Field(
        "none",
        description="What is kept in CPU memory instead of on the GPU: the `optimizer`, or `all` (with the parameters,"
        " stage 3).",
    )
    gradient_checkpointing: Flag = Field(False, description="Recompute activations instead of keeping them.")
    lora: LoraSettings | None = Field(
        None,
        description="Low-rank adapters and the score head are trained, and merged on export: `rank` (16), `alpha` (32),"
        " `dropout` (0.0), `target_modules` (every linear layer).",
    )
    batching: Literal["shared_prefix", "padded"] = Field(
        "shared_prefix",
        description="`shared_prefix` computes a prompt once for all its answers and pads nothing; `padded` pads each"
        " sequence.",
    )
    attention: Literal["auto", "sdpa", "flex"] = Field(
        "auto",
        description="What computes the attention of packed rows: `flex` (flex_attention, on a GPU), `sdpa` (in"
        " segments), or `auto`: `flex` on a GPU that it works on.",
    )
    checkpoint_every: Integer = Field(200, ge=0, description="Steps between checkpoints; 0 for none but by time.")
    checkpoint_minutes: Number = Field(
        30, ge=0, description="Minutes after which a checkpoint is saved, whatever the step; 0 for never."
    )
    eval_every: Integer = Field(
        100, ge=0, description="Steps between evaluations on a sample of the eval split; 0 for none."
    )
    keep_best: Flag = Field(
        False,
        description="Export the weights of the evaluation with the lowest loss instead of the last ones; the log and"
        " `run.json` (`exported_step`) say which.",
    )
    early_stopping: EarlyStoppingSettings | None = Field(
        None,
        description="Stop when `patience` (5) evaluations in a row bring no loss that is lower by more than `min_delta`"
        " (0.0).",
    )
    loggers: Unique[Logger] = Field(
        ["tensorboard"],
        description="Where the numbers of `log.jsonl` are written too: `tensorboard` (a folder beside it), `wandb`,"
        " `mlflow`. The packages of the last two are not part of the environment; one that is asked for and missing is"
        " an error at the start.",
    )
    deepspeed: JsonObject = Field(
        {},
        description="DeepSpeed's own settings, merged over those that follow from the keys above; what replaces"
        " something is logged. One that a key above decides, or that DeepSpeed does not know, is an error that names"
        " the key.",
    )


class TrainSettings(Settings):
    """What the train stage depends on."""

    run: str
    mixture: str
    model: str
    seed: Integer
    training: TrainingSettings
    trust_remote_code: bool = False
