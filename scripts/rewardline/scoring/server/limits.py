"""The limits of the server and its batches: options of `serve.py`."""

import argparse
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rewardline.core.errors import UserError

GRACE = 60
"""Seconds that requests have to finish after a SIGTERM."""


class Limits(BaseModel):
    """An option for each field."""

    model_config = ConfigDict(frozen=True)

    max_body: int = Field(8 << 20, ge=1, description="largest body of a request, in bytes; 413 beyond")
    max_characters: int = Field(
        16 << 20,
        ge=1,
        description="most characters of all requests at once, a prompt's for each of its answers; 413 for a request "
        "that has more alone, 429 while others have them",
    )
    max_answers: int = Field(1024, ge=1, description="most answers of a request; 413 beyond")
    max_queue: int = Field(4096, ge=1, description="most answers that wait; 429 beyond")
    max_requests: int = Field(1024, ge=1, description="most requests at once; 503 beyond")
    max_seconds: float = Field(
        30, gt=0, lt=GRACE, description="longest for a request to arrive, in seconds; 408 beyond"
    )
    batch: int = Field(512, ge=1, description="most answers computed at once")
    window: float = Field(5, ge=0, le=10_000, description="milliseconds that an idle model waits for more requests")

    @model_validator(mode="after")
    def _a_request_fits(self) -> Self:
        if self.max_characters < self.max_body:
            raise ValueError(f"--max-characters {self.max_characters} must hold a request's --max-body {self.max_body}")
        if self.max_queue < self.max_answers:
            raise ValueError(f"--max-queue {self.max_queue} must hold a request's --max-answers {self.max_answers}")
        return self


def add_limit_options(options: argparse.ArgumentParser) -> None:
    """Add the options."""
    for name, field in Limits.model_fields.items():
        kind = float if field.annotation is float else int
        options.add_argument(_option(name), type=kind, default=field.default, metavar="N", help=field.description)


def limits_of(args: argparse.Namespace) -> Limits:
    """The limits that the options give.

    Raises:
        UserError: an option is out of range.
    """
    try:
        return Limits.model_validate({name: getattr(args, name) for name in Limits.model_fields})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        where = "".join(f"{_option(str(name))} {first['input']}: " for name in first["loc"])
        raise UserError(f"{where}{reason}") from error


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
