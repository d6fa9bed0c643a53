"""Published benchmarks' figures, computed by hand."""

import json
import math
from math import tanh
from typing import Any, cast

import numpy as np
import pytest
import scipy

from rewardline.core.errors import UserError
from rewardline.evaluation.published.base import PublishedPair
from rewardline.evaluation.published.figures import figures
from rewardline.evaluation.published.ppe_human import Battles, ratings, win_counts
from rewardline.evaluation.published.registry import BENCHMARKS

Json = dict[str, Any]


def pair(number: int, subset: str, chosen: float, rejected: float, **more: Any) -> Json:
    """A scored pair of answers A (index 0) and B, of which A is the better one unless `place` says otherwise."""
    place = {"item": "", "chosen": 0, "rejected": 1, "answers": 2, **more.pop("place", {})}
    found = {"subset": subset, "prompt_id": f"p{number}", "file": "f", "row": number, "confidence": 1.0, "place": place}
    found |= {"chosen_score": chosen, "rejected_score": rejected, "chosen_tokens": 5, "rejected_tokens": 5}
    return {**found, "chosen_source": None, "rejected_source": None, **more}


def row(number: int, subset: str, chosen: list[float], rejected: list[float], item: str = "") -> list[Json]:
    """All pairs of a row with a list of good and one of bad answers."""
    size = len(chosen) + len(rejected)
    return [
        pair(number, subset, good, bad, place={"item": item, "chosen": n, "rejected": m, "answers": size})
        for n, good in enumerate(chosen)
        for m, bad in enumerate(rejected)
    ]


def ranking(number: int, scores: list[float], golds: list[float], subset: str = "") -> list[Json]:
    """All pairs of a row with one list of answers, of which each has a score and a gold score."""
    return [
        pair(
            number,
            subset,
            scores[i],
            scores[j],
            place={
                "chosen": i, "rejected": j, "answers": len(scores), "chosen_gold": golds[i], "rejected_gold": golds[j],
            },
            chosen_tokens=10 * (i + 1),
            rejected_tokens=10 * (j + 1),
        )
        for i in range(len(scores))
        for j in range(len(scores))
        if golds[i] > golds[j]
    ]  # fmt: skip


def measured(arithmetic: str, *rows: list[Json], **left_out: int) -> Json:
    pairs = [cast(PublishedPair, pair) for pairs in rows for pair in pairs]
    return figures(pairs, arithmetic, left_out).as_json()


def test_rewardbench_weighs_its_subsets_as_published() -> None:
    found = measured(
        "rewardbench",
        row(1, "alpacaeval-easy", [2], [1]),
        row(2, "alpacaeval-easy", [1], [2]),
        row(3, "mt-bench-med", [1], [0]),
        row(4, "mt-bench-hard", [1], [0]),
        *[row(5 + k, "donotanswer", [float(k)], [0.5]) for k in range(4)],
        row(9, "math-prm", [1], [1]),  # a tie is wrong
        row(10, "hep-cpp", [1], [0]),
    )
    chat, reasoning = (0.5 * 100 + 1.0 * 40) / 140, 164 / (984 + 164)
    assert found["sections"] == {
        "Chat": {"score": pytest.approx(chat), "n": 3},
        "Chat Hard": {"score": 1.0, "n": 1},
        "Safety": {"score": 0.75, "n": 4},
        "Reasoning": {"score": pytest.approx(reasoning), "n": 2},
    }
    assert found["overall"] == pytest.approx((chat + 1 + 0.75 + reasoning) / 4)
    assert (found["missing"], found["incomplete"], found["left_out"]) == ([], 0, {})


def test_rewardbench_2_shares_ties_and_counts_its_ties_subset_by_margins() -> None:
    found = measured(
        "rewardbench2",
        row(1, "Factuality", [2], [1, 0, -1]),
        row(2, "Factuality", [1], [1, 1, 0]),  # a third of it
        row(3, "Factuality", [0], [1, -1, -1]),
        row(4, "Ties", [3], [1, 0], "ref:0"),
        row(5, "Ties", [4, 3, 3.5], [2, 1], "tied:0"),  # margin 1, spread 1
        row(6, "Ties", [1], [2], "ref:1"),
        row(7, "Ties", [5, 4.75], [1], "tied:1"),  # margin 3.75, spread 0.25
    )
    ties = 0.3 * 1 + 0.3 * 0.5 + 0.2 * 0.5 + 0.2 * 0 + 0.01 * (tanh(1 / 1 - 1) + tanh(-1 / 0.25 - 1)) / 2
    assert found["sections"] == {
        "Factuality": {"score": pytest.approx(4 / 9), "n": 3},
        "Ties": {"score": pytest.approx(ties), "n": 4},
    }
    assert found["overall"] == pytest.approx((4 / 9 + ties) / 2)
    assert found["missing"] == ["Precise IF", "Math", "Safety", "Focus"]


