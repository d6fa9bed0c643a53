"""What the pairs of a mixture depend on."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from rewardline.core.settings import Entries, Integer, Number, Settings, Text

ProbeName = Literal[
    "empty", "thanks", "repeated", "padded", "shortened", "copied_prompt", "shuffled_words", "sycophantic_opener",
    "appended_apology",
]  # fmt: skip
"""The name of a probe, see `probes`."""


class MixtureDataset(Settings):
    """Weight and cap of a dataset in a mixture."""

    weight: Number = Field(1.0, gt=0, description="Weight of the dataset.")
    cap: Integer | None = Field(None, ge=1, description="Maximum number of candidate pairs used for training.")


def _weight(value: object) -> object:
    return value if isinstance(value, dict | MixtureDataset) else {"weight": value}


WeightedDataset = Annotated[MixtureDataset, BeforeValidator(_weight, json_schema_input_type=float | MixtureDataset)]


class Decontamination(Settings):
    """Comparison of training prompts with benchmark prompts by n-grams."""

    ngram: Integer = Field(8, ge=2, description="Number of words in an n-gram.")
    overlap: Number = Field(
        0.5,
        gt=0,
        le=1,
        description="Minimum share of a benchmark prompt's n-grams that a training prompt must contain to be removed.",
    )


class MixtureSettings(Settings):
    """What a mixture holds, and how it is split and cleaned."""

    datasets: Entries[WeightedDataset] = Field(
        min_length=1,
        description="Name and weight of each dataset, or `{weight, cap}`. A weight below 1 uses that share of the"
        " dataset's training prompts; a weight above 1 multiplies the loss of its pairs, as if they were repeated."
        " `cap` is the maximum number of candidate pairs used for training.",
    )
    eval_fraction: Number = Field(
        0.05,
        ge=0,
        lt=1,
        description="Share of the prompts that is held out for evaluation. All pairs of a prompt are in the same"
        " split, across all datasets.",
    )
    select_fraction: Number | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of the prompts that is held out, in addition to `eval_fraction`, for `select` to choose by."
        " `null` lets half of the prompts of the eval split choose.",
    )
    seed: Integer = Field(
        1234, ge=0, description="Seed of the split. A prompt that is held out stays held out when data is added."
    )
    max_reject_fraction: Number = Field(
        0.2,
        ge=0,
        le=1,
        description="Maximum share of a dataset that may be lost on the way from its rows to the tokens of its"
        " pairs; with more, the stage fails. See *What is left out*.",
    )
    near_duplicates: Number | None = Field(
        0.8,
        ge=0.5,
        le=1,
        description="Minimum similarity at which texts count as near-duplicates (Jaccard index of word pairs), and"
        " least share of a prompt that another one holds; see below. `null` compares for equality only.",
    )
    decontamination: Decontamination | None = Field(
        Decontamination(),
        description="Comparison of training prompts with benchmark prompts by n-grams, in addition to equality and"
        " near-duplicates: `ngram` (8) and `overlap` (0.5), see below; `null` turns it off.",
    )

    @property
    def held_out(self) -> float:
        """The share of the prompts that is not trained on."""
        return self.eval_fraction + (self.select_fraction or 0)

    @property
    def choosing(self) -> float:
        """The share of the held-out prompts by which `select` chooses."""
        return self.select_fraction / self.held_out if self.select_fraction else 0.5


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
    """Probes built from the held-out pairs of a mixture."""

    mixture: Text = Field(description="Mixture whose held-out pairs the probes are built from.")
    prompts: Integer = Field(100, ge=1, description="Number of held-out prompts to sample.")
    seed: Integer = Field(0, ge=0, description="Seed of the sample.")


class FoldSettings(Settings):
    """What a fold of an audit depends on: its number from 0, and how many there are."""

    audit: str
    number: Integer
    folds: Integer


class RelabelSettings(Settings):
    """What a mixture depends on that an audit has cleaned."""

    audit: Text | None = Field(
        None,
        description="Instead of all other keys: name of an audit, of whose mixture this one is made; see *Audits*.",
    )
    action: Literal["drop", "flip", "soften"] = Field(
        "drop",
        description="With `audit`: what becomes of training pairs whose label is probably wrong: `drop` them, `flip`"
        " them, or `soften` them: the more probable label, with its probability as `confidence`.",
    )
    below: Number = Field(
        0.5,
        gt=0,
        le=1,
        description="With `audit`: a label that is right with a probability below this counts as probably wrong; at"
        " most 0.5 unless labels are softened.",
    )


class AugmentSettings(Settings):
    """What a mixture depends on that has further training pairs of another one."""

    augment: Text | None = Field(
        None,
        description="Instead of all other keys: name of a mixture, with whose pairs and further training pairs this one"
        " is made; see *Augmentation*.",
    )
    other_prompts: Number = Field(
        0.0,
        ge=0,
        le=1,
        description="With `augment`: share of the training pairs whose chosen answer is also preferred to that of"
        " another prompt.",
    )
    hacks: dict[ProbeName, Annotated[Number, Field(gt=0, le=1)]] = Field(
        {},
        description="With `augment`: by probe, the share of the training pairs whose chosen answer is also preferred to"
        " the probe's hack of it: `{repeated: 0.1, padded: 0.1}`.",
    )
