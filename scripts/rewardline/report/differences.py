"""Paired differences between runs, as the report shows them: `comparisons.json` by board, and a table of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from rewardline.core.files import read_json
from rewardline.evaluation.details import mapping, real, whole
from rewardline.evaluation.results import HELD_OUT, Board, Entry, printable

LISTED = 30
"""Differences that are listed for a board, those of the best runs first."""


@dataclass(frozen=True)
class Difference:
    """The accuracy of `first` minus that of `second`, runs or families of seeds, on the `n` pairs that both judged.

    `seeds`: the interval holds the chance between seeds too.
    """

    first: str
    second: str
    n: int
    value: float
    low: float
    high: float
    seeds: bool = False

    @property
    def within_noise(self) -> bool:
        """Whether the 95% interval holds 0."""
        return not (self.low > 0 or self.high < 0)

    @property
    def flipped(self) -> "Difference":
        """The same, seen from the other side."""
        return Difference(self.second, self.first, self.n, -self.value, -self.high, -self.low, self.seeds)

    @property
    def points(self) -> str:
        """The interval in percentage points."""
        return f"{signed(self.low)} to {signed(self.high)}"


@dataclass(frozen=True)
class Row:
    """A difference with its bar: where on the track, in percent, the interval starts, how long it is, the value."""

    shown: Difference
    bar: tuple[float, float, float]


Differences = Sequence[Difference]


def read_comparisons(path: Path) -> dict[tuple[str, str], list[Difference]]:
    """The differences of each board, by benchmark and mixture (empty for a benchmark that all mixtures share)."""
    result = {}
    for board in map(mapping, mapping(read_json(path)).get("boards") or []):
        found = [_difference(mapping(one)) for one in board.get("differences") or []]
        known = [one for one in found if math.isfinite(one.value + one.low + one.high)]
        result[str(board.get("benchmark")), str(board.get("mixture") or "")] = known
    return result


def _difference(one: Mapping[str, Any]) -> Difference:
    first, second = (printable(str(one.get(key))) for key in ("first", "second"))
    value, low, high = (real(one.get(key)) for key in ("difference", "low", "high"))
    return Difference(first, second, whole(one.get("n")), value, low, high, bool(one.get("seeds")))


def of_board(board: Board, known: dict[tuple[str, str], list[Difference]]) -> list[Difference]:
    """The differences between the runs of a board."""
    return known.get((board.benchmark, board.mixture if board.benchmark == HELD_OUT else ""), [])


def between(first: Entry, second: Entry, differences: Differences) -> Difference | None:
    """The difference of two entries of a board, None where it is unknown."""
    for one in differences:
        if (one.first, one.second) == (first.name, second.name):
            return one
        if (one.second, one.first) == (first.name, second.name):
            return one.flipped
    return None


def table(board: Board, differences: Differences) -> tuple[list[Row], float, int]:
    """Rows for every two entries of three or more, where on their track 0 lies, in percent, and how many are left out.

    The better one of two stands first.
    """
    pairs = combinations(board.entries, 2) if len(board.entries) > 2 else ()
    found = [one for first, second in pairs if (one := between(first, second, differences)) is not None]
    shown = found[:LISTED]
    low = min([0.0, *(one.low for one in shown)])
    width = max([0.0, *(one.high for one in shown)]) - low or 1.0

    def place(value: float) -> float:
        return round(100 * (value - low) / width, 2)

    rows = [Row(one, (place(one.low), round(100 * (one.high - one.low) / width, 2), place(one.value))) for one in shown]
    return rows, place(0.0), len(found) - len(shown)


def signed(value: float) -> str:
    """A difference in percentage points with its sign."""
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")
