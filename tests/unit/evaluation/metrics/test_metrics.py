"""What metrics say of planted scores, and that they equal plain counts."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import stats

from rewardline.core.errors import UserError
from rewardline.evaluation.metrics.intervals import difference_interval, mean_interval
from rewardline.evaluation.metrics.length import correlation
from rewardline.evaluation.metrics.summarize import summarize as summarize_scores
from rewardline.evaluation.scores import SCHEMA, read_scores

from support.score_tables import measurable, stored, table


def summarize(scores: pd.DataFrame, scale: float = 1.0) -> dict[str, Any]:
    """The content of metrics.json."""
    return summarize_scores(measurable(scores), scale).as_json()


def test_metrics_of_a_file_equal_plain_loops(tmp_path: Path) -> None:
    """All of metrics.json, recomputed from the rows one by one."""
    path = stored(table(np.random.default_rng(0), 300, answers=4), tmp_path)
    found = summarize(read_scores(path), scale=2.0)
    rows = pq.read_table(path).to_pylist()
    gaps = [2.0 * (row["chosen_score"] - row["rejected_score"]) for row in rows]
    right = [1.0 if gap > 0 else 0.5 if gap == 0 else 0.0 for gap in gaps]

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    assert found["n"] == 900
    assert found["prompts"] == 300
    assert found["accuracy"] == pytest.approx(mean(right))
    assert found["loss"] == pytest.approx(mean([math.log1p(math.exp(-gap)) for gap in gaps]))
    weights = [row["weight"] for row in rows]
    assert found["weighted_accuracy"] == pytest.approx(
        sum(w * r for w, r in zip(weights, right, strict=True)) / sum(weights)
    )
    for name in ("s0", "s1", "s2"):
        part = [r for r, row in zip(right, rows, strict=True) if row["subset"] == name]
        assert found["by_subset"][name]["n"] == len(part)
        assert found["by_subset"][name]["accuracy"] == pytest.approx(mean(part))
    bins: list[list[tuple[float, float]]] = [[] for _ in range(10)]
    for gap, r in zip(gaps, right, strict=True):
        confidence = 1 / (1 + math.exp(-abs(gap)))
        bins[min(9, int((confidence - 0.5) * 20))].append((confidence, r))
    calibration = found["calibration"]
    for one, inside in zip(calibration["bins"], bins, strict=True):
        assert one["n"] == len(inside)
        if inside:
            assert one["confidence"] == pytest.approx(mean([c for c, _ in inside]))
            assert one["accuracy"] == pytest.approx(mean([r for _, r in inside]))
            assert one["accuracy_low"] <= one["accuracy"] <= one["accuracy_high"]
    error = sum(abs(sum(c - r for c, r in inside)) for inside in bins) / len(rows)
    assert calibration["ece"] == pytest.approx(error)
    for part in (found["by_margin"], found["length"]["by_difference"]):
        for one in part:
            values = [
                (r, row["margin"] if part is found["by_margin"] else row["chosen_tokens"] - row["rejected_tokens"])
                for r, row in zip(right, rows, strict=True)
            ]
            inside_bin = [r for r, value in values if value is not None and one["low"] <= value <= one["high"]]
            assert one["n"] == len(inside_bin)
            assert one["accuracy"] == pytest.approx(mean(inside_bin))
    assert sum(one["n"] for one in found["length"]["by_difference"]) == 900
    assert [one["low"] for one in found["by_margin"]] == [1.0, 2.0, 3.0]
    tops: dict[int, list[float]] = {}
    for row in rows:
        tops.setdefault(row["comparison"], [row["chosen_score"]]).append(row["rejected_score"])
    best = [1.0 if max(values) == values[0] else 0.0 for values in tops.values()]
    assert found["best_of_n"]["prompts"] == 300
    assert found["best_of_n"]["answers"] == 4
    assert found["best_of_n"]["accuracy"] == pytest.approx(mean(best))
    assert found["best_of_n"]["chance"] == pytest.approx(0.25)
    for one in found["win_rates"]:
        sides = [
            (row["chosen_source"] == one["source"], r if row["chosen_source"] == one["source"] else 1 - r)
            for r, row in zip(right, rows, strict=True)
            if one["source"] in (row["chosen_source"], row["rejected_source"])
            and row["chosen_source"] != row["rejected_source"]
        ]
        assert one["n"] == len(sides)
        assert one["labelled"] == pytest.approx(mean([float(won) for won, _ in sides]))
        assert one["model"] == pytest.approx(mean([r for _, r in sides]))
    assert {one["source"] for one in found["win_rates"]} == {"ann", "bob"}


def test_a_preference_for_length_shows_as_such() -> None:
    rng = np.random.default_rng(1)
    scores = table(rng, 2000, scores="length")
    longer_wins = rng.random(len(scores)) < 0.8  # and the label agrees with it more often than not
    swap = (scores["chosen_tokens"] > scores["rejected_tokens"]) != longer_wins
    for name in ("score", "tokens"):
        sides = scores[[f"chosen_{name}", f"rejected_{name}"]].to_numpy()
        sides[swap] = sides[swap][:, ::-1]
        scores[[f"chosen_{name}", f"rejected_{name}"]] = sides
    gap = scores["chosen_score"] - scores["rejected_score"]
    scores["correct"] = (gap > 0) + 0.5 * (gap == 0)
    found = summarize(scores)
    assert found["accuracy"] > 0.75
    assert found["length_accuracy"] == pytest.approx(found["accuracy"])
    assert found["length"]["correlation"] == pytest.approx(1.0)
    assert found["length"]["controlled_accuracy"] == pytest.approx(0.5, abs=1e-9)
    assert 0.49 < found["length"]["controlled_low"] < 0.5 < found["length"]["controlled_high"] < 0.51


def test_a_perfect_model_is_perfect_everywhere() -> None:
    found = summarize(table(np.random.default_rng(2), 60, scores="perfect", answers=5))
    assert found["accuracy"] == found["length"]["controlled_accuracy"] == found["best_of_n"]["accuracy"] == 1.0
    assert abs(found["length"]["correlation"]) < 0.2
    assert found["accuracy_low"] < 1.0
    assert found["calibration"]["temperature"] is None
    assert found["calibration"]["loss_at_temperature"] == found["calibration"]["ece_at_temperature"] == 0.0


def test_correlation_is_spearman_of_both_orders() -> None:
    rng = np.random.default_rng(3)
    first = rng.integers(-5, 6, 200).astype(np.float64)
    second = first + rng.integers(-5, 6, 200).astype(np.float64)
    both = pd.DataFrame({"a": [*first, *-first], "b": [*second, *-second]}).rank()
    assert correlation(first, second) == pytest.approx(np.corrcoef(both["a"], both["b"])[0, 1])
    assert math.isnan(correlation(first, np.zeros(200)))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_known_temperature_is_found(temperature: float) -> None:
    rng = np.random.default_rng(4)
    n = 20_000
    scores = table(rng, n // 10, per_prompt=10)
    margins = rng.normal(0, 2, n)
    right = rng.random(n) < 1 / (1 + np.exp(-np.abs(margins)))
    scores["chosen_score"] = np.where(right, 1, -1) * np.abs(margins) * temperature
    scores["rejected_score"] = 0.0
    scores["correct"] = right.astype(float)
    found = summarize(scores)["calibration"]
    assert found["temperature"] == pytest.approx(temperature, rel=0.05)
    assert found["ece_at_temperature"] < 0.02
    assert found["loss_at_temperature"] == pytest.approx(
        min(
            np.logaddexp(0, -scores["chosen_score"] / (found["temperature"] * (1 + shift))).mean()
            for shift in (-0.02, -0.001, 0.0, 0.001, 0.02)
        ),
        abs=1e-12,
    )


def test_scores_that_say_nothing_have_no_temperature() -> None:
    scores = table(np.random.default_rng(5), 50)
    scores["chosen_score"] = scores["rejected_score"] = 1.0
    scores["correct"] = 0.5
    found = summarize(scores)
    assert found["accuracy"] == 0.5
    assert 0.45 < found["accuracy_low"] < 0.5 < found["accuracy_high"] < 0.55  # on no prompt was it anything else
    assert found["calibration"]["temperature"] is None
    assert found["calibration"]["loss_at_temperature"] == pytest.approx(math.log(2))
    assert found["length"]["correlation"] is None


def test_several_best_answers_are_not_best_of_n() -> None:
    scores = table(np.random.default_rng(6), 10, answers=3)
    assert summarize(scores)["best_of_n"]["prompts"] == 10
    scores.loc[scores["comparison"] == 0, "chosen_answer"] = [0, 3]  # two answers that no pair rejects
    assert summarize(scores)["best_of_n"]["prompts"] == 9
    scores["rejected_answer"] = 1  # two answers a prompt
    assert summarize(scores[scores["comparison"] > 0])["best_of_n"] is None


SIZES = [[1] * 10, [1] * 300, [4] * 20, [4] * 50, [10] * 10, [10] * 3, [1] * 30 + [20] * 6]


@pytest.mark.parametrize("agreement", [0.2, 1.0])
@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: f"{len(sizes)} prompts, {max(sizes)} pairs")
def test_intervals_cover_as_often_as_they_claim_also_near_one(sizes: list[int], agreement: float) -> None:
    """Up to all pairs of a prompt agree: the worst case of clustering. A few prompts may have most of the pairs."""
    rng = np.random.default_rng(7)
    prompts = len(sizes)
    owner = np.repeat(np.arange(prompts), sizes)
    for accuracy in (0.5, 0.95, 0.99):
        hits = []
        for _ in range(250):
            values = np.repeat((rng.random(prompts) < accuracy).astype(float), sizes)
            alone = rng.random(len(values)) > agreement
            values[alone] = rng.random(int(alone.sum())) < accuracy
            low, high = mean_interval(values, owner)
            hits.append(low <= accuracy <= high)
            assert mean_interval(1 - values, owner) == pytest.approx((1 - high, 1 - low))
        assert np.mean(hits) >= 0.92
        if prompts == 300:
            assert np.mean(hits) <= 0.99


def test_the_interval_of_single_pairs_is_that_of_agresti_and_coull() -> None:
    n, right = 40, 37
    added = float(stats.t.ppf(0.975, n + 3)) ** 2
    middle = (right + added / 2) / (n + added)
    half = math.sqrt(added * middle * (1 - middle) / (n + added))
    expected = middle - half, min(1.0, middle + half)
    assert mean_interval(np.repeat([1.0, 0.0], [right, n - right]), np.arange(n)) == pytest.approx(expected, abs=2e-3)


def test_controlled_accuracy_of_noise_covers_one_half() -> None:
    rng = np.random.default_rng(8)
    hits = []
    for _ in range(100):
        found = summarize(table(rng, 120))["length"]
        hits.append(found["controlled_low"] <= 0.5 <= found["controlled_high"])
    assert 0.9 <= np.mean(hits) <= 1.0


def test_many_prompts_are_put_together_without_a_narrower_interval() -> None:
    rng = np.random.default_rng(9)
    right = np.repeat((rng.random(30_000) < 0.7).astype(float), 2)
    low, high = mean_interval(right, np.repeat(np.arange(30_000), 2))
    error = math.sqrt(0.7 * 0.3 / 30_000)
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1.0, abs=0.08)


def test_intervals_do_not_vanish_where_all_pairs_agree() -> None:
    low, high = mean_interval(np.ones(30), np.arange(30))
    assert high == 1.0
    assert 0.85 < low < 0.95
    low, high = mean_interval(np.ones(30), np.zeros(30, dtype=np.int64))
    assert low < 0.2 < high == 1.0, "one prompt says little about others"
    low, high = difference_interval(np.zeros(50), np.arange(50))
    assert low < 0 < high < 0.1


def test_values_stay_what_they_were() -> None:
    """Those of earlier versions, which computed them in other ways."""
    found = summarize(table(np.random.default_rng(11), 2000, scores="length"), 1.3)
    of_bootstrap = {"accuracy_low": 0.48025, "accuracy_high": 0.522805177672014}
    of_bootstrap |= {"weighted_accuracy_low": 0.47892954768365853, "weighted_accuracy_high": 0.5238736813723062}
    assert {name: found[name] for name in of_bootstrap} == pytest.approx(of_bootstrap, abs=1e-3)
    found = summarize(table(np.random.default_rng(11), 100, answers=4), 1.3)
    known = {"temperature": 18.206185283829146, "loss_at_temperature": 0.6918210239949322}
    known |= {"ece": 0.25220224781469175, "ece_at_temperature": 0.02542927370155477}
    assert {name: found["calibration"][name] for name in known} == pytest.approx(known, abs=1e-9)
    assert found["length"]["correlation"] == pytest.approx(0.0760342273645418, abs=1e-9)


def test_one_pair_gives_metrics() -> None:
    found = summarize(table(np.random.default_rng(0), 1))
    assert found["n"] == 1
    assert found["best_of_n"] is None


def test_bad_scores_are_named_with_file_and_row(tmp_path: Path) -> None:
    scores = table(np.random.default_rng(0), 300)
    scores.loc[250, "rejected_score"] = np.nan
    with pytest.raises(UserError, match=r"scores\.parquet row 251: rejected_score is missing or not finite; delete"):
        read_scores(stored(scores, tmp_path))
    path = stored(table(np.random.default_rng(0), 300), tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="is damaged"):
        read_scores(path)
    pq.write_table(SCHEMA.empty_table(), path)
    with pytest.raises(UserError, match="has no pairs"):
        read_scores(path)
    pq.write_table(SCHEMA.empty_table().drop(["subset"]), path)
    with pytest.raises(UserError, match="no column 'subset'"):
        read_scores(path)
    with pytest.raises(UserError, match="does not exist"):
        read_scores(tmp_path / "none.parquet")