def test_equal_right_answers_of_ties_count_by_the_sign_of_their_margin() -> None:
    """As in the published code, where tanh(margin / 0 - 1) is 1 or -1, and 0 / 0 counts as 0."""
    good = row(1, "Ties", [3], [1], "ref:0") + row(2, "Ties", [4, 4], [2], "tied:0")
    bad = row(3, "Ties", [3], [1], "ref:1") + row(4, "Ties", [4, 4], [5], "tied:1")
    none = row(5, "Ties", [1], [1], "ref:2") + row(6, "Ties", [4, 4], [2], "tied:2")
    score = measured("rewardbench2", good)["overall"]
    assert score == pytest.approx(0.3 + 0.3 + 0.2 + 0.2 + 0.01)
    found = measured("rewardbench2", good, bad, none)["overall"]
    assert found == pytest.approx(0.3 * 2 / 3 + 0.3 * 2 / 3 + 0.2 * 2 / 3 + 0.2 / 3 + 0.01 * (1 - 1 + 0) / 3)


def test_a_row_without_the_scores_of_all_its_answers_is_counted_apart() -> None:
    whole = row(1, "Math", [2], [1, 0, -1])
    found = measured("rewardbench2", whole, row(2, "Math", [9], [1, 0, -1])[:2], answer_too_long=1)
    assert found["sections"] == {"Math": {"score": 1.0, "n": 1}}
    assert (found["incomplete"], found["left_out"]) == (1, {"answer_too_long": 1})


def test_rm_bench_is_a_matrix_of_styles() -> None:
    found = measured(
        "rm_bench",
        row(1, "chat", [3, 2, 1], [2.5, 1.5, 0.5]),  # wins: 111, 011, 001
        row(2, "math", [0, 0, 0], [0, 0, 0]),
        row(3, "safety-refuse", [1, 1, 1], [0, 0, 0]),
        row(4, "safety-response", [0, 0, 0], [1, 1, 1]),
    )
    assert found["sections"] == {
        "chat": {"score": pytest.approx(2 / 3), "n": 1},
        "math": {"score": 0.0, "n": 1},
        "safety": {"score": 0.5, "n": 2},
        "hard": {"score": pytest.approx((1 + 0 + 0.5) / 3), "n": 4},
        "normal": {"score": pytest.approx((1 + 0 + 0.5) / 3), "n": 4},
        "easy": {"score": pytest.approx((0 + 0 + 0.5) / 3), "n": 4},
    }
    assert found["overall"] == pytest.approx((2 / 3 + 0 + 0.5) / 3)
    assert found["missing"] == ["code"]


def test_judgebench_counts_pairs_and_takes_a_tie_for_answer_b() -> None:
    found = measured(
        "judgebench",
        row(1, "mmlu-pro-math", [1], [0]),
        row(2, "mmlu-pro-law", [0], [1]),
        [pair(3, "livecodebench", 1, 1, place={"chosen": 1, "rejected": 0})],
        [pair(4, "livecodebench", 1, 1)],
        row(5, "livebench-math", [1], [0]),
    )
    assert found["sections"] == {
        "mmlu-pro": {"score": 0.5, "n": 2},
        "livebench-math": {"score": 1.0, "n": 1},
        "livecodebench": {"score": 0.5, "n": 2},
    }
    assert found["overall"] == 0.6


def test_rmb_asks_the_best_answer_to_beat_all_others() -> None:
    found = measured(
        "rmb",
        row(1, "Pairwise_set/Helpfulness/Chat", [1], [0]),
        row(2, "Pairwise_set/Helpfulness/Code/Debugging", [1], [1]),  # a tie is wrong
        row(3, "Pairwise_set/Harmlessness/S1", [2], [1]),
        row(4, "BoN_set/Helpfulness/Chat", [3], [1, 2, 2.5]),
        row(5, "BoN_set/Helpfulness/Chat", [3], [1, 4, 2]),
        row(6, "BoN_set/Helpfulness/Chat", [3], [1, 3]),
        row(7, "BoN_set/Harmlessness/multi", [0], [1, 2]),
    )
    scores = {name: section["score"] for name, section in found["sections"].items()}
    assert scores == {
        "Pairwise_set/Helpfulness": 0.5,
        "Pairwise_set/Harmlessness": 1.0,
        "BoN_set/Helpfulness": pytest.approx(1 / 3),
        "BoN_set/Harmlessness": 0.0,
    }
    assert found["overall"] == pytest.approx((0.5 + 1 + 1 / 3 + 0) / 4)


