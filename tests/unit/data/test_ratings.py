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
    shares = [(value - one[0]) / (one[1] - one[0]) for value in first]
    others = [(value - other[0]) / (other[1] - other[0]) for value in second]
    assert not check_scales([("a", ranges(shares, is_stated=True)), ("b", ranges(others, is_stated=True))])


def test_all_of_a_mixture_state_their_scale_or_have_ratings_from_0_to_1() -> None:
    stated = ("a", ranges([value / 4 for value in drawn(0, 4, 400)], is_stated=True))
    for values in (drawn(1, 5, 400), [1.0, 2.0], [-1.0, 1.0]):
        with pytest.raises(UserError, match=r"x is from -?1 to \d in b f.*from 0 to 1 in a f, whose `scale` is stated"):
            check_scales([stated, ("b", ranges(values))])
    check_scales([stated, ("b", ranges([0.0, 1.0] * 200)), ("c", ranges([1.0] * 200))])


@pytest.mark.parametrize(
    ("one", "other", "is_remarked"),
    [
        ([value / 100 for value in drawn(0, 4, 400)], [value / 100 for value in drawn(0, 100, 400)], True),
        (drawn(0, 1, 400), [1.0] * 400, False),
        ([0.0] * 400, [value / 4 for value in drawn(0, 4, 400)], False),
        ([value / 10 for value in drawn(0, 2, 400)], [value / 10 for value in drawn(0, 10, 400)], False),
        ([value / 400 for value in drawn(0, 20, 400)], [0.05 + value / 400 for value in drawn(0, 380, 400)], False),
        ([0.01, 0.02, 0.03], [value / 100 for value in drawn(0, 100, 400)], False),
    ],
)
def test_a_stated_scale_is_trusted_with_a_remark_where_a_file_looks_as_if_it_had_another(
    one: list[float], other: list[float], is_remarked: bool
) -> None:
    survey = RatingSurvey(["x"], is_stated=True)
    for file, values in (("one", one), ("other", other)):
        for value in values:
            survey.add([{"name": "x", "value": value}], file)
    remarks = check_scales([("a", survey.ranges())])
    assert bool(remarks) == is_remarked
    if is_remarked:
        assert "x is at most 4.0% of its `scale` in one (400 values), and up to 100.0% in other" in remarks["a"][0]


def test_good_and_bad_answers_may_be_in_a_file_each() -> None:
    for bad in (0.0, -1.0):
        check_scales([("a", ranges([1.0] * 400)), ("b", ranges([bad] * 400)), ("c", ranges([bad, 1.0] * 50))])
    with pytest.raises(UserError, match="its scale changes"):
        check_scales([("a", ranges([1.0] * 400)), ("b", ranges([5.0] * 400))])


def test_parts_of_one_scale_are_no_other_scale() -> None:
    values = [float(value) for value in RNG.choice([0, 1, 2, 3, 4], 3000, p=[0.02, 0.03, 0.1, 0.45, 0.4])]
    few = [[3.0, 4.0] * 5, [2.0], values[:40], [4.0] * 12]
    check_scales([("a", ranges(values)), *((str(k), ranges(part)) for k, part in enumerate(few))])


def test_a_rating_that_no_row_has_is_an_error() -> None:
    with pytest.raises(UserError, match="b: no row has a value for the rating x"):
        check_scales([("a", ranges([1.0])), ("b", ranges([]))])
    check_scales([("a", ranges([])), ("a", ranges([1.0]))])
