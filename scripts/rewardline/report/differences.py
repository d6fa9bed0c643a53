"""Paired differences between runs, as the report shows them: `comparisons.json` by board, and a table of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from rewardline.evaluation.comparisons import ComparisonsFile, Difference
from rewardline.evaluation.leaderboards import Entry, Leaderboard
from rewardline.evaluation.settings import HELD_OUT

LISTED = 30
"""Differences that are listed for a board, those of the best runs first."""


@dataclass(frozen=True)
class Row:
    """A difference with its bar: where on the track, in percent, the interval starts, how long it is, the value."""

    shown: Difference
    bar: tuple[float, float, float]


Differences = Sequence[Difference]


def read_comparisons(path: Path) -> dict[tuple[str, str], list[Difference]]:
    """The known differences of each leaderboard, by benchmark and mixture (empty for a benchmark)."""
    return {
        (one.benchmark, one.mixture or ""): [difference for difference in one.differences if difference.known]
        for one in ComparisonsFile.read(path).boards
    }


def of_board(board: Leaderboard, known: dict[tuple[str, str], list[Difference]]) -> list[Difference]:
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


def table(board: Leaderboard, differences: Differences) -> tuple[list[Row], float, int]:
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

    def bar(one: Difference) -> tuple[float, float, float]:
        return place(one.low), round(100 * (one.high - one.low) / width, 2), place(one.difference)

    rows = [Row(one, bar(one)) for one in shown]
    return rows, place(0.0), len(found) - len(shown)


def interval_points(one: Difference) -> str:
    """The interval in percentage points."""
    return f"{signed(one.low)} to {signed(one.high)}"


def signed(value: float) -> str:
    """A difference in percentage points with its sign."""
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")
