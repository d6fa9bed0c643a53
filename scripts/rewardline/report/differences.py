"""The paired differences between the runs on a benchmark."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from rewardline.evaluation.comparisons import Difference
from rewardline.evaluation.leaderboards import Entry, Leaderboard
from rewardline.report.formatting import Bar, Scale, points

LISTED = 30
"""Differences that are listed for a benchmark, those of the best runs first."""

Differences = Sequence[Difference]


@dataclass(frozen=True)
class DifferenceRow:
    """A difference with its interval, in percentage points, and its bar."""

    difference: Difference
    points: str
    interval: str
    bar: Bar | None


@dataclass(frozen=True)
class DifferenceTable:
    """Differences between every two entries, the better one first; `left_out` more are not listed."""

    rows: list[DifferenceRow]
    scale: Scale
    left_out: int


def between(first: Entry, second: Entry, differences: Differences) -> Difference | None:
    """The difference of two entries of a leaderboard, None where it is unknown."""
    for one in differences:
        if (one.first, one.second) == (first.name, second.name):
            return one
        if (one.second, one.first) == (first.name, second.name):
            return one.flipped
    return None


def difference_interval(difference: Difference) -> str:
    """The 95% interval in percentage points."""
    return f"{points(difference.low)} to {points(difference.high)}"


def difference_table(board: Leaderboard, differences: Differences) -> DifferenceTable | None:
    """The differences of three or more entries; None where there are fewer, or nothing is known."""
    pairs = combinations(board.entries, 2) if len(board.entries) > 2 else ()
    known = [one for first, second in pairs if (one := between(first, second, differences)) is not None]
    if not known:
        return None
    shown = known[:LISTED]
    scale = Scale(min(0.0, *(one.low for one in shown)), max(0.0, *(one.high for one in shown)))
    rows = [
        DifferenceRow(
            one, points(one.difference), difference_interval(one), scale.bar(one.difference, one.low, one.high)
        )
        for one in shown
    ]
    return DifferenceTable(rows, scale, len(known) - len(shown))