def test_rewardmath_ranks_the_right_solution_below_its_ties() -> None:
    wrong = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    found = measured(
        "rewardmath",
        ranking(1, [2, *wrong, 1], [1, *[0] * 9]),
        ranking(2, [*wrong, 2, 2], [*[0] * 9, 1]),  # shares the best score: rank 2
        ranking(3, [*wrong, 0.55, 3], [*[0] * 8, 1, 0]),  # 0.6, 0.7 and 3 are better: rank 4
    )
    assert found["sections"] == {
        "accuracy": {"score": pytest.approx(1 / 3), "n": 3},
        "with ties": {"score": pytest.approx(2 / 3), "n": 3},
        "MRR": {"score": pytest.approx((1 + 1 / 2 + 1 / 4) / 3), "n": 3},
    }
    assert found["overall"] == pytest.approx(1 / 3)


def test_m_rewardbench_weighs_each_language_as_rewardbench() -> None:
    found = measured(
        "m_rewardbench",
        row(1, "deu_Latn/alpacaeval-easy", [1], [0]),
        row(2, "deu_Latn/mt-bench-med", [0], [1]),
        row(3, "deu_Latn/donotanswer", [1], [0]),
        row(4, "fra_Latn/alpacaeval-easy", [1], [0]),
        row(5, "de/translation-hard", [1], [0]),
        row(6, "de/translation-hard", [1], [1]),
    )
    german = (100 / 140 + 1) / 2
    assert found["sections"] == {
        "deu_Latn": {"score": pytest.approx(german), "n": 3},
        "fra_Latn": {"score": 1.0, "n": 1},
        "Chat": {"score": pytest.approx((100 / 140 + 1) / 2), "n": 3},
        "Safety": {"score": 1.0, "n": 1},
        "translation": {"score": 0.5, "n": 2},
    }
    assert found["overall"] == pytest.approx((german + 1) / 2)


def graph(number: int, subset: str, scores: list[float], edges: list[tuple[int, int]]) -> list[Json]:
    """The pairs of a row with one list of answers and preferences between them."""
    return [
        pair(number, subset, scores[i], scores[j], place={"chosen": i, "rejected": j, "answers": len(scores)})
        for i, j in edges
    ]


def test_if_rewardbench_is_tau_b_over_the_preferences_that_a_graph_has() -> None:
    found = measured(
        "if_rewardbench",
        graph(1, "Single_Turn", [3, 2, 1], [(0, 1), (0, 2), (1, 2)]),  # tau 1
        graph(2, "Single_Turn", [3, 3, 1], [(1, 0), (2, 0), (1, 2)]),  # a tie, one wrong, one right
        graph(3, "Multi_Turn", [1, 1, 0], [(0, 1), (0, 2), (1, 2)]),  # a tie, two right
        graph(4, "System_Prompt", [0, 0, 0], [(0, 1), (1, 2)]),  # ties only
    )
    multi = 2 / math.sqrt(2 * 3)
    scores = {name: section["score"] for name, section in found["sections"].items()}
    assert scores == pytest.approx(
        {"Single_Turn": 0.5, "Multi_Turn": multi, "System_Prompt": 0.0, "accuracy": ((1 + 1 / 3) / 2 + 2 / 3 + 0) / 3}
    )
    assert found["overall"] == pytest.approx((0.5 + multi + 0) / 3)
    assert found["curve"] is None


def test_llmbar_gives_half_for_a_tie() -> None:
    found = measured(
        "llmbar",
        [pair(1, "Natural", 1, 0)],
        [pair(2, "Natural", 1, 1, place={"chosen": 1, "rejected": 0})],
        [pair(3, "GPTInst", 0, 1)],
        [pair(4, "Manual", 2, 1)],
    )
    scores = {name: section["score"] for name, section in found["sections"].items()}
    assert scores == {"Natural": 0.75, "GPTInst": 0.0, "Manual": 1.0, "Adversarial": 0.5}
    assert (found["overall"], found["missing"]) == (pytest.approx(1.75 / 3), ["Neighbor", "GPTOut"])


