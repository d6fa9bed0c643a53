import numpy as np
import pandas as pd
import pytest

from rewardline.metrics import accuracy_interval, summarize, wilson


def table(rng: np.random.Generator, prompts: int, per_prompt: int, accuracy: float) -> pd.DataFrame:
    """Pairs whose correctness is the same for all pairs of a prompt: the worst case of clustering."""
    right = np.repeat(rng.random(prompts) < accuracy, per_prompt)
    gap = np.where(right, 1.0, -1.0) * rng.random(len(right))
    return pd.DataFrame(
        {
            "pair_id": [str(k) for k in range(len(right))],
            "prompt_id": np.repeat([str(k) for k in range(prompts)], per_prompt),
            "subset": rng.choice(["a", "b"], len(right)),
            "chosen_score": gap,
            "rejected_score": 0.0,
            "chosen_tokens": rng.integers(1, 5, len(right)),
            "rejected_tokens": rng.integers(1, 5, len(right)),
            "correct": right.astype(float),
        }
    )


def test_metrics_equal_plain_counts() -> None:
    scores = table(np.random.default_rng(0), 100, 2, 0.7)
    found = summarize(scores)
    assert found["n"] == 200
    assert found["prompts"] == 100
    assert found["accuracy"] == pytest.approx((scores.chosen_score > scores.rejected_score).mean())
    longer = (scores.chosen_tokens > scores.rejected_tokens) + 0.5 * (scores.chosen_tokens == scores.rejected_tokens)
    assert found["length_accuracy"] == pytest.approx(longer.mean())
    gap = scores.chosen_score - scores.rejected_score
    assert found["loss"] == pytest.approx(np.log1p(np.exp(-gap)).mean())
    assert sum(part["n"] for part in found["by_subset"].values()) == 200
    weighted = sum(part["n"] * part["accuracy"] for part in found["by_subset"].values()) / 200
    assert weighted == pytest.approx(found["accuracy"])


def test_intervals_of_noise_cover_one_half_as_often_as_they_claim() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        scores = table(rng, 60, 4, 0.5)
        low, high = accuracy_interval(scores["correct"].to_numpy(), scores["prompt_id"].astype(int).to_numpy())
        covered += low <= 0.5 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_interval_does_not_vanish_where_all_pairs_agree() -> None:
    low, high = accuracy_interval(np.ones(30), np.arange(30))
    assert high == 1.0
    assert 0.85 < low < 0.95
    assert accuracy_interval(np.ones(30), np.zeros(30, dtype=np.int64)) == wilson(1.0, 1)


def test_one_pair_gives_metrics() -> None:
    assert summarize(table(np.random.default_rng(0), 1, 1, 1.0))["n"] == 1
