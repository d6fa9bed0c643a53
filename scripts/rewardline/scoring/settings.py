"""What scoring depends on, and how the scores of an ensemble are combined."""

from typing import Literal

from pydantic import Field

from rewardline.core.settings import Integer, Number, Settings

ENSEMBLE = "ensemble.json"
"""The file that makes a folder an ensemble in place of a model."""


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


class ScoringSettings(Settings):
    """What scores depend on, beside the model and the tokens or texts."""

    batch_tokens: Integer
    trust_remote_code: bool
    threads: Integer
    device: Literal["cpu", "cuda"]
