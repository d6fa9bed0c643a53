"""Length control: what is fitted, against a reference."""

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from rewardline.tokens.store import TokenDataset
from rewardline.training.length_control import PRIOR, fit

from support.models import comparisons
from support.tokens import write_tokens


@pytest.mark.parametrize("seed", range(5))
def test_the_coefficient_is_that_of_a_logistic_regression(seed: int) -> None:
    rng = np.random.default_rng(seed)
    leads, weights = rng.normal(scale=rng.uniform(0.1, 5), size=200), rng.uniform(0, 2, 200)
    confidences = rng.uniform(0.5, 1, 200)

    def loss(b: float) -> float:
        z = b * leads
        terms = confidences * np.logaddexp(0, -z) + (1 - confidences) * np.logaddexp(0, z)
        return float(np.average(terms, weights=weights)) + PRIOR * b * b / 2

    assert fit(leads, weights, confidences) == pytest.approx(minimize_scalar(loss, tol=1e-12).x, abs=1e-5)


def test_a_planted_preference_is_found_and_one_without_exceptions_is_finite() -> None:
    rng = np.random.default_rng(0)
    leads = rng.normal(size=20_000)
    longer = rng.random(20_000) < 1 / (1 + np.exp(-1.5 * leads))
    signed = np.where(longer, leads, -leads)
    assert fit(signed, np.ones(20_000), np.ones(20_000)) == pytest.approx(1.5, abs=0.06)
    assert 1 < fit(np.abs(leads), np.ones(20_000), np.ones(20_000)) < 100
    assert fit(np.zeros(3), np.ones(3), np.ones(3)) == 0 == fit(leads[:0], leads[:0], leads[:0])


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_lengths_are_those_of_the_answers_of_each_pair(tmp_path: Path, fraction: float) -> None:
    write_tokens(tmp_path / "x", [row for seed in range(4) for row in comparisons(seed)], [])
    data = TokenDataset(tmp_path / "x", "train", fraction)
    expected = [
        [len(row.prefix) + len(row.tails[tail]) - row.answer_start for tail in (pair.chosen, pair.rejected)]
        for row in (data[k] for k in range(len(data)))
        for pair in row.pairs
    ]
    found = data.answer_lengths()
    assert list(map(list, zip(found.chosen, found.rejected, strict=True))) == expected
    assert len(found.weight) == data.pairs