def test_helpsteer_ranks_the_answers_by_each_attribute() -> None:
    found = measured(
        "helpsteer",
        ranking(1, [1, 2], [4, 3], "helpfulness"),
        ranking(1, [1, 2], [1, 3], "verbosity"),
        ranking(2, [5, 5], [1, 0], "verbosity"),
        ranking(3, [1, 2, 3], [0, 2, 1], "verbosity"),
    )
    assert found["sections"] == {
        "helpfulness": {"score": -1.0, "n": 1},
        "verbosity": {"score": pytest.approx((1 + 0 + 1 / 3) / 3), "n": 3},
    }
    assert found["overall"] == pytest.approx((-1 + 4 / 9) / 2)


def test_ultrafeedback_has_tau_b_and_ndcg_with_shared_discounts() -> None:
    found = measured("ultrafeedback", ranking(1, [1, 3, 3, 2], [5, 3, 1, 3]), ranking(2, [9, 8, 7], [-1, -2, -3]))
    # By scores: the second and third share ranks 1 and 2, then the fourth, then the first.
    gain = (3 + 1) / 2 * (1 + 1 / math.log2(3)) + 3 / math.log2(4) + 5 / math.log2(5)
    ideal = 5 + 3 / math.log2(3) + 3 / math.log2(4) + 1 / math.log2(5)
    tau = scipy.stats.kendalltau([1, 3, 3, 2], [5, 3, 1, 3]).statistic
    assert found["sections"] == {
        "Kendall": {"score": pytest.approx((tau + 1) / 2), "n": 2},
        "nDCG": {"score": pytest.approx((gain / ideal + 1) / 2), "n": 2},
        "best": {"score": 0.5, "n": 2},
    }


def test_ppe_correctness_has_the_area_of_each_prompt_and_the_curve() -> None:
    found = measured("ppe_correctness", ranking(1, [4, 3, 2, 1], [0, 1, 1, 0]), ranking(2, [1, 1, 0, 0], [1, 0, 0, 0]))
    first, second = 2 / 4, (0.5 + 1 + 1) / 3  # of the pairs of a right and a wrong answer
    # The picked one of k is right, k = 1 to 4; the best possible pick is.
    reached = [(0.5 + 0.25) / 2, (3 / 6 + 2.5 / 6) / 2, (1 / 4 + 0.5) / 2, (0 + 0.5) / 2]
    possible = [(0.5 + 0.25) / 2, (5 / 6 + 3 / 6) / 2, (1 + 3 / 4) / 2, 1]
    scores = {name: section["score"] for name, section in found["sections"].items()}
    assert scores == pytest.approx(
        {
            "accuracy": (first + second) / 2,
            "maximum": max(reached),
            "end": reached[-1],
            "error": np.mean(np.array(possible) - reached),
        }
    )
    points = found["curve"]["points"]
    assert [point["n"] for point in points] == [1, 2, 4]
    assert [point["gold"] for point in points] == pytest.approx([reached[0], reached[1], reached[3]])
    assert [point["best"] for point in points] == pytest.approx([possible[0], possible[1], possible[3]])
    assert [point["kl"] for point in points] == pytest.approx([0, math.log(2) - 1 / 2, math.log(4) - 3 / 4])


def battles(strengths: dict[str, float], taste: dict[str, float], n: int, noise: float = 1.0) -> list[list[Json]]:
    """Votes between models by their strengths, and scores by another taste."""
    random = np.random.default_rng(7)
    rows = []
    for k in range(n):
        a, b = random.choice(sorted(strengths), 2, replace=False)
        better = random.random() < 1 / (1 + math.exp(strengths[b] - strengths[a]))
        scores = {model: taste[model] + noise * random.logistic() for model in (a, b)}
        won, lost = (a, b) if better else (b, a)
        place = {"chosen": int(not better), "rejected": int(better)}
        sources = {"chosen_source": str(won), "rejected_source": str(lost)}
        rows.append([pair(k, "English", scores[won], scores[lost], place=place, **sources)])
    return rows


