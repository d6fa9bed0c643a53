"""run.json: the inputs and results of a training run, and what is needed to repeat it."""

from pydantic import BaseModel, Field

from rewardline.core.artifacts import Manifest
from rewardline.core.settings import JsonObject
from rewardline.training.settings import TrainingSettings


class Resumption(BaseModel):
    """A resume from a checkpoint: the checkpoint's step, and the processes and ZeRO stage that continued."""

    step: int
    world_size: int
    zero_stage: int


class CodeVersion(BaseModel):
    """The git commit of the code, and whether files differed from it; None outside a checkout."""

    commit: str | None
    dirty: bool | None


class NormalizationFacts(BaseModel):
    """Mean and standard deviation of the raw scores of the eval split.

    `folded`: whether the weights give normalized scores; `mean_left`: what folding leaves in them, in units of `std`.
    """

    mean: float
    std: float
    folded: bool
    mean_left: float


class RunFacts(Manifest):
    """All of run.json.

    Attributes:
        parameters, trained_parameters: numbers of weights.
        average: the runs of whose weights those of the model are the mean; `steps`, `pairs`, `tokens` and `seconds`
            are then sums over them, and all else that differs is that of the first.
        steps, exported_step: optimizer steps that were taken, and the step whose weights the model has; None for an
            average, which has those of no step.
        attributes: the outputs of a model with several, as config.json has them.
        targets: what the ratings of single answers were compared with; None without an objective.
        diverged: why and at which step training diverged, as a cell of a sweep may: the model then has no weights.
        eliminated_at: the step after which successive halving ended the training; None for a complete one.
        pairs, tokens, seconds: sums over the steps; tokens of chosen and rejected in full.
        final: the last loss and evaluation up to the exported step.
        batching, attention: how it was computed, where the settings leave that open.
        tokenization, data: the manifest of the tokens, without and with its splits alone.
        world_size, threads: number of processes, and of CPU threads of each; both decide the last bits.
        finished: time in UTC, ISO 8601.
        key: of all that the weights depend on, see `reuse`.
        tracker_id: under which loggers know the run.
        transformers_4: whether transformers 4.57 are known to give equal scores; the model needs 5 otherwise.
        base: the files of the base model and their hashes.
        computed_tokens: without repetitions of shared prefixes; `shared_share` of `tokens` was saved by that, and
            `padding_share` of what was computed was padding.
        utilisation: `flops_per_second` as a share of `peak_flops_per_second`; see `throughput`.
    """

    run: str
    sweep: str | None = None
    mixture: str
    model: str
    seed: int | None
    average: list[str] = Field([])
    fraction: float = 1.0
    parameters: int
    trained_parameters: int
    train_pairs: int
    train_answers: int = Field(0, exclude_if=lambda answers: not answers)
    attributes: list[JsonObject] = Field([], exclude_if=lambda attributes: not attributes)
    targets: JsonObject | None = Field(None, exclude_if=lambda targets: targets is None)
    steps: int
    exported_step: int | None
    diverged: str | None = None
    eliminated_at: int | None = None
    continued: list[Resumption]
    pairs: int
    tokens: int
    seconds: float
    tokens_per_second: float
    final: dict[str, float]
    training: TrainingSettings
    batching: str
    attention: str
    tokenization: JsonObject
    data: JsonObject
    world_size: int
    threads: int
    device: str
    finished: str
    key: str
    tracker_id: str = ""
    versions: dict[str, str]
    transformers_4: bool = False
    git: CodeVersion
    hardware: JsonObject
    base: list[dict[str, str]]
    computed_tokens: int
    shared_share: float
    padding_share: float
    model_flops: float
    flops_per_second: int
    peak_flops_per_second: int
    peak_source: str
    utilisation: float
    normalization: NormalizationFacts | None
    weights_sha256: str
