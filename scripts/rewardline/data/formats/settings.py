"""What the conversion of a dataset's rows to pairs depends on."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, WithJsonSchema, field_validator, model_validator

from rewardline.core.settings import Entries, Integer, JsonObject, Number, Settings, Text

LABEL: Final = "label"
"""The name of a rating that `ratings` does not name."""
GROUPED_FORMATS: Final = ("labelled", "votes", "tree_messages")
"""Formats whose rows are converted in groups, so that all rows of a dataset must be in one part."""
CODED_FORMATS: Final = ("auto", "preference", "votes", "ranked")
"""Formats in which the rows of a dataset together say what numbers as labels mean, unless `values` does."""


class BenchmarkRows(Settings):
    """What the rows of a published benchmark look like, so that those of another are noticed before they are scored.

    `subsets` are those that it has, empty if they are not known. `pattern` is a regular expression for the subset of a
    row, by default one of `subsets`. `items`: by subset, a regular expression for the id of its rows, and what it says.
    `answers` is the number of answers of every row, and `answers_as` how to say it.
    """

    name: Text
    subsets: list[Text] = Field([])
    pattern: Text | None = None
    items: dict[str, tuple[Text, Text]] = Field({})
    answers: Integer | None = None
    answers_as: Text = ""
    score_keys: tuple[Text, ...] = ()
    """Keys that may hold the score of an answer, besides the usual ones."""
    each_attribute: bool = False
    """Whether there is a ranking by each of the `attributes`, instead of one by their weighted sum."""

    def subset_of(self, file: str) -> str:
        """The subset that a file, or else a folder of its path, is named after; empty if there is none."""
        parts = [re.sub(r"\.(jsonl?|csv|tsv|parquet|gz|zst)\b", "", part) for part in PurePath(file).parts]
        return next((part for part in reversed(parts) if part in self.subsets), "")

    def mismatch(self, subset: str, item: str = "", answers: int = 2) -> str | None:
        """How a row with this subset, id and number of answers differs from the benchmark's; None if it does not."""
        if self.subsets and not re.fullmatch(self.pattern or "|".join(map(re.escape, self.subsets)), subset):
            return (
                f"{subset or 'a row without a subset'!r} is no subset of {self.name}, which has "
                f"{', '.join(self.subsets)}; map it with `fields: {{subset: ...}}`, leave such rows out with `where`, "
                "or take out `scoring`"
            )
        lowered = {name.lower(): expected for name, expected in self.items.items()}
        pattern, form = lowered.get(subset.lower(), ("", ""))
        if pattern and not re.fullmatch(pattern, item):
            return f"its id is {item!r}, but rows of subset {subset} {form}; map it with `fields: {{item: id}}`"
        if self.answers is not None and answers != self.answers:
            return f"it has {answers} answers, but {self.answers_as}"
        return None


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


def _by_name(value: object) -> object:
    """A list of names as a mapping of each to itself."""
    return {str(name): name for name in value} if isinstance(value, list) else value


_NAMED = dict[str, FieldPath] | list[str]


class FormatSettings(Settings):
    """How rows become pairs."""

    @field_validator("scale")
    @classmethod
    def _is_scale(cls, scale: list[float] | None) -> list[float] | None:
        if scale is not None and scale[0] >= scale[1]:
            raise ValueError("the lowest value before the highest one")
        return scale

    @model_validator(mode="before")
    @classmethod
    def _strength_is_a_signed_preference(cls, data: object) -> object:
        """Read `fields: {strength: PATH}` as a preference whose sign says which answer is better."""
        fields = data.get("fields") if isinstance(data, Mapping) else None
        if not isinstance(data, Mapping) or not isinstance(fields, Mapping) or fields.get("strength") is None:
            return data
        if (form := data.get("format") or "auto") not in ("auto", "preference", "votes"):
            raise ValueError(f"strength with format: preference or votes, which say which answer is better, not {form}")
        others = {name: path for name, path in fields.items() if name != "strength"}
        if others.get("preference") is not None or others.get("margin") is not None:
            raise ValueError("strength without preference and margin: its sign and size are both")
        values = data.get("values") or {"signed": "first"}
        if not isinstance(values, Mapping) or values.keys() != {"signed"}:
            raise ValueError("strength with no values but signed: a number below 0 prefers the second answer")
        return {**data, "fields": {**others, "preference": fields["strength"]}, "values": values}

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
    ratings: Annotated[Entries[FieldPath], BeforeValidator(_by_name, json_schema_input_type=_NAMED)] = Field(
        {},
        description="With `format: rated`: names of the ratings of a single answer, with the path of each:"
        " `{helpfulness: annotations.helpfulness}`, or a list of names that are paths: `[helpfulness, verbosity]`. An"
        " answer may lack some of them. By default there is one, `label`: the label or the score of the row.",
    )
    scale: list[Number] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="With `format: rated`: lowest and highest value of the ratings, `[1, 5]`, which become 0 and 1, so"
        " that ratings on different scales can be mixed. By default they stay as they are, and must be on one scale.",
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

    @property
    def more_score_keys(self) -> tuple[str, ...]:
        """Keys that may hold the score of one of several answers, besides the usual ones."""
        return ()

    @property
    def is_rated(self) -> bool:
        """Whether rows are single answers with ratings instead of pairs."""
        return self.format == "rated" or bool(self.ratings)

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

    benchmark: BenchmarkRows | None = None
    """What the rows of a published benchmark look like, whose pairs are kept as they are."""
    part: Integer = 0
    parts: Integer = 1
    """Which part of the dataset's row files is converted: number `part` (from 0) of `parts`."""

    @property
    def more_score_keys(self) -> tuple[str, ...]:
        """Those of the published benchmark."""
        return self.benchmark.score_keys if self.benchmark else ()
