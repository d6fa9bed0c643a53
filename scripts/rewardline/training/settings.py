"""Settings of a training run."""

from typing import Annotated, Literal, Self

from pydantic import Field, GetJsonSchemaHandler, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from rewardline.core.settings import EntriesOr, Flag, Integer, JsonObject, Number, Settings, Text, Unique
from rewardline.model.settings import LoraSettings

Precision = Literal["fp32", "bf16", "fp16"]
ROUNDING = {
    *("zero_stage", "offload", "gradient_checkpointing", "tokens_per_micro_batch"),
    *("batching", "attention", "compile", "deterministic", "threads"),
}
"""Keys of `training` that change weights by rounding alone: a run resumes when they have changed."""
NO_EFFECT = {"checkpoint_every", "checkpoint_minutes", "loggers"}
"""Keys of `training` that change no weight."""

OF_PAIRS = ("margin", "length_control", "label_smoothing", "centering")
"""Keys of `training` that change the loss of pairs alone."""

EVAL = "eval"
"""The name of the mixture's own eval split among evaluation sets."""
EVAL_PAIRS = 512


class EarlyStoppingSettings(Settings):
    """When a training run ends early."""

    patience: Integer = Field(
        5, ge=1, description="Number of consecutive evaluations without a lower loss after which training stops."
    )
    min_delta: Number = Field(0.0, ge=0, description="How much lower a loss must be to count as lower.")
    eval_set: Text = Field(EVAL, description="The evaluation set whose loss counts, see `eval_sets`.")


class TensorBoardSettings(Settings):
    """TensorBoard has no options."""


class TrackerSettings(Settings):
    """What the trackers have in common; what is not given comes from their environment variables."""

    project: Text | None = Field(None, description="Project, of MLflow the experiment; else `rewardline`.")
    group: Text | None = Field(None, description="Group of runs; else the name of the run without its seed.")
    name: Text | None = Field(None, description="Name in place of the run's; seeds keep their suffix.")


class WandbSettings(TrackerSettings):
    """Weights & Biases."""

    entity: Text | None = Field(None, description="Account or team.")
    tags: Unique[Text] = Field([], description="Tags of the run.")


class MlflowSettings(TrackerSettings):
    """MLflow."""

    tracking_uri: Text | None = Field(None, description="Server, database or folder (`file:...`).")
    tags: Unique[Text] = Field([], description="Tags of the run, with the value `true`.")


class TrackioSettings(TrackerSettings):
    """Trackio."""

    space_id: Text | None = Field(None, description="Hugging Face Space that shows the runs.")


class LoggersSettings(Settings):
    """The loggers of a run with their options, also written as a list of names."""

    tensorboard: TensorBoardSettings | None = None
    wandb: WandbSettings | None = None
    mlflow: MlflowSettings | None = None
    trackio: TrackioSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_names(cls, value: object) -> object:
        if not isinstance(value, list):
            return value
        if len(set(map(str, value))) < len(value):
            raise ValueError("a list without repetitions, or a mapping")
        return {str(name): {} for name in value}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        names = {"type": "array", "uniqueItems": True, "items": {"enum": list(cls.model_fields)}}
        return {"anyOf": [names, handler.resolve_ref_schema(handler(core))]}

    def used(self) -> list[str]:
        """The names of the loggers."""
        return [name for name in type(self).model_fields if getattr(self, name) is not None]


