"""What the pairs of a mixture depend on."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from rewardline.core.settings import Entries, Integer, Number, Settings, Text


class MixtureDataset(Settings):
    """A dataset's part in a mixture."""

    weight: Number = Field(1.0, gt=0, description="Weight of the dataset.")
    cap: Integer | None = Field(None, ge=1, description="Most candidate pairs that are taken for training.")


def _weight(value: object) -> object:
    return value if isinstance(value, dict | MixtureDataset) else {"weight": value}


WeightedDataset = Annotated[MixtureDataset, BeforeValidator(_weight, json_schema_input_type=float | MixtureDataset)]


class Decontamination(Settings):
    """How training prompts are compared with those of benchmarks by runs of words."""

    ngram: Integer = Field(8, ge=2, description="Words in a run.")
    overlap: Number = Field(
        0.5,
        gt=0,
        le=1,
        description="Least share of a benchmark prompt's runs that a training prompt must have to be removed.",
    )


class MixtureSettings(Settings):
    """What a mixture holds, and how it is split and cleaned."""

    datasets: Entries[WeightedDataset] = Field(
        min_length=1,
        description="Name and weight of each dataset, or `{weight, cap}`. Below 1 that share of its training prompts"
        " is used; above 1 its pairs weigh more in the loss, as if they came several times. `cap` is the most candidate"
        " pairs that are taken for training.",
    )
    eval_fraction: Number = Field(
        0.05,
        ge=0,
        lt=1,
        description="Share of the prompts that is held out. All pairs of a prompt are on one side, across all"
        " datasets.",
    )
    seed: Integer = Field(1234, ge=0, description="Seed of the split, which does not move when data is added.")
    max_reject_fraction: Number = Field(
        0.2, ge=0, le=1, description="A dataset with a larger share of unusable rows stops the stage."
    )
    near_duplicates: Number | None = Field(
        0.8,
        ge=0.5,
        le=1,
        description="Least similarity (Jaccard index of word pairs) at which texts count as nearly the same; `null`"
        " compares for equality alone.",
    )
    decontamination: Decontamination | None = Field(
        Decontamination(),
        description="Comparison with the prompts of benchmarks by runs of words, beside equality and near-duplicates;"
        " `null` for no such comparison.",
    )


class GroupSettings(Settings):
    """What the comparison of a mixture's prompts depends on."""

    caps: dict[str, Integer | None]
    """By dataset, in the order of the mixture."""
    eval_fraction: Number
    seed: Integer
    max_reject_fraction: Number
    near_duplicates: Number | None
    decontamination: Decontamination | None


class CleanSettings(Settings):
    """What the cleaning of a shard depends on, beside the result of comparing the prompts."""

    weights: dict[str, Number]
    """By dataset, in the order of the mixture."""
    seed: Integer
    near_duplicates: Number | None
    keep_all: bool
    """Whether every pair counts as it was published, repeated and contradictory ones too."""
    shard: Integer = 0
    shards: Integer = 1


class PairsSettings(Settings):
    """What joining the shards of a mixture depends on."""

    eval_fraction: Number


class ProbeSettings(Settings):
    """How probes are made."""

    mixture: Text = Field(description="Mixture whose held-out pairs the probes are made of.")
    prompts: Integer = Field(100, ge=1, description="How many of its held-out prompts are taken.")
    seed: Integer = Field(0, ge=0, description="Seed of the draw.")
