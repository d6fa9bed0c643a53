"""Best-of-n against the enumeration of all subsets, and against policies whose answers are known."""

import math
from itertools import combinations

import numpy as np
import pytest

from rewardline.evaluation.metrics.best_of import best_of_n_divergence, expected_best


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_expectation_is_that_over_all_subsets(levels: int) -> None:
    """With few levels scores are often equal: then the picked answer is drawn from those."""
    random = np.random.default_rng(levels)
    scores, golds = random.integers(0, levels, 7).astype(float), random.normal(size=7)
    for size, found in zip(range(1, 8), expected_best(scores, golds, range(1, 8)), strict=True):
        picked = []
        for chosen in combinations(range(7), size):
            of_subset = scores[list(chosen)]
            picked.append(golds[list(chosen)][of_subset == of_subset.max()].mean())
        assert found == pytest.approx(np.mean(picked))


def test_it_is_unbiased_for_draws_from_the_policy() -> None:
    """The best of 4 draws from a uniform policy scores 4/5 on average, estimated from 9 draws a prompt."""
    random = np.random.default_rng(0)
    draws = random.uniform(size=(4000, 9))
    found = np.mean([expected_best(one, one, [1, 4]) for one in draws], axis=0)
    assert found == pytest.approx([1 / 2, 4 / 5], abs=0.005)


def test_many_answers_are_exact() -> None:
    values = np.arange(2000.0)
    assert expected_best(values, values, [1, 2000]) == pytest.approx([999.5, 1999])


def test_the_divergence_is_that_of_the_picked_answer() -> None:
    """Of n draws of [0, 1], the best has the density n x^(n-1)."""
    grid = (np.arange(200_000) + 0.5) / 200_000
    for size in (1, 2, 8, 64):
        logs = math.log(size) + (size - 1) * np.log(grid)
        assert best_of_n_divergence(size) == pytest.approx(float((np.exp(logs) * logs).mean()), abs=1e-3)
    assert best_of_n_divergence(1) == 0
    assert best_of_n_divergence(1000) == pytest.approx(math.log(1000) - 0.999)