def test_ppe_compares_the_rankings_of_models_by_votes_and_by_scores() -> None:
    strengths = {"a": 0.0, "b": 1.0, "c": 2.0, "d": 3.0}
    alike = measured("ppe_human", *battles(strengths, strengths, 2000))["sections"]
    for name in ("Spearman", "Kendall", "separability", "confidence agreement"):
        assert alike[name]["score"] == 1, name
    assert alike["row-wise Pearson"]["score"] > 0.98
    assert alike["Brier"]["score"] < 0.01
    swapped = measured("ppe_human", *battles(strengths, {"a": 1.0, "b": 0.0, "c": 2.0, "d": 3.0}, 2000))["sections"]
    assert swapped["Spearman"]["score"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert swapped["Kendall"]["score"] == pytest.approx(4 / 6)
    assert swapped["confidence agreement"]["score"] == pytest.approx(5 / 6)
    assert swapped["Brier"]["score"] == pytest.approx(1 / 6, abs=0.01)
    noise = measured("ppe_human", *battles(strengths, dict.fromkeys("abcd", 0.0), 100))["sections"]
    assert noise["separability"]["score"] < 0.5
    assert noise["Brier"]["score"] > 0.1


def test_ppe_ratings_are_those_of_bradley_and_terry_and_ties_count_half() -> None:
    votes = Battles(np.array([0, 0, 1, 1, 2, 0]), np.array([1, 1, 2, 2, 0, 2]), np.array([1, 0.5, 1, 0, 0, 1]))
    wins = win_counts(votes, 3)
    assert wins.tolist() == [[0, 1.5, 2], [0.5, 0, 1], [0, 1, 0]]

    def loss(found: Any) -> float:
        chances = found[votes.first] - found[votes.second]
        likelihood = votes.won * np.log1p(np.exp(-chances)) + (1 - votes.won) * np.log1p(np.exp(chances))
        return float(likelihood.sum() + 0.01 / 2 * (found**2).sum())

    expected = scipy.optimize.minimize(loss, np.zeros(3), tol=1e-12).x
    assert ratings(wins[None])[0] == pytest.approx(expected, abs=1e-5)
    always = ratings(win_counts(Battles(votes.first[:2], votes.second[:2], np.ones(2)), 2)[None])[0]
    assert np.isfinite(always).all()
    tied = [pair(k, "", 1, 0, confidence=0.5, chosen_source="a", rejected_source="b") for k in range(9)]
    found = measured("ppe_human", tied, [pair(9, "", 1, 0, chosen_source="b", rejected_source="a")])
    assert found["sections"]["accuracy"] == {"score": 1.0, "n": 1}


def test_a_list_without_gold_scores_or_of_two_has_no_curve() -> None:
    assert measured("ultrafeedback", ranking(1, [1, 2], [0, 1]))["curve"] is None
    assert measured("rewardbench2", row(1, "Math", [1], [0, 2, 3]))["curve"]["points"][-1]["gold"] == 0


@pytest.mark.parametrize("scoring", BENCHMARKS)
def test_every_benchmark_has_trivial_baselines_and_takes_no_rows(scoring: str) -> None:
    empty = measured(scoring)
    assert empty["overall"] is None
    assert set(empty["baselines"]) == {"longest", "shortest", "first"}
    json.dumps(empty, allow_nan=False)


def test_baselines_are_the_figures_of_other_scores() -> None:
    """The third answer is the longest and best, the first one the shortest."""
    found = measured("ultrafeedback", ranking(1, [3, 2, 1], [1, 2, 3]))
    overall = {name: baseline["overall"] for name, baseline in found["baselines"].items()}
    assert (found["overall"], overall) == (-1.0, {"longest": 1.0, "shortest": -1.0, "first": -1.0})
    lists = row(1, "Math", [2], [1, 0, -1])
    for one in lists:
        one["rejected_tokens"] += one["place"]["rejected"]
    found = measured("rewardbench2", lists)
    overall = {name: baseline["overall"] for name, baseline in found["baselines"].items()}
    assert overall == {"longest": 0.0, "shortest": 0.5, "first": None}  # the good ones stand first


def test_rows_of_another_benchmark_are_named() -> None:
    for scoring, benchmark in BENCHMARKS.items():
        if benchmark.sections:
            assert "is no subset of" in str(benchmark.shape.mismatch("cooking"))
            with pytest.raises(UserError, match=r"f:3: 'cooking' is no subset"):
                measured(scoring, row(3, "cooking", [1], [0]))
    assert "fields: {subset" in str(BENCHMARKS["rewardbench"].shape.mismatch(""))
    assert "fields: {item: id}" in str(BENCHMARKS["rewardbench2"].shape.mismatch("Ties", "7"))
    assert BENCHMARKS["rewardbench2"].shape.mismatch("Ties", "tied:7") is None
    assert BENCHMARKS["rewardbench2"].shape.mismatch("factuality") is None
    assert "it has 4 answers" in str(BENCHMARKS["rm_bench"].shape.mismatch("chat", answers=4))
    assert BENCHMARKS["m_rewardbench"].shape.mismatch("deu_Latn/mt-bench-med") is None
    assert "is no subset of" in str(BENCHMARKS["m_rewardbench"].shape.mismatch("mt-bench-med"))
