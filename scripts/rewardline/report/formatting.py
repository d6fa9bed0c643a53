"""Numbers, intervals and lists as text, and tables of text. Imports nothing slow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rewardline.evaluation.results import Rates

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Table:
    """The text of a table: the names of the columns, and rows of as many cells."""

    columns: list[str]
    rows: list[list[str]]


def decimal(value: float, digits: int = 2) -> str:
    """A number with a fixed count of decimals; `-` where unknown."""
    return f"{value:z.{digits}f}" if math.isfinite(value) else "-"


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign; `-` where unknown."""
    return f"{value:+.{digits}f}".replace("-", MINUS) if math.isfinite(value) else "-"


def points(difference: float) -> str:
    """A difference of two shares in percentage points, with its sign."""
    return signed(100 * difference, 1)


def percent(share: float) -> str:
    """A share as a percentage with one decimal; `-` where unknown."""
    return f"{decimal(100 * share, 1)}%" if math.isfinite(share) else "-"


def interval(rates: Rates) -> str:
    """The 95% interval of an accuracy in percent; `-` where unknown."""
    return "-" if math.isnan(rates.low + rates.high) else f"{100 * rates.low:.1f}\N{EN DASH}{100 * rates.high:.1f}%"


def count(value: float) -> str:
    """An integer with separators; `-` where unknown."""
    return f"{value:,.0f}" if math.isfinite(value) else "-"


def compact(value: float) -> str:
    """A large number in three digits (331M, 1.24B); `-` where unknown."""
    if not math.isfinite(value):
        return "-"
    if round(value) < 1000:
        return f"{value:.0f}"
    power = next(k for k in (1, 2, 3, 4) if k == 4 or float(f"{value / 1000**k:.3g}") < 1000)
    return f"{value / 1000**power:#.3g}".rstrip(".") + " kMBT"[power]


def duration(seconds: float) -> str:
    """A time in its two largest units (2 h 5 min); `-` where unknown."""
    if not math.isfinite(seconds):
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def listed(names: Sequence[str], most: int = 4) -> str:
    """Names as a list in words: a, b and c. What exceeds `most` is counted."""
    shown = [*names[:most], *([f"{len(names) - most} more"] if len(names) > most else [])]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


@dataclass(frozen=True)
class Bar:
    """An interval drawn on a scale, in percent of its width: start and width, its value, and a mark if there is one."""

    start: float
    width: float
    value: float
    mark: float | None = None


@dataclass(frozen=True)
class Scale:
    """The range of the bars in a column of a table."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """Where a value is, in percent of the width."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    def bar(self, value: float, low: float, high: float, mark: float = math.nan) -> Bar | None:
        """The bar of a value with its interval; None where one is unknown."""
        if math.isnan(value + low + high):
            return None
        start, end = self.place(low), self.place(high)
        return Bar(start, round(end - start, 2), self.place(value), self.place(mark) if math.isfinite(mark) else None)
