"""run.json: what a training run was, what it computed, and what is needed to repeat it."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from rewardline.core.errors import UserError
from rewardline.core.files import read_json, write_json
from rewardline.core.settings import JsonObject
from rewardline.training.settings import TrainingSettings


class Facts(BaseModel):
    """A part of run.json."""

    model_config = ConfigDict(frozen=True)


class Resumption(Facts):
    """A checkpoint that the run was resumed from: its step, and what it went on with."""

    step: int
    world_size: int
    zero_stage: int


class CodeVersion(Facts):
    """The git commit of the code, and whether files differed from it; None outside a checkout."""

    commit: str | None
    dirty: bool | None


class NormalizationFacts(Facts):
    """Mean and standard deviation of the raw scores of the eval split.

    `folded`: whether the weights give normalised scores; `mean_left`: what folding leaves in them, in units of `std`.
    """

    mean: float
    std: float
    folded: bool
    mean_left: float


class RunFacts(Facts):
    """All of run.json.

    Attributes:
        parameters, trained_parameters: numbers of weights.
        steps, exported_step: optimiser steps that were taken, and the step whose weights the model has.
        pairs, tokens: what the steps took, tokens of chosen and rejected in full; `seconds` of the steps.
        final: the last loss and evaluation up to the exported step.
        batching, attention: how it was computed, where the settings leave that open.
        tokenization, data: the manifest of the tokens, without and with its splits alone.
        finished: time in UTC, ISO 8601.
        key: of all that the weights depend on, see `reuse`.
        base: the files of the base model and their hashes.
        computed_tokens: without repetitions of shared prefixes; `shared_share` of `tokens` was saved by that, and
            `padding_share` of what was computed was padding.
        utilisation: `flops_per_second` as a share of `peak_flops_per_second`; see `throughput`.
    """

    run: str
    mixture: str
    model: str
    seed: int
    parameters: int
    trained_parameters: int
    train_pairs: int
    steps: int
    exported_step: int
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
    versions: dict[str, str]
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

    def write(self, path: Path) -> None:
        """Write them to `path`."""
        write_json(path, self.model_dump(mode="json"))


def read_run_facts(path: Path) -> RunFacts:
    """The facts in a run.json.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return RunFacts.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = f"{'.'.join(map(str, first['loc'])) or 'all of it'}: {first['msg']}"
        raise UserError(f"{path} is damaged ({reason}); delete it and run the train stage again") from error