class ObjectiveSettings(Settings):
    """What is learned of single answers with ratings, alone or together with pairs."""

    type: Literal["binary", "ordinal", "regression"] = Field(
        description="`binary`: cross-entropy, the score is the log odds of a good answer; `ordinal`: cross-entropy of"
        " levels; `regression`: an output for each of the `attributes`, with mean squared error."
    )
    rating: Text = Field("label", description="Of `binary` and `ordinal`: name of the rating to learn.")
    attributes: Unique[Text] = Field(
        [], description="Of `regression`: names of the ratings to learn, each an output of the model."
    )
    weights: EntriesOr[Number, Literal["fit"]] = Field(
        {},
        description="Of `regression`: weights of the attributes in the score, 0 where one is not named; `fit` fits them"
        " on the training pairs by logistic regression after training. By default the score is their mean.",
    )
    pair_weight: Number = Field(1.0, ge=0, description="Weight of the loss of each pair.")
    answer_weight: Number = Field(1.0, gt=0, description="Weight of the loss of each single answer.")

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        if self.type == "regression":
            if not self.attributes:
                raise ValueError("regression with attributes: [helpfulness, ...]")
            if isinstance(self.weights, dict) and (unknown := self.weights.keys() - set(self.attributes)):
                raise ValueError(f"weights of attributes only, not of {sorted(unknown)[0]}")
            if isinstance(self.weights, dict) and self.weights and not any(self.weights.values()):
                raise ValueError("a weight other than 0")
        elif self.attributes or self.weights:
            raise ValueError(f"{self.type} with `rating` alone; attributes and weights are of regression")
        return self

    @property
    def names(self) -> list[str]:
        """The ratings that are learned."""
        return self.attributes or [self.rating]

    @property
    def trains_pairs(self) -> bool:
        """Whether pairs are trained on; those that weights are fitted on are not."""
        return self.pair_weight > 0 and self.weights != "fit"

    @property
    def given_weights(self) -> list[float]:
        """The weight of each attribute in the score, as long as none are fitted; empty without attributes."""
        if isinstance(self.weights, dict) and self.weights:
            return [self.weights.get(name, 0.0) for name in self.attributes]
        return [1 / len(self.attributes) for _ in self.attributes]


