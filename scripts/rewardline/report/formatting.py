"""Numbers, intervals and names as text. Imports nothing slow."""

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rewardline.evaluation.results import EvaluationResult, Rates


@dataclass(frozen=True)
class Table:
    """The text of a table: the names of the columns, and rows of as many cells."""

    columns: list[str]
    rows: list[list[str]]


RATING_COLUMNS = (
    *("run", "benchmark", "rating", "answers", "Spearman", "Kendall", "MSE", "MSE of the mean"),
    *("pairs", "accuracy", "95% interval"),
)


def rating_table(results: Iterable[EvaluationResult]) -> Table:
    """How well the ratings of single answers are predicted: a row for each run, benchmark and rating.

    The last row of a model with attributes is that of their weighted sum, which is its score.
    """
    rows = []
    for one in results:
        total = {} if one.rating_sum is None else {"(weighted sum)": one.rating_sum}
        for name, rating in {**one.ratings, **total}.items():
            numbers = [rating.spearman, rating.kendall, rating.mse, rating.mse_of_mean]
            rates = rating.rates(rating.pairs)
            cells = [*(decimal(number, 3) for number in numbers), count(rating.pairs), percent(rates.accuracy)]
            rows.append([one.run, one.benchmark, name, count(rating.n), *cells, interval(rates)])
    return Table(list(RATING_COLUMNS), rows)


def ratio(part: float, total: float) -> float:
    """`part / total`; NaN where the total is 0."""
    return part / total if total else math.nan


def decimal(value: float, digits: int = 2) -> str:
    """A number with a fixed count of decimals; `-` where unknown."""
    return f"{value:z.{digits}f}" if math.isfinite(value) else "-"


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign; `-` where unknown."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else "-"


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
    """An integer with separators."""
    return f"{value:,.0f}"


def compact(value: int) -> str:
    """A large number in three digits: 331M, 1.24B."""
    if value < 1000:
        return str(value)
    digits, exponent = f"{value:.2e}".split("e")
    power, places = divmod(int(exponent), 3)
    return f"{float(digits) * 10**places:.{2 - places}f}{' kMBTQ'[power]}"


def duration(seconds: float) -> str:
    """A time in its two largest units: 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def display_width(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def shorten(text: str, width: int) -> str:
    """`text` in at most `width` columns, its middle left out where it is longer: the ends distinguish names."""
    if display_width(text) <= width:
        return text
    start, end = text, text
    while display_width(start) > width // 2:
        start = start[:-1]
    while display_width(end) > (width - 1) // 2:
        end = end[1:]
    return f"{start}\N{HORIZONTAL ELLIPSIS}{end}"


def abbreviated(names: Sequence[str], width: int) -> list[str]:
    """Names in at most `width` columns, such that different ones stay different wherever possible.

    Those of the cells of a sweep lose what all of them begin with, then their keys, before any loses its middle.
    """
    different = len(set(names))
    keys = [found.end() for found in re.finditer(r"[-_](?=[A-Za-z][\w.]*=)", names[0])] if different > 1 else []
    common = max((end for end in keys if all(name.startswith(names[0][:end]) for name in names)), default=0)
    ends = [f"\N{HORIZONTAL ELLIPSIS}{name[common:]}" if common else name for name in names]
    values = [re.sub(r"(?<=[-_\N{HORIZONTAL ELLIPSIS}])[A-Za-z][\w.]*?=", "", name) for name in ends]
    choices = [list(names), ends, values]
    for found in choices:
        if max(map(display_width, found), default=0) <= width and len(set(found)) == different:
            return found
    shortened = [[shorten(name, width) for name in found] for found in choices]
    return next((found for found in shortened if len(set(found)) == different), shortened[0])
