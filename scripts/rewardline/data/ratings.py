"""The values of the ratings of single answers: which of them a dataset has, and whether its files are on one scale."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, permutations
from math import lgamma, log
from typing import Final

import numpy as np
from pydantic import BaseModel

from rewardline.core.errors import UserError
from rewardline.data.schema import Rating

CHANCE: Final = 1e-6
"""Two files are on different scales if one of them would have all values of a kind so rarely by chance."""
LABELS: Final = ({0.0, 1.0}, {-1.0, 1.0})
"""The values of labels, good and bad."""
LOW_END: Final = 0.1
"""Of a stated scale."""
_SHARES: Final = [0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95]


class RatingRange(BaseModel):
    """The values of a rating in a file: their number, the lowest and the highest, and quantiles between.

    `is_stated`: the settings state the scale, of which the values are shares from 0 to 1; a file may have any of them.
    """

    n: int = 0
    low: float = 0.0
    high: float = 0.0
    quantiles: list[float] = []
    is_stated: bool = False

    def lacks(self, other: "RatingRange") -> bool:
        """Whether `other` has so many values outside this range that this is no chance.

        If all values are drawn to the two files at random, the chance that the `other` gets all of them.
        """
        values = np.array(other.quantiles)
        count = int(other.n * float(((values < self.low) | (values > self.high)).mean()))
        total = self.n + other.n
        chance = lgamma(other.n + 1) - lgamma(other.n - count + 1) - lgamma(total + 1) + lgamma(total - count + 1)
        return chance < log(CHANCE)

    def are_labels_with(self, other: "RatingRange") -> bool:
        """Whether both have values of two labels alone, such as good answers in one file and bad ones in another."""
        values = {value for one in (self, other) for value in (one.low, one.high, *one.quantiles)}
        return any(values <= labels for labels in LABELS)

    def is_low_beside(self, other: "RatingRange") -> bool:
        """Whether these, of a stated scale, are several levels at its lowest end, where `other` has some values too.

        So ratings from 0 to 4 look where the scale is from 0 to 100. Files sorted by their ratings do not.
        """
        several, middle = len(set(self.quantiles)) > 2, self.quantiles[len(self.quantiles) // 2]
        return several and self.high <= LOW_END and other.high > 0.5 and other.low <= middle and self.lacks(other)


class RatingSurvey:
    """Collects the values of ratings as rows are read."""

    def __init__(self, names: Iterable[str], *, is_stated: bool) -> None:
        """`names`: of the ratings that the settings name; `is_stated`: whether they state the scale."""
        self._is_stated = is_stated
        self._values: dict[str, dict[str, array[float]]] = {name: {} for name in names}

    def add(self, ratings: Sequence[Rating] | None, file: str) -> None:
        """Count the ratings of an answer."""
        for rating in ratings or ():
            self._values.setdefault(rating["name"], {}).setdefault(file, array("d")).append(rating["value"])

    def ranges(self) -> dict[str, dict[str, RatingRange]]:
        """By name and file; a rating that the settings name and no row has is there without a file."""
        found = sorted(self._values.items())
        return {name: {file: self._range(values) for file, values in files.items()} for name, files in found}

    def _range(self, values: "array[float]") -> RatingRange:
        quantiles = np.quantile(np.frombuffer(values), _SHARES, method="nearest").tolist()
        return RatingRange(
            n=len(values), low=min(values), high=max(values), quantiles=quantiles, is_stated=self._is_stated
        )


def check_scales(parts: Iterable[tuple[str, Mapping[str, Mapping[str, RatingRange]]]]) -> dict[str, list[str]]:
    """Check the ratings of all parts of all datasets, each with the name of its dataset; remarks on each dataset.

    A stated scale is trusted: there is a remark, and no error, if a file of its dataset looks as if it had another.

    Raises:
        UserError: no row of a dataset has a rating that its settings name, or a rating is on different scales in
            different files.
    """
    remarks: dict[str, list[str]] = {}
    found: dict[str, dict[str, dict[str, RatingRange]]] = {}
    for dataset, ratings in parts:
        for name, files in ratings.items():
            found.setdefault(name, {}).setdefault(dataset, {}).update(files)
    for name, datasets in found.items():
        for dataset, files in datasets.items():
            if not files:
                raise UserError(
                    f"{dataset}: no row has a value for the rating {name}; correct its path in `ratings`, or remove it"
                )
            low = next((pair for pair in permutations(files.items(), 2) if _is_low(*pair)), None)
            if low is not None:
                (file, one), (elsewhere, other) = low
                remarks.setdefault(dataset, []).append(
                    f"the rating {name} is at most {one.high:.1%} of its `scale` in {file} ({one.n:,} values), and up "
                    f"to {other.high:.1%} in {elsewhere}; if this is not its scale there, make a dataset of the files "
                    "of each scale"
                )
        ranges = [(f"{dataset} {file}", one) for dataset, files in datasets.items() for file, one in files.items()]
        stated = next((where for where, one in ranges if one.is_stated), None)
        unstated = [(where, one) for where, one in ranges if not one.is_stated]
        for where, one in unstated if stated else ():
            if one.low < 0 or one.high > 1:
                raise UserError(
                    f"the rating {name} is from {one.low:g} to {one.high:g} in {where} ({one.n:,} values), and from 0 "
                    f"to 1 in {stated}, whose `scale` is stated: state it there too, `scale: [lowest, highest]`"
                )
        for (where, one), (elsewhere, other) in combinations(unstated, 2):
            if (one.lacks(other) or other.lacks(one)) and not one.are_labels_with(other):
                raise UserError(
                    f"the rating {name} is from {one.low:g} to {one.high:g} in {where} ({one.n:,} values), and from "
                    f"{other.low:g} to {other.high:g} in {elsewhere} ({other.n:,} values): its scale changes between "
                    "them. Make a dataset of the files of each scale, and state it: `scale: [lowest, highest]`"
                )
    return remarks


def _is_low(low: tuple[str, RatingRange], other: tuple[str, RatingRange]) -> bool:
    return low[1].is_stated and low[1].is_low_beside(other[1])
