"""Whether ratings are on one scale in all files."""

import numpy as np
import pytest

from rewardline.core.errors import UserError
from rewardline.data.ratings import RatingRange, RatingSurvey, check_scales

RNG = np.random.default_rng(0)


def ranges(values: list[float], *, is_stated: bool = False) -> dict[str, dict[str, RatingRange]]:
    survey = RatingSurvey(["x"], is_stated=is_stated)
    for value in values:
        survey.add([{"name": "x", "value": value}], "f")
    return survey.ranges()


def drawn(low: int, high: int, count: int) -> list[float]:
    return [float(value) for value in RNG.integers(low, high, count, endpoint=True)]


@pytest.mark.parametrize(("one", "other"), [((1, 5), (1, 10)), ((0, 4), (1, 5)), ((0, 1), (0, 100)), ((1, 2), (4, 5))])
def test_another_scale_is_an_error_unless_it_is_stated(one: tuple[int, int], other: tuple[int, int]) -> None:
    first, second = drawn(*one, 400), drawn(*other, 400)
    with pytest.raises(UserError, match=r"x is from \d+ to \d+ in a f.*its scale changes.*scale: \[lowest, highest\]"):
        check_scales([("a", ranges(first)), ("b", ranges(second))])
    check_scales([("a", ranges(first, is_stated=True)), ("b", ranges(second))])


def test_parts_of_one_scale_are_no_other_scale() -> None:
    values = [float(value) for value in RNG.choice([0, 1, 2, 3, 4], 3000, p=[0.02, 0.03, 0.1, 0.45, 0.4])]
    few = [[3.0, 4.0] * 5, [2.0], values[:40], [4.0] * 12]
    check_scales([("a", ranges(values)), *((str(k), ranges(part)) for k, part in enumerate(few))])


def test_a_rating_that_no_row_has_is_an_error() -> None:
    with pytest.raises(UserError, match="b: no row has a value for the rating x"):
        check_scales([("a", ranges([1.0])), ("b", ranges([]))])
    check_scales([("a", ranges([])), ("a", ranges([1.0]))])
