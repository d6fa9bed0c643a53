"""Metrics of single answers against scipy and a slow loop."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from rewardline.evaluation.metrics.ratings import RatedScores, by_rating, of_sum, rating_metrics
from rewardline.evaluation.results import PredictedAttribute

RNG = np.random.default_rng(0)


def test_correlations_and_accuracy_are_those_of_a_slow_loop() -> None:
    ratings, prompts = RNG.integers(0, 5, 300).astype(float), RNG.integers(0, 80, 300)
    predicted = np.round(ratings + RNG.normal(0, 2, 300), 1)
    found = rating_metrics(ratings, predicted, prompts)
    assert found.spearman == pytest.approx(spearmanr(ratings, predicted).statistic)
    assert found.kendall == pytest.approx(kendalltau(ratings, predicted, variant="b").statistic)
    pairs = [
        0.5 if predicted[i] == predicted[j] else float((predicted[i] > predicted[j]) == (ratings[i] > ratings[j]))
        for i, j in combinations(range(300), 2)
        if prompts[i] == prompts[j] and ratings[i] != ratings[j]
    ]
    assert (found.n, found.pairs) == (300, len(pairs))
    assert found.accuracy == pytest.approx(np.mean(pairs))
    assert found.accuracy_low < found.accuracy < found.accuracy_high


def test_constants_have_no_correlation_and_single_answers_no_pairs() -> None:
    found = rating_metrics(np.ones(5), RNG.normal(size=5), np.arange(5))
    assert (found.n, found.pairs) == (5, 0)
    assert all(map(math.isnan, (found.spearman, found.kendall, found.accuracy)))


def test_each_rating_has_its_attribute_or_else_the_score_and_the_sum_its_own() -> None:
    outputs = RNG.normal(size=(40, 2))
    a, b = 3 + 2 * outputs[:, 0], 0.5 * outputs[:, 1] - 1
    scores = 0.7 * outputs[:, 0] - 0.3 * outputs[:, 1]
    other = scores + 10
    a[:10] = math.nan
    answers = RatedScores(np.arange(40) // 2, scores, outputs, {"a": a, "b": b + 1, "other": other})
    attributes = [
        PredictedAttribute(name="a", mean=3.0, std=2.0, weight=0.7),
        PredictedAttribute(name="b", mean=-1.0, std=0.5, weight=-0.3),
    ]
    found = by_rating(answers, attributes)
    assert found["a"].n == 30
    assert found["a"].mse == pytest.approx(0)
    assert found["b"].mse == pytest.approx(1)
    assert found["a"].mse_of_mean == pytest.approx(np.nanmean((a - 3) ** 2))
    assert [found[name].spearman for name in ("a", "b", "other")] == pytest.approx([1, 1, 1])
    assert math.isnan(found["other"].mse)
    total = of_sum(answers, attributes)
    assert total is not None
    assert (total.n, total.accuracy) == (30, 1.0)
    assert total.spearman == pytest.approx(1)
    assert of_sum(answers, []) is None
