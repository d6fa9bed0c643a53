"""Published benchmarks' figures, computed by hand."""

from math import tanh
from typing import Any, cast

import pytest

from rewardline.core.errors import UserError
from rewardline.data.benchmarks import SECTIONS, mismatch
from rewardline.evaluation.published import PublishedPair, figures

Json = dict[str, Any]


def row(number: int, subset: str, chosen: list[float], rejected: list[float], item: str = "") -> list[Json]:
    """All pairs of a row of a benchmark."""
    answers = len(chosen) + len(rejected)
    return [
        {
            "subset": subset,
            "file": "f",
            "row": number,
            "chosen_score": good,
            "rejected_score": bad,
            "place": {"item": item, "chosen": n, "rejected": m, "answers": answers},
        }
        for n, good in enumerate(chosen)
        for m, bad in enumerate(rejected)
    ]


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
        [{**row(3, "livecodebench", [1], [1])[0], "place": {"chosen": 1, "rejected": 0}}],
        [{**row(4, "livecodebench", [1], [1])[0], "place": {"chosen": 0, "rejected": 1}}],
        row(5, "livebench-math", [1], [0]),
    )
    assert found["sections"] == {
        "mmlu-pro": {"score": 0.5, "n": 2},
        "livebench-math": {"score": 1.0, "n": 1},
        "livecodebench": {"score": 0.5, "n": 2},
    }
    assert found["overall"] == 0.6


def test_rows_of_another_benchmark_are_named() -> None:
    for arithmetic in SECTIONS:
        assert "is no subset of" in str(mismatch(arithmetic, "cooking"))
        with pytest.raises(UserError, match=r"f:3: 'cooking' is no subset"):
            measured(arithmetic, row(3, "cooking", [1], [0]))
    assert "fields: {subset" in str(mismatch("rewardbench", ""))
    assert "fields: {item: id}" in str(mismatch("rewardbench2", "Ties", "7"))
    assert mismatch("rewardbench2", "Ties", "tied:7") is None
    assert "it has 4 answers" in str(mismatch("rm_bench", "chat", answers=4))
