"""What the conversion of a dataset's rows to pairs depends on."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, WithJsonSchema

from rewardline.core.settings import Entries, Integer, JsonObject, Number, Settings, Text

GROUPED_FORMATS: Final = ("labelled", "votes", "tree_messages")
"""Formats whose rows are converted in groups, so that all rows of a dataset must be in one part."""
BenchmarkScoring = Literal["rewardbench", "rewardbench2", "rm_bench", "judgebench"]


class JoinSettings(Settings):
    """The values of another dataset that replace an id."""

    dataset: Text = Field(description="Name of another entry of `datasets`.")
    key: Text = Field(description="Path of the id in the rows of that dataset.")
    value: Text | None = Field(None, description="Path of the value that replaces the id; the complete row by default.")


def _listed_paths(value: object) -> object:
    """A list of paths as one path, which gives a list of their values."""
    if isinstance(value, list) and value and all(type(path) in (str, int) and "," not in str(path) for path in value):
        return f"[{', '.join(map(str, value))}]"
    return value


def _is_condition(value: object) -> object:
    if isinstance(value, dict):
        raise ValueError("a value or a list of values")
    return value


_TEXTS: Final = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
FieldPath = Annotated[Text, BeforeValidator(_listed_paths), WithJsonSchema(_TEXTS)]
"""A path, or a list of them."""


def _check_values(values: JsonObject) -> JsonObject:
    allowed = {"first", "second", "tie"}, {"good", "bad"}, {"signed"}, {"start"}
    if not any(values.keys() <= names for names in allowed):
        raise ValueError("first, second and tie, or good and bad, or only signed, or only start")
    if values.get("signed", "first") not in ("first", "second"):
        raise ValueError("signed to be first or second: the better answer where the number is above 0")
    if values.get("start", 0) not in (0, 1):
        raise ValueError("start to be 0 or 1: the number of the first answer")
    return values


class FormatSettings(Settings):
    """How rows become pairs."""

    format: Text = Field(
        "auto", description="Format of the rows, see below. `auto` detects it and logs which one was chosen."
    )
    fields: Entries[FieldPath] = Field(
        {}, description="Paths of the prompt, chosen, rejected, margin and other fields in a row, see below."
    )
    pairing: Literal["all", "best_worst", "adjacent"] = Field(
        "all",
        description="Pairs built from a ranked list of answers: `all` pairs, only the best with the worst"
        " (`best_worst`), or neighbors in the ranking (`adjacent`).",
    )
    ties: Literal["drop", "keep"] = Field(
        "drop",
        description="Tied answers: `drop` them, or `keep` each two of them as a pair with confidence 0.5, which means"
        " that both are equally good.",
    )
    min_margin: Number | None = Field(
        None,
        ge=0,
        description="Minimum margin of a pair, in the dataset's own unit; pairs without a margin are then left out"
        " too. `null` keeps all pairs.",
    )
    max_pairs: Integer | None = Field(
        None,
        ge=1,
        description="Maximum number of pairs per row; in `tree` and in the formats that group rows, per prompt.",
    )
    values: Annotated[JsonObject, AfterValidator(_check_values)] = Field(
        {},
        description="Meaning of label values. For a preference: `{first: 1, second: 2, tie: 0}`, or `{signed: first}`"
        " if a positive number means that the first answer is better. For the label of one answer: `{good: 1, bad:"
        " 0}`. Where the best answer is given by its number, the number of the first answer: `{start: 0}`.",
    )
    attributes: Entries[Number] = Field(
        {},
        description="Weights of an answer's attributes; the weighted sum is the score of the answer: `{helpfulness:"
        " 0.7, verbosity: -0.3}`.",
    )
    join: Entries[JoinSettings] = Field(
        {}, description="Ids in a row, by path, to replace by values of another dataset, see below."
    )
    where: dict[str, Annotated[JsonValue, BeforeValidator(_is_condition)]] = Field(
        {},
        description="Row filter: `{split: train, language: [en, de]}` keeps rows with this value, or one of these"
        " values, at each path; the others are counted as `filtered`.",
    )
    separator: Text | None = Field(None, description="Separator between answers, where one text holds several.")
    subset: Text | None = Field(
        None,
        description="Subset under which the pairs are reported; by default the subset given in the row, else the name"
        " of the dataset.",
    )
    share: list[Annotated[Number, Field(ge=0, le=1)]] = Field(
        [0, 1],
        min_length=2,
        max_length=2,
        description="Use only the prompts whose hash is in this part of [0, 1]. A prompt has the same hash in every"
        " dataset, so that `[0, 0.2]`, `[0.2, 0.6]` and `[0.6, 1]` correspond to DeepSpeed-Chat's `data_split` 2,4,4,"
        " and a part can be reserved for a benchmark.",
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
