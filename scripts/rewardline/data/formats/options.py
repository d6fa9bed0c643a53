"""What the user can choose about a format, checked."""

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from rewardline.core.errors import UserError
from rewardline.data.conversation import Reject, kind

OPTIONS: Final = ("pairing", "ties", "min_margin", "max_pairs", "values", "attributes", "separator")
"""The names of all options, which are keys of a data set in the configuration."""
CODES: Final = (
    frozenset({"first", "second", "tie"}),
    frozenset({"good", "bad"}),
    frozenset({"signed"}),
    frozenset({"start"}),
)
WHOLE: Final = re.compile(r"[+-]?[0-9]+\.0+")
MOST_ANSWERS: Final = 2_000  # to one prompt: two million pairs


@dataclass(frozen=True)
class Options:
    """How pairs are made, whatever the format.

    - `pairing` of ranked answers: `all`, `best_worst`, or `adjacent` (each level with the next).
    - `ties`: `drop` them, or `keep` each as one pair with confidence 0.5, its texts in alphabetical order.
    - `min_margin`: leave out pairs whose margin is smaller; a pair without a margin is left out too.
    - `max_pairs` of a row; of a prompt where a row or a group holds several.
    - `values`: how preferences are coded. `{first: 1, second: [2, 3], tie: 0}`; `{signed: first}` (or `second`): which
      answer is better where the number is above 0, its size is then the margin; `{good: 1, bad: [0, -1]}` for labels
      of single answers; `{start: 0}` (or 1): the number of the first answer where the best one is named by its number.
    - `attributes`: an answer's score is the sum of these numbers times their weights, `{helpfulness: 0.7, ...}`, as
      paths into the answer (`ranked`) or into the row (`labelled`).
    - `separator`: splits a text that holds several answers.
    - `published`: a benchmark that is counted by row: every pair knows its place in the row, and stays, also where the
      row gives it twice.

    Raises `UserError` for a value that is not allowed.
    """

    pairing: str = "all"
    ties: str = "drop"
    min_margin: float | None = None
    max_pairs: int | None = None
    values: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, float] = field(default_factory=dict)
    separator: str | None = None
    published: bool = False

    def __post_init__(self) -> None:
        if self.pairing not in ("all", "best_worst", "adjacent"):
            raise UserError(f"pairing is {self.pairing!r} but must be all, best_worst or adjacent")
        if self.ties not in ("drop", "keep"):
            raise UserError(f"ties is {self.ties!r} but must be drop or keep")
        if self.max_pairs is not None and self.max_pairs < 1:
            raise UserError(f"max_pairs is {self.max_pairs} but must be 1 or more")
        for path, weight in self.attributes.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise UserError(f"attributes: the weight of {path} is {weight!r} but must be a number")
        if self.values and not any(set(self.values) <= names for names in CODES):
            raise UserError("values needs first, second and tie, or good and bad, or only signed, or only start")
        if self.values.get("signed", "first") not in ("first", "second"):
            raise UserError("values: signed must be first or second: the better answer where the number is above 0")

        if self.values.get("start", 0) not in (0, 1):
            raise UserError("values: start must be 0 or 1: the number of the first answer")

    @cached_property
    def sides(self) -> dict[str, str]:
        """By the code of a label, which of `values` it is: first, second, tie, good or bad."""
        return {label: side for side, labels in self.values.items() for label in codes(labels)}

    def check_count(self, answers: int) -> None:
        """Reject more answers to one prompt than can be compared with each other."""
        if answers > MOST_ANSWERS:
            raise Reject("too_many_answers", f"{answers:,} answers to one prompt; {MOST_ANSWERS:,} can be compared")


def code(value: Any) -> str:
    """A label as text, in which 1, 1.0, "1" and "1.0" are one, but true is none of them."""
    if isinstance(value, str):
        text = value.strip().lower()
        return text.partition(".")[0] if WHOLE.fullmatch(text) else text
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float) and abs(value) < 1e9:
        return str(int(value)) if value == int(value) else repr(value)
    return kind(value)


def codes(values: Any) -> list[str]:
    """The codes of one value or of a list of them."""
    return [code(value) for value in (values if isinstance(values, list | tuple) else [values])]
