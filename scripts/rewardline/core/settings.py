"""The base of all settings: typed, frozen, refusing unknown keys, and equal exactly when their JSON is equal."""

import math
from collections.abc import Mapping
from typing import Annotated, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StrictStr,
    model_validator,
)

from rewardline.core.hashing import canonical

T = TypeVar("T")
S = TypeVar("S", bound="Settings")


def _number(value: object) -> object:
    """Numbers that YAML reads as text (`5e-5`) as numbers; no key takes NaN, infinity, true or false for one."""
    if isinstance(value, bool):
        raise ValueError("a number")
    if isinstance(value, str | float):
        try:
            number = float(value)
        except ValueError:
            raise ValueError("a number") from None
        if not math.isfinite(number):
            raise ValueError("a finite number")
        return number
    return value


def _integer(value: object) -> object:
    """As `_number`, and 8.0 as 8."""
    try:
        number = _number(value)
    except ValueError:
        raise ValueError("an integer") from None
    return int(number) if isinstance(number, float) and number == int(number) else number


def _without_nulls(value: object) -> object:
    """An entry set to null is taken out: so an overlay can remove what the default configuration has."""
    return {key: item for key, item in value.items() if item is not None} if isinstance(value, Mapping) else value


def _no_repetitions(values: list[T]) -> list[T]:
    if any(value in values[:place] for place, value in enumerate(values)):
        raise ValueError("a list without repetitions")
    return values


Number = Annotated[float, BeforeValidator(_number)]
Integer = Annotated[int, BeforeValidator(_integer)]
Flag = StrictBool
Text = StrictStr
JsonObject = dict[str, JsonValue]
Entries = Annotated[dict[str, T], BeforeValidator(_without_nulls)]
"""A mapping of names to values of one type."""
Unique = Annotated[list[T], AfterValidator(_no_repetitions), Field(json_schema_extra={"uniqueItems": True})]
"""A list without repetitions."""


class Settings(BaseModel):
    """Settings of a stage, or a part of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _nulls_are_defaults(cls, data: object) -> object:
        """A key set to null has its default, unless null is a value of its own there."""
        if not isinstance(data, Mapping):
            return data
        nullable = {name for name, field in cls.model_fields.items() if _allows_null(field.annotation)}
        return {key: value for key, value in data.items() if value is not None or key in nullable}

    def as_json(self) -> JsonObject:
        """The settings as JSON values."""
        return self.model_dump(mode="json", by_alias=False)

    def canonical_json(self) -> str:
        """The settings as canonical JSON: equal settings are equal strings."""
        return canonical(self.as_json())

    def narrow(self, kind: type[S], **more: object) -> S:
        """The fields that these settings share with another model, as that model; `more` has its other fields."""
        shared = {name: getattr(self, name) for name in kind.model_fields if name in type(self).model_fields}
        return kind.model_validate({**shared, **more})

    def replace(self, **changes: object) -> Self:
        """A copy with some values changed."""
        return type(self).model_validate({**dict(self), **changes})


def _allows_null(annotation: object) -> bool:
    arguments = getattr(annotation, "__args__", ())
    return type(None) in arguments or any(_allows_null(part) for part in arguments if hasattr(part, "__args__"))
