"""Learning curves: a planted power law is found, with intervals that hold it, and doubling is told in words."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from rewardline.evaluation.comparisons import LearningCurve
from rewardline.evaluation.leaderboards import leaderboards
from rewardline.evaluation.learning_curves import PowerLaw, fit, learning_curves
from rewardline.evaluation.results import read_results
from rewardline.training.records.run_facts import RunFacts

from support.results_folder import Results
from support.score_tables import stored, table

PAIRS = [500, 1000, 2000, 4000]


def laws(rng: np.random.Generator, exponent: float, floor: float, prompts: int) -> list[PowerLaw]:
    """Those of runs with three seeds, which are judged on the same prompts."""
    difficulty = rng.normal(size=prompts)
    errors = floor + (0.4 - floor) * (np.array(PAIRS) / PAIRS[0]) ** -exponent
    seeds = np.clip(errors[:, None] + 0.01 * rng.normal(size=(4, 3)), 0.001, 0.999)
    noise = 0.5 * rng.normal(size=(4, 3, prompts))
    wrong = difficulty + noise < norm.ppf(seeds)[:, :, None] * np.sqrt(1.25)
    values = wrong.mean(axis=1)
    covariance = np.cov(values) / prompts + np.eye(4) * wrong.mean(axis=2).var(axis=1, ddof=1).mean() / 3
    return fit(PAIRS, values.mean(axis=1), covariance)


@pytest.mark.parametrize(("exponent", "floor"), [(0.3, 0.0), (0.7, 0.0), (0.5, 0.1)])
def test_intervals_hold_the_planted_slope_and_what_doubling_brings(exponent: float, floor: float) -> None:
    rng = np.random.default_rng(1)
    slopes = gains = 0
    fitted = []
    for _ in range(60):
        found = laws(rng, exponent, floor, 800)
        bounds = [one.exponent_interval() for one in found]
        slopes += min(low for low, _ in bounds) <= exponent <= max(high for _, high in bounds)
        true = (0.4 - floor) * (8**-exponent - 16**-exponent)
        three = [one.gain(PAIRS[-1]) for one in found]
        gains += min(low for _, low, _ in three) <= true <= max(high for _, _, high in three)
        fitted.append(found[0].exponent)
    assert slopes >= 54 and gains >= 54
    if not floor:
        assert abs(np.median(fitted) - exponent) < 0.05


def test_a_law_without_noise_is_found_exactly() -> None:
    values = 0.1 + 3 * np.array([100.0, 200, 400, 800, 1600]) ** -0.5
    found = fit([100, 200, 400, 800, 1600], values, np.eye(5) * 1e-10)[0]
    assert found.exponent == pytest.approx(0.5, rel=0.05) and found.floor == pytest.approx(0.1, rel=0.05)
    gain, low, high = found.gain(1600)
    assert low <= gain <= high and gain == pytest.approx(3 * (1600**-0.5 - 3200**-0.5), rel=0.05)
    assert fit([1, 2], np.ones(2), np.eye(2)) == []
    assert fit([2, 2, 2], np.array([0.3, 0.2, 0.1]), np.eye(3)) == []
    assert fit([1, 2, 3], np.array([0.1, 0.05, 0.0]), np.eye(3)) == []


@pytest.mark.parametrize("cell", ["", "_loss=kwise_lr=5e-05"])
def test_runs_that_differ_in_their_fraction_alone_make_a_curve(tmp_path: Path, cell: str) -> None:
    results, scores = Results(tmp_path), {}
    rng = np.random.default_rng(0)
    rows = table(rng, 400)
    for fraction, right in ((0.25, 0.65), (0.5, 0.75), (1.0, 0.82)):
        name = f"s-fraction={fraction}{cell}"
        results.eval(name)
        results.model(name, fraction=fraction, sweep="s", train_pairs=int(4000 * fraction))
        gap = np.where(np.random.default_rng(1).random(400) < right, 1.0, -1.0)
        path = stored(rows.assign(chosen_score=gap, rejected_score=0 * gap), tmp_path / "evals" / name / "eval")
        scores[name] = path
    facts = {run.run: run for run in map(RunFacts.read, tmp_path.rglob("run.json"))}
    (board,) = leaderboards(read_results(tmp_path.rglob("metrics.json")))
    error, loss = learning_curves(board, scores, facts)
    curve = "s" + cell.replace("_", "-", 1)
    assert (error.metric, loss.metric, error.name) == ("error", "loss", curve)
    assert [point.pairs for point in error.points] == [1000, 2000, 4000]
    assert error.exponent > 0 and error.exponent_low <= error.exponent <= error.exponent_high
    assert (
        f"{curve}: doubling the data, from 4,000 to 8,000 pairs, is expected to raise accuracy on eval by"
        in error.sentence()
    )
    del facts[f"s-fraction=0.5{cell}"]
    assert learning_curves(board, scores, facts) == []


@pytest.mark.parametrize(
    ("metric", "gain", "expected"),
    [
        ("error", (0.02, 0.01, 0.03), "raise accuracy on eval by 2.0 points (95% interval 1.0 to 3.0)"),
        ("error", (0.02, -0.01, 0.03), "by 2.0 points, which may be nothing (95% interval -1.0 to 3.0)"),
        ("error", (-0.02, -0.03, -0.01), "lower accuracy on eval by 2.0 points (95% interval 1.0 to 3.0)"),
        ("loss", (0.02, 0.01, 0.03), "lower the loss on eval by 0.020 (95% interval 0.010 to 0.030)"),
        ("loss", (-0.02, -0.03, 0.01), "raise the loss on eval by 0.020, which may be nothing (95% interval -0.010 to"),
    ],
)
def test_what_doubling_brings_is_told_in_words_whichever_way(
    metric: str, gain: tuple[float, float, float], expected: str
) -> None:
    point = {"fraction": 1, "pairs": 100, "runs": ["s"], "value": 0.3, "low": 0.2, "high": 0.4}
    law = dict.fromkeys(("exponent", "exponent_low", "exponent_high", "scale", "floor"), 0.1)
    names = {"name": "s", "benchmark": "eval", "mixture": "m", "metric": metric}
    gains = dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True))
    assert expected in LearningCurve.model_validate({**names, **law, **gains, "points": [point]}).sentence()
