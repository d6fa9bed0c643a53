"""What evaluations depend on."""

from typing import Literal

from pydantic import Field

from rewardline.core.settings import Integer, Number, Settings, Text

HELD_OUT = "eval"
"""The benchmark that every run has: the eval split of its own mixture."""


class CombineSettings(Settings):
    """How the scores of an ensemble's members are combined."""

    combine: Literal["mean", "worst", "mean_minus_variance"] = Field(
        "mean",
        description="How the standardized scores of an ensemble's members are combined: their `mean`, the `worst`"
        " (lowest), or `mean_minus_variance`.",
    )
    variance_weight: Number = Field(
        0.5, ge=0, description="Factor of the variance between members in `mean_minus_variance`."
    )


class EvaluationIdentity(Settings):
    """Which run is evaluated on what."""

    run: str
    name: str
    mixture: str
    model: str
    seed: Integer | None
    benchmark: str
    scoring: Text | None = None
    """The name of a published benchmark."""


class EvaluateSettings(EvaluationIdentity):
    """What the evaluation of a trained model depends on."""

    trust_remote_code: bool = False
    threads: Integer = 1


class ScoringSettings(Settings):
    """What scores depend on, beside the model and the tokens."""

    batch_tokens: Integer
    trust_remote_code: bool
    threads: Integer
    device: Literal["cpu", "cuda"]


class SelectSettings(Settings):
    """What the choice of a run depends on: its name, and the share of the prompts that choose."""

    name: str
    benchmark: str
    share: Number


class EnsembleSettings(EvaluationIdentity, CombineSettings):
    """What the evaluation of an ensemble depends on."""

    ensemble: list[str]
    """The run ids of its members."""