class TrainingSettings(Settings):
    """The keys of `runs.*.training`."""

    learning_rate: Number = Field(5.0e-5, gt=0, description="Peak learning rate of AdamW.")
    epochs: Number = Field(1, gt=0, description="Number of passes over the training pairs; may be a fraction.")
    max_steps: Integer | None = Field(None, ge=1, description="Maximum number of optimizer steps.")
    pairs_per_step: Integer = Field(
        32, ge=1, description="Maximum number of pairs per optimizer step, over all processes."
    )
    tokens_per_micro_batch: Integer = Field(
        4096,
        ge=8,
        description="Maximum number of tokens that a process computes at once (micro batch). Lower it to save memory.",
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="Learning rate schedule after the warm-up: `cosine`, `linear` or `constant`."
    )
    warmup: Number = Field(
        0.03, ge=0, description="Length of the linear warm-up: below 1 a share of the steps, else a number of steps."
    )
    weight_decay: Number = Field(0.1, ge=0, description="Weight decay of matrices; norms and biases have none.")
    betas: list[Annotated[Number, Field(ge=0, lt=1)]] = Field(
        [0.9, 0.95],
        min_length=2,
        max_length=2,
        description="AdamW's beta coefficients: decay rates of the running averages of the gradient and of its square.",
    )
    eps: Number = Field(
        1.0e-8, gt=0, description="AdamW's epsilon: term added to the denominator for numerical stability."
    )
    clip: Number = Field(1.0, ge=0, description="Maximum gradient norm; 0 turns gradient clipping off.")
    dropout: Number | None = Field(
        0.0,
        ge=0,
        lt=1,
        description="Dropout probability in all layers of the model; `null` keeps the values of the model's"
        " configuration.",
    )
    loss: Literal["pairwise", "kwise", "per_token", "per_token_published"] = Field(
        "pairwise",
        description="Training loss, see below: `pairwise`, `kwise`, `per_token` or `per_token_published`.",
    )
    objective: ObjectiveSettings | None = Field(
        None,
        exclude_if=lambda objective: objective is None,
        description="What is learned of single answers with ratings (`format: rated`), see below: `{type: binary}`,"
        " `{type: ordinal}` or `{type: regression, attributes: [helpfulness, ...]}`.",
    )
    score: Literal["end", "first_padding", "mean"] = Field(
        "end",
        description="Where the score is read: at the `end` token, at the `first_padding` token after it, or as the"
        " `mean` over the tokens of the answer, the end token included.",
    )
    normalize: Literal[False, True, "fold"] = Field(
        False,
        description="`true` stores mean and standard deviation of the eval split's scores with the model, and `fold`"
        " folds them into its weights, see below.",
    )
    centering: Number = Field(
        0.0, ge=0, description="Coefficient of the penalty (chosen + rejected)², which keeps the mean score near 0."
    )
    length_control: Flag = Field(
        False,
        description="Train scores that do not follow the length of answers: a term of its own in the loss explains what"
        " length explains of the labels, and a penalty holds the slope of scores on length at 0, see below.",
    )
    label_smoothing: Number = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="Probability that a label is wrong, in addition to the `confidence` of the pair.",
    )
    router_aux_loss_coef: Number | None = Field(
        None,
        ge=0,
        description="Coefficient of the load-balancing loss of a mixture-of-experts model; `null` takes that of the"
        " model's configuration if its `output_router_logits` asks for the loss. It is a loss of the tokens of a micro"
        " batch, so that it depends on `tokens_per_micro_batch` and on the number of processes.",
    )
    margin: Literal[False, True, "scale"] = Field(
        False,
        description="`true` subtracts the margin of the pair from the score difference, and `scale` multiplies the loss"
        " of the pair by it, see below; a pair without a margin counts as 0, or once. With `scale`, pairs with a margin"
        " of 0 or below have no weight.",
    )
    precision: Precision = Field("fp32", description="Number format of the computation: `fp32`, `bf16` or `fp16`.")
    state_precision: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="Number format of the master weights, of accumulated gradients and of AdamW's moments. `bf16`, with"
        " `precision: bf16`, saves half of their memory, and rounds away small changes of weights, see below.",
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(
        0,
        description="DeepSpeed's ZeRO stage: what is partitioned across processes. 0: nothing, 1: optimizer state,"
        " 2: also gradients, 3: also parameters.",
    )
    offload: Literal["none", "optimizer", "all"] = Field(
        "none",
        description="State kept in CPU memory instead of GPU memory: that of the `optimizer`, or `all` (with the"
        " parameters; ZeRO stage 3).",
    )
    gradient_checkpointing: Literal[False, True, "selective", "offload"] = Field(
        False,
        description="Recompute activations in the backward pass instead of storing them: `true`, all within a layer;"
        " `selective`, all but the outputs of attention and of matrix products that are no wider than their input, for"
        " less time and more memory; `offload`, all, and on a GPU the inputs of layers are kept in CPU memory.",
    )
    compile: Literal["auto", False, True] = Field(
        "auto",
        description="Compile the layers of the model with torch.compile, the attention of packed sequences excepted:"
        " `true`, `false`, or `auto`, on a GPU if nothing is in the way and training takes minutes. At the start they"
        " are compared with plain layers on the first micro batch; `auto` leaves them plain if they fail, and the log"
        " says why.",
    )
    deterministic: Flag = Field(
        False,
        description="Take deterministic kernels alone on a GPU, so that a resumed or repeated training run has the"
        " same weights bit for bit. It costs time: no attention is measured for `auto`, and layers are not compiled. On"
        " a CPU runs are always so.",
    )
    lora: LoraSettings | None = Field(
        None,
        description="Train low-rank adapters and the score head, and merge them on export: `rank` (16), `alpha` (32),"
        " `dropout` (0.0), `target_modules` (every linear layer).",
    )
    threads: Integer = Field(
        1,
        ge=1,
        description="Number of CPU threads of each process, in training and evaluation. It changes the order of sums,"
        " and so the last bits of the weights; no number of cores and no profile does.",
    )
    batching: Literal["shared_prefix", "padded"] = Field(
        "shared_prefix",
        description="`shared_prefix` computes a prompt once for all its answers and packs sequences without padding;"
        " `padded` computes each sequence separately and pads it.",
    )
    attention: Literal["auto", "sdpa", "flex", "varlen"] = Field(
        "auto",
        description="Attention implementation for packed sequences: `flex` (flex_attention, on a GPU), `varlen`"
        " (FlashAttention's variable-length kernel, on a GPU in 16 bits), `sdpa` (scaled dot-product attention, in"
        " segments), or `auto`: the fastest of them on a GPU, measured at the start, else `sdpa`. With dropout always"
        " `sdpa`.",
    )
    checkpoint_every: Integer = Field(
        200,
        ge=0,
        description="Number of steps between checkpoints; 0 saves them by time only, see `checkpoint_minutes`.",
    )
    checkpoint_minutes: Number = Field(
        30, ge=0, description="Number of minutes between checkpoints, in addition to those by steps; 0 turns this off."
    )
    eval_every: Integer = Field(
        100, ge=0, description="Number of steps between evaluations on a sample of the eval split; 0 turns them off."
    )
    eval_sets: dict[Text, Annotated[Integer, Field(ge=1)]] = Field(
        {},
        description="Benchmarks of the run on which it is evaluated while it trains too, with the number of pairs of"
        " each: `{rb2: 256}`, or a list of names, for 512 pairs each. These are the first by the hash of their prompt:"
        " the same at every evaluation. `eval` is the mixture's own eval split, of which 512 pairs are always there.",
    )
    keep_best: Flag | Text = Field(
        False,
        description="Export the weights of the evaluation with the lowest loss instead of the last ones; the log and"
        " `run.json` (`exported_step`) have the step. `true` looks at the eval split, a name at one of `eval_sets`.",
    )
    early_stopping: EarlyStoppingSettings | None = Field(
        None,
        description="Stop when `patience` (5) consecutive evaluations do not lower the loss by more than `min_delta`"
        " (0.0). `eval_set` (`eval`) is the evaluation set that counts.",
    )
    loggers: LoggersSettings = Field(
        LoggersSettings(tensorboard=TensorBoardSettings()),
        description="Loggers for the numbers of `log.jsonl` and of the benchmarks: a list of `tensorboard`, `wandb`,"
        " `mlflow` and `trackio`, or a mapping of these to their options, see below. The packages of the last three are"
        " not part of the environment; a missing one is an error at the start.",
    )
    deepspeed: JsonObject = Field(
        {},
        description="Additional DeepSpeed settings, merged over those that follow from the keys above; replaced values"
        " are logged. A setting that one of the keys above controls, or that has no effect, is an error that names the"
        " key and the reason.",
    )

    @field_validator("compile", mode="before")
    @classmethod
    def _is_on_or_off(cls, value: object) -> object:
        return {"on": True, "off": False}.get(value, value) if isinstance(value, str) else value

    @field_validator("keep_best", mode="before")
    @classmethod
    def _is_known(cls, value: object) -> object:
        if not isinstance(value, bool | str):
            raise ValueError("must be true, false or the name of an evaluation set")
        return value

    @field_validator("eval_sets", mode="before", json_schema_input_type=dict[str, int] | Unique[Text])
    @classmethod
    def _from_names(cls, value: object) -> object:
        if not isinstance(value, list):
            return value
        if len(set(map(str, value))) < len(value):
            raise ValueError("a list without repetitions, or a mapping")
        return dict.fromkeys(map(str, value), EVAL_PAIRS)

    @property
    def plain_layers(self) -> str | None:
        """Why layers cannot be compiled with these settings; None if they can."""
        if self.zero_stage == 3:
            return "ZeRO-3 gathers weights while a layer is computed"
        if self.deterministic:
            return "their kernels are tuned to the first rows, which training.deterministic excludes"
        if self.gradient_checkpointing == "selective":
            return "selective checkpointing looks at the single operators of a layer"
        return None

    @property
    def evaluated_pairs(self) -> dict[str, int]:
        """The number of pairs of each evaluation set, the eval split first."""
        return {EVAL: EVAL_PAIRS, **self.eval_sets}

    @property
    def best_by(self) -> str | None:
        """The evaluation set by which the best weights are kept; None if the last ones are exported."""
        return EVAL if self.keep_best is True else self.keep_best or None

    @property
    def deciding_sets(self) -> list[str]:
        """The evaluation sets that decide which weights are exported."""
        stopping = self.early_stopping and self.early_stopping.eval_set
        return sorted({name for name in (self.best_by, stopping) if name})

    @property
    def chosen_by(self) -> list[str]:
        """The benchmarks among `deciding_sets`."""
        return [name for name in self.deciding_sets if name != EVAL]


class TrackSettings(Settings):
    """Settings of the track stage."""

    run: str
    loggers: LoggersSettings


class RungSettings(Settings):
    """A rung of successive halving: its number from 0, the step that it ends at, and the share of the eval split's
    prompts whose accuracy says which cells continue."""

    number: Integer
    step: Integer
    share: Number


class TrainStageSettings(Settings):
    """Settings of the train stage."""

    run: str
    sweep: str | None = None
    """The sweep that the run is a cell of."""
    mixture: str
    model: str
    seed: Integer
    fraction: Number = Field(1.0, exclude_if=lambda share: share == 1)
    """The share of the training prompts, by their hash."""
    choosing: dict[str, Number] = Field({}, exclude_if=lambda shares: not shares)
    """The share of the prompts, by evaluation set, that `keep_best` and `early_stopping` look at: those by which
    `select` chooses runs, so that it can report their accuracy on others."""
    training: TrainingSettings
    trust_remote_code: bool = False
    rung: RungSettings | None = Field(None, exclude_if=lambda rung: rung is None)
    """What it is trained to in place of its end."""
