"""What evaluations depend on."""

from pydantic import Field

from rewardline.core.settings import Integer, Number, Settings, Text
from rewardline.scoring.settings import CombineSettings

HELD_OUT = "eval"
"""The benchmark that every run has: the eval split of its own mixture."""


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

    average: list[str] = Field([], exclude_if=lambda runs: not runs)
    """The run ids of which its weights are the mean."""
    trust_remote_code: bool = False
    threads: Integer = 1


class ShareSettings(Settings):
    """What the scores of one of several jobs depend on: job number `shard` (from 0) of `shards`."""

    run: str
    benchmark: str
    trust_remote_code: bool = False
    threads: Integer = 1
    shard: Integer
    shards: Integer


class SelectSettings(Settings):
    """What the choice of a run depends on: its name, and the share of the prompts that choose."""

    name: str
    benchmark: str
    share: Number


class AverageSettings(Settings):
    """What the mean of the weights of several training runs depends on."""

    run: str
    mixture: str
    model: str
    average: list[str]
    """The run ids of its members."""
    trust_remote_code: bool = False
    threads: Integer = 1


class EnsembleSettings(EvaluationIdentity, CombineSettings):
    """What the evaluation of an ensemble depends on."""

    ensemble: list[str]
    """The run ids of its members."""


class AuditSettings(Settings):
    """What an audit of labels depends on, beside the scores."""

    audit: str
    mixture: str
    run: str
    min_agreement: Number
