"""What the scoring of rows depends on."""

from typing import Literal

from pydantic import Field

from rewardline.core.settings import Integer, Number, Settings, Text
from rewardline.data.pairs.settings import Decontamination

Criterion = Literal["disagreement", "uncertainty"]
"""What makes a label worth asking for, see `to_label.acquisition`."""


class NextPairs(Settings):
    """Which pairs are made of the scored answers to a prompt."""

    pairing: Literal["best_worst", "all"] = Field(
        "best_worst",
        description="The best answer with the worst one (`best_worst`), or `all` pairs of different scores.",
    )
    min_margin: Number | None = Field(
        None, ge=0, description="Minimum difference of the scores of a pair; `null` takes any."
    )
    max_pairs: Integer | None = Field(
        None, ge=1, description="Maximum number of pairs per prompt, those of the largest difference."
    )


class ScoringOptions(Settings):
    """What becomes of the scores."""

    prefix: Text = Field(
        "", description="Prefix of the names of new columns, where the rows have columns of the same names."
    )
    pairs: NextPairs | None = Field(
        None,
        description="Pairs for the next round of training, `{}` for the best and the worst answer to each prompt:"
        " `pairing` (`best_worst` or `all`), `min_margin`, `max_pairs`. `null` makes none.",
    )
    max_reject_fraction: Number = Field(
        0.2, ge=0, le=1, description="Maximum share of the rows without a score; with more, the stage fails."
    )


class RowsSettings(Settings):
    """What the scores of a shard of the rows depend on: shard number `shard` (from 0) of `shards`."""

    name: str
    trust_remote_code: bool = False
    threads: Integer = 1
    shard: Integer = 0
    shards: Integer = 1


class LabelOptions(Settings):
    """Which pairs are to be labeled."""

    number: Integer = Field(100, ge=1, description="Number of pairs to choose.")
    per_prompt: Integer = Field(
        1, ge=1, description="Maximum number of pairs of a prompt, or of prompts that are nearly the same together."
    )
    max_reject_fraction: Number = Field(
        0.2, ge=0, le=1, description="Maximum share of the rows without a score; with more, the stage fails."
    )


class ChooseSettings(LabelOptions):
    """What the choice of pairs depends on; `runs` are the models that score them, the rest as in `CollectSettings`."""

    name: str
    runs: list[str]
    by: Criterion
    near_duplicates: Number | None = None
    decontamination: Decontamination | None = None


class CollectSettings(ScoringOptions):
    """What the collected scores depend on; `near_duplicates` and `decontamination` are those of the run's mixture."""

    name: str
    run: str
    near_duplicates: Number | None = None
    decontamination: Decontamination | None = None
