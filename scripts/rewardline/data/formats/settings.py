"""What the conversion of a dataset's rows to pairs depends on."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue

from rewardline.core.settings import Entries, Integer, JsonObject, Number, Settings, Text

GROUPED_FORMATS: Final = ("labelled", "votes", "tree_messages")
"""Formats whose rows are converted in groups, so that all rows of a dataset must be in one part."""
BenchmarkScoring = Literal["rewardbench", "rewardbench2", "rm_bench", "judgebench"]


class JoinSettings(Settings):
    """What stands for an id."""

    dataset: Text = Field(description="Name of another entry of `datasets`.")
    key: Text = Field(description="Path of the id in its rows.")
    value: Text | None = Field(None, description="Path of what stands for the id; the whole row by default.")


def _is_condition(value: object) -> object:
    if isinstance(value, dict):
        raise ValueError("expected a value or a list of values")
    return value


def _check_values(values: JsonObject) -> JsonObject:
    if not any(values.keys() <= names for names in _VALUES):
        raise ValueError("first, second and tie, or good and bad, or only signed, or only start")
    if values.get("signed", "first") not in ("first", "second"):
        raise ValueError("signed to be first or second: the better answer where the number is above 0")
    if values.get("start", 0) not in (0, 1):
        raise ValueError("start to be 0 or 1: the number of the first answer")
    return values


_VALUES: Final = ({"first", "second", "tie"}, {"good", "bad"}, {"signed"}, {"start"})


class FormatSettings(Settings):
    """How rows become pairs."""

    format: Text = Field(
        "auto", description="Shape of a row, see below. `auto` takes the one that fits and says which."
    )
    fields: Entries[Text] = Field(
        {}, description="Paths into a row for prompt, chosen, rejected, margin and so on, see below."
    )
    pairing: Literal["all", "best_worst", "adjacent"] = Field(
        "all", description="Pairs made of a ranked list: `all` of them, the best with the worst, or neighbours."
    )
    ties: Literal["drop", "keep"] = Field(
        "drop",
        description="Tied answers: `drop` them, or `keep` each two as a pair of confidence 0.5, which says that they"
        " are equally good.",
    )
    min_margin: Number | None = Field(
        None,
        ge=0,
        description="Least margin of a pair, in the dataset's own unit; pairs without a margin are then left out."
        " `null` takes all.",
    )
    max_pairs: Integer | None = Field(
        None,
        ge=1,
        description="Most pairs that one row may give; where rows are read in groups, or a row holds a tree, one"
        " prompt.",
    )
    values: Annotated[JsonObject, AfterValidator(_check_values)] = Field(
        {},
        description="How a preference is coded: `{first: 1, second: 2, tie: 0}`, or `{signed: first}` for a signed"
        " number; how a label is: `{good: 1, bad: 0}`; the number of the first answer where the best one is named by"
        " its number: `{start: 0}`.",
    )
    attributes: Entries[Number] = Field(
        {},
        description="Weights of an answer's attributes, whose weighted sum is its score:"
        " `{helpfulness: 0.7, verbosity: -0.3}`.",
    )
    join: Entries[JoinSettings] = Field({}, description="What ids in a row stand for, by path, see below.")
    where: dict[str, Annotated[JsonValue, BeforeValidator(_is_condition)]] = Field(
        {},
        description="Which rows are used: `{split: train, language: [en, de]}` takes those with this value, or one of"
        " these, at each path; the others are counted as `filtered`.",
    )
    separator: Text | None = Field(None, description="What separates the answers in a text that holds several.")
    subset: Text | None = Field(
        None,
        description="Name under which the pairs are reported; by default the row's own subset, else the dataset's"
        " name.",
    )
    share: list[Annotated[Number, Field(ge=0, le=1)]] = Field(
        [0, 1],
        min_length=2,
        max_length=2,
        description="Only prompts whose hash is in this part of [0, 1]. Equal parts hold equal prompts in every"
        " dataset, so that `[0, 0.2]`, `[0.2, 0.6]` and `[0.6, 1]` are DeepSpeed-Chat's `data_split` 2,4,4, and a part"
        " can be kept for a benchmark.",
    )


class JoinIndexSettings(Settings):
    """What the index of a dataset's joins depends on."""

    join: Entries[JoinSettings] = Field({})


class ConvertSettings(FormatSettings):
    """What the conversion of a part of a dataset depends on."""

    scoring: BenchmarkScoring | None = None
    part: Integer = 0
    parts: Integer = 1
    """Which part of the dataset's row files is converted: number `part` (from 0) of `parts`."""
