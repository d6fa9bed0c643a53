"""The base of all settings: typed, frozen, without unknown keys, and equal exactly when their JSON is equal."""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Annotated, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    StrictBool,
    StrictStr,
    Tag,
    model_validator,
)

from rewardline.core.files import home_expanded
from rewardline.core.hashing import canonical

T = TypeVar("T")
V = TypeVar("V")
S = TypeVar("S", bound="Settings")


def _number(value: object, expected: str) -> object:
    """Read numbers that YAML reads as text, such as `5e-5`; true and false are not numbers."""
    if isinstance(value, bool):
        raise ValueError(expected)
    with suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value


def _without_nulls(value: object) -> object:
    """Remove entries that are set to null, so that a configuration file can remove entries of the default one."""
    return {key: item for key, item in value.items() if item is not None} if isinstance(value, Mapping) else value


def _no_repetitions(values: list[T]) -> list[T]:
    if any(value in values[:index] for index, value in enumerate(values)):
        raise ValueError("a list without repetitions")
    return values


Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(partial(_number, expected="a number"))]
Integer = Annotated[int, BeforeValidator(partial(_number, expected="an integer"))]
Flag = StrictBool
Text = StrictStr
LocalPath = Annotated[StrictStr, AfterValidator(home_expanded)]
JsonObject = dict[str, JsonValue]
Entries = Annotated[dict[str, T], BeforeValidator(_without_nulls)]
"""A mapping of names to values of one type."""
ONE_OF = ("[entries]", "[value]")
"""What stands for a type of `EntriesOr` in the location of a mistake."""
EntriesOr = Annotated[
    Annotated[Entries[T], Tag(ONE_OF[0])] | Annotated[V, Tag(ONE_OF[1])],
    Discriminator(lambda value: ONE_OF[0] if isinstance(value, Mapping) else ONE_OF[1]),
]
"""A mapping of names to values of one type, or a value of another type."""
Unique = Annotated[list[T], AfterValidator(_no_repetitions), Field(json_schema_extra={"uniqueItems": True})]
"""A list without repetitions."""


class Settings(BaseModel):
    """Settings of a stage, or a part of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _nulls_are_defaults(cls, data: object) -> object:
        """Give a key that is set to null its default, unless its type includes null."""
        if not isinstance(data, Mapping):
            return data
        nullable = {name for name, field in cls.model_fields.items() if _allows_null(field.annotation)}
        return {key: value for key, value in data.items() if value is not None or key in nullable}

    def as_json(self) -> JsonObject:
        """The settings as JSON values."""
        return self.model_dump(mode="json")

    def canonical_json(self) -> str:
        """The settings as canonical JSON: equal settings are equal strings."""
        return canonical(self.as_json())

    def narrow(self, kind: type[S], **others: object) -> S:
        """Settings of class `kind`: the fields that both classes have, and `others`."""
        shared = {name: getattr(self, name) for name in kind.model_fields if name in type(self).model_fields}
        return kind.model_validate({**shared, **others})

    def replace(self, **changes: object) -> Self:
        """A copy with some values changed."""
        return type(self).model_validate({**dict(self), **changes})


def _allows_null(annotation: object) -> bool:
    arguments = getattr(annotation, "__args__", ())
    return type(None) in arguments or any(_allows_null(part) for part in arguments if hasattr(part, "__args__"))
