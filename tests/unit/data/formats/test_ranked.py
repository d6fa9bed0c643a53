from collections import Counter
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardline.data.conversation import Reject
from rewardline.data.formats.drafts import PreferencePair
from rewardline.data.formats.registry import converter
from rewardline.data.formats.settings import FormatSettings

from support.formats import detect, one, reason, texts
from support.shapes import Row, assistant, user

# Preferences


@pytest.mark.parametrize(
    ("row", "expected", "margin"),
    [
        ({"answer_a": "A", "answer_b": "B", "preference": "b"}, ("B", "A"), None),
        ({"answer_a": "A", "answer_b": "B", "preference": "answer_a"}, ("A", "B"), None),
        ({"response_a": "A", "response_b": "B", "winner": "model_b"}, ("B", "A"), None),
        ({"response_0": "A", "response_1": "B", "better_response_id": 1, "safer_response_id": 0}, ("B", "A"), None),
        ({"human_ref_A": "A", "human_ref_B": "B", "labels": 1, "score_A": 9, "score_B": 2}, ("A", "B"), 7.0),
        ({"human_ref_A": "A", "human_ref_B": "B", "labels": 0, "score_A": 1, "score_B": 2}, ("B", "A"), 1.0),
        ({"answer_0": "A", "answer_1": "B", "score_0": -0.5, "score_1": 0.5}, ("B", "A"), 1.0),
        ({"response1": "A", "response2": "B", "overall_preference": -3}, ("A", "B"), 3.0),
    ],
)
def test_preference(row: Row, expected: tuple[str, str], margin: float | None) -> None:
    row = {"prompt": "Q"} | row
    assert detect(row) == "preference"
    pair = one("preference", row)
    assert (pair.chosen, pair.rejected) == expected
    assert pair.margin == margin


def test_preference_between_conversations() -> None:
    row = {
        "conversation_a": [user("Q"), assistant("A")],
        "conversation_b": [user("Q"), assistant("B")],
        "winner": "model_b",
        "turn": 1,
    }
    assert detect(row) == "preference"
    assert one("preference", row) == PreferencePair((user("Q"),), "B", "A")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"preference": "tie"}, "tie"),
        ({"preference": "tie (bothbad)"}, "tie"),
        ({"preference": "perhaps"}, "bad_preference"),
        ({"preference": 1}, "bad_preference"),  # the first or the second? only the user knows
        ({"preference": True}, "bad_preference"),
        ({"preference": ["a", "b"]}, "bad_preference"),
        ({"preference": None}, "no_preference"),
        ({"preference": None, "score_a": 1, "score_b": 1.0}, "tie"),
        ({"preference": None, "score_a": 1}, "no_preference"),
        ({"preference": None, "score_a": 1, "score_b": "x"}, "bad_number"),
        ({"score_a": 1, "score_b": 2}, "negative_margin"),
        ({"answer_b": "A"}, "identical"),
        ({"output_1": "A", "output_2": "B"}, "ambiguous_field"),
        ({"winner": "b"}, "ambiguous_field"),
    ],
)
def test_preference_rejects(change: Row, expected: str) -> None:
    row = {"prompt": "Q", "answer_a": "A", "answer_b": "B", "preference": "a"}
    assert reason("preference", row | change) == expected


def test_what_says_outright_who_won_comes_before_general_words() -> None:
    row = {"prompt": "Q", "answer_a": "A", "answer_b": "B", "winner": "b", "label": "maths", "votes": 12}
    assert detect(row) == "preference"
    assert one("preference", row).chosen == "B"
    assert one("ranked", {"prompt": "Q", "answers": ["A", "B"], "rating": 5}).chosen == "A"


def test_a_label_that_is_the_name_of_an_answers_key_is_that_answer() -> None:
    row = {"prompt": "Q", "a": "A", "b": "B", "label": "a"}
    assert one("preference", row, {"answer_a": "a", "answer_b": "b"}).chosen == "A"
    assert one("preference", row, {"answer_a": "b", "answer_b": "a"}).chosen == "A"


def test_preference_values() -> None:
    row = {"prompt": "Q", "answer_a": "A", "answer_b": "B"}
    coded = {"first": [1, "1st"], "second": 2, "tie": 0}
    for value, expected in ((1, "A"), ("1", "A"), (1.0, "A"), ("1ST", "A"), (2, "B")):
        assert one("preference", row | {"preference": value}, values=coded).chosen == expected
    assert reason("preference", row | {"preference": 0}, values=coded) == "tie"
    assert reason("preference", row | {"preference": True}, values=coded) == "bad_preference"
    assert reason("preference", row | {"preference": "a"}, values=coded) == "bad_preference"
    pair = one("preference", row | {"preference": -2}, values={"signed": "first"})
    assert (pair.chosen, pair.margin) == ("B", 2.0)
    assert reason("preference", row | {"preference": 0}, values={"signed": "first"}) == "tie"


def test_preferences_between_more_than_two() -> None:
    row = {"prompt": "Q", "answers": ["A", "B", "C"], "preference": ["a", "tie", "b"]}  # 1:2, 1:3, 2:3
    pairs = converter(FormatSettings(format="preference", fields={"answers": "answers"}))(row)
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("A", "B"), ("C", "B")]
    assert pairs.skipped == {"tie": 1}
    assert reason("preference", row | {"preference": ["a"]}, {"answers": "answers"}) == "bad_preference"


def test_a_tie_that_is_kept_is_a_pair_of_even_odds() -> None:
    row = {"prompt": "Q", "answer_a": "B", "answer_b": "A", "preference": "tie"}
    assert one("preference", row, ties="keep") == PreferencePair((user("Q"),), "A", "B", confidence=0.5)  # type: ignore[arg-type]
    swapped = row | {"answer_a": "A", "answer_b": "B"}
    assert one("preference", swapped, ties="keep") == one("preference", row, ties="keep")
    scored = row | {"preference": None, "score_a": 2, "score_b": 2}
    assert one("preference", scored, ties="keep").margin == 0
    assert reason("preference", scored, ties="keep", min_margin=0.5) == "small_margin"
    pairs = converter(FormatSettings(format="ranked", ties="keep"))(
        {"prompt": "Q", "answers": ["B", "A", "C"], "scores": [2, 2, 1]}
    )
    assert [(pair.chosen, pair.rejected, pair.confidence, pair.margin) for pair in pairs] == [
        ("A", "B", 0.5, 0.0),
        ("B", "C", 1.0, 1.0),
        ("A", "C", 1.0, 1.0),
    ]


def test_a_share_of_votes_decides_between_two_answers() -> None:
    row = {"prompt": "Q", "answer_a": "A", "answer_b": "B", "share": 0.75}
    fields = {"answer_a": "answer_a", "answer_b": "answer_b", "confidence": "share"}
    assert detect(row, fields=fields) == "preference"
    for share, chosen, confidence in ((0.75, "A", 0.75), ("0.25", "B", 0.75), (1, "A", 1.0), (0, "B", 1.0)):
        pair = one("preference", row | {"share": share}, fields)
        assert (pair.chosen, pair.confidence) == (chosen, confidence)
    assert reason("preference", row | {"share": 0.5}, fields) == "tie"
    assert reason("preference", row | {"share": 1.5}, fields) == "bad_number"
    labelled = row | {"preference": "b"}
    assert one("preference", labelled | {"share": 0.9}, fields).chosen == "B"  # the share is that of the label's winner
    assert reason("preference", labelled | {"share": 0.25}, fields) == "contradiction"


def test_odds_are_a_confidence() -> None:
    row = {"history": "Q", "human_ref_A": "A", "human_ref_B": "B", "labels": 0, "score_A": 2, "score_B": 6}
    fields = {"odds": "score_ratio", "margin": "score_ratio"}
    pair = one("preference", row | {"score_ratio": 3.0}, fields)
    assert (pair.chosen, pair.confidence, pair.margin) == ("B", 0.75, 3.0)
    assert reason("preference", row | {"score_ratio": 1.5}, fields, min_margin=2) == "small_margin"
    assert reason("preference", row | {"score_ratio": -1}, fields) == "bad_number"


# Rankings


def test_ranked_pairings() -> None:
    row = {"prompt": "Q", "answers": ["A", "B", "C"]}
    assert detect(row) == ["ranked"]  # possible, but only the user knows whether they are in order
    assert texts("ranked", row) == [("A", "B"), ("A", "C"), ("B", "C")]
    assert texts("ranked", row, pairing="adjacent") == [("A", "B"), ("B", "C")]
    assert texts("ranked", row, pairing="best_worst") == [("A", "C")]
    pairs = converter(FormatSettings(format="ranked", max_pairs=2))(row)
    assert len(pairs) == 2 and pairs.skipped == {"max_pairs": 1}


def test_ranked_by_scores() -> None:
    row = {"question": "Q", "responses": ["A", "B", "C", "D"], "scores": [1, 5, 1, 3.5]}
    assert detect(row) == "ranked"
    pairs = converter(FormatSettings(format="ranked"))(row)
    assert {(pair.chosen, pair.rejected): pair.margin for pair in pairs} == {
        ("B", "D"): 1.5,
        ("B", "A"): 4.0,
        ("B", "C"): 4.0,
        ("D", "A"): 2.5,
        ("D", "C"): 2.5,
    }
    assert pairs.skipped == {"tie": 1}
    assert texts("ranked", row, min_margin=4) == [("B", "A"), ("B", "C")]
    assert texts("ranked", row, pairing="adjacent") == [("B", "D"), ("D", "A"), ("D", "C")]
    assert texts("ranked", row, pairing="best_worst") == [("B", "C")]
    assert reason("ranked", row | {"scores": [2, 2, 2, 2]}) == "tie"
    assert reason("ranked", row | {"scores": [2, 2, 2, 2]}, pairing="best_worst") == "tie"
    assert reason("ranked", row | {"scores": [1, 2]}) == "bad_number"
    pairs = converter(FormatSettings(format="ranked"))(row | {"scores": [1, 2, None, 3]})
    assert len(pairs) == 3 and pairs.skipped == {"bad_number": 1}  # it costs only its own pairs
    pairs = converter(FormatSettings(format="ranked"))(
        row | {"responses": ["A", None, "C", ""], "scores": [True, True, False, True]}
    )
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("A", "C")]
    assert pairs.skipped == {"not_text": 1, "empty_answer": 1}
    assert texts("ranked", {"prompt": "Q", "answers": {"A": 0, "B": 1}}) == [("B", "A")]


def test_ranked_by_ranks() -> None:
    row = {
        "prompt": "Q",
        "answers": [{"answer": "A", "rank": 2}, {"answer": "B", "rank": 1}, {"answer": "C", "rank": 2}],
    }
    assert detect(row) == "ranked"
    assert texts("ranked", row) == [("B", "A"), ("B", "C")]
    assert [pair.margin for pair in converter(FormatSettings(format="ranked"))(row)] == [None, None]
    assert texts("ranked", {"prompt": "Q", "answers": ["A", "B"], "ranks": [2, 1]}) == [("B", "A")]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["A"], "one_answer"),
        ([], "one_answer"),
        ("A", "not_list"),
        (None, "not_list"),
        (["A", 5], "not_text"),
        (["A", ""], "empty_answer"),
        (["A", " A"], "identical"),
        (["A", "B", "A"], "contradiction"),
        ([{"text": "A"}, {"text": "B"}], "no_order"),
    ],
)
def test_ranked_rejects(answers: Any, expected: str) -> None:
    row = {"prompt": "Q", "answers": answers}
    if expected == "contradiction":
        assert sorted(converter(FormatSettings(format="ranked"))(row | {"answers": [*answers, "C"]}).skipped) == [
            "contradiction",
            "duplicate",
            "identical",
        ]
    else:
        assert reason("ranked", row) == expected


# Graphs, and where the answers of a benchmark's pairs are


def test_a_graph_gives_the_pairs_that_it_states() -> None:
    answers = [{"response": text, "response_id": n} for text, n in (("A", 7), ("B", 0), ("C", 1))]
    edges = [{"chosen": {"response_id": 1}, "rejected": {"response_id": 7}}, {"chosen": {"response_id": 7, "score": 1}}]
    edges[1]["rejected"] = {"response_id": 0}
    row = {"prompt": "Q", "responses": answers, "preference_graph": edges}
    assert texts("graph", row) == [("C", "A"), ("A", "B")]
    numbered = {"prompt": "Q", "answers": ["A", "B", "C"], "preferences": [{"chosen": 2, "rejected": 0}]}
    assert texts("graph", numbered) == [("C", "A")]
    for edge in ({"chosen": 3, "rejected": 0}, {"chosen": True, "rejected": 0}, {"chosen": "C"}, {"chosen": -1}):
        assert reason("graph", numbered | {"preferences": [edge]}) == "bad_preference"
    assert reason("graph", row | {"preference_graph": [{"chosen": {"response_id": 2}}]}) == "bad_preference"
    assert reason("graph", row | {"preference_graph": ["A>B"]}) == "bad_preference"
    assert reason("graph", numbered | {"preferences": []}) == "no_pair"
    both = numbered | {"preferences": [{"chosen": 2, "rejected": 0}, {"chosen": 0, "rejected": 2}]}
    assert reason("graph", both) == "contradiction"


@given(st.lists(st.integers(0, 3), min_size=2, max_size=6))
def test_the_pairs_of_a_benchmark_say_where_their_answers_are(scores: list[int]) -> None:
    """Also if texts repeat: what a pair says of each answer is what the row has at its place."""
    row: Row = {"prompt": "Q", "answers": [f"{score % 2} {n}" for n, score in enumerate(scores)], "scores": scores}
    try:
        pairs = converter(FormatSettings(format="ranked"), positions=True)(row)
    except Reject:
        assert len(set(scores)) == 1
        return
    places = [pair.place for pair in pairs if pair.place]
    assert len(places) == len(pairs)
    for pair, place in zip(pairs, places, strict=True):
        for side in ("chosen", "rejected"):
            index = place[side]  # type: ignore[literal-required]
            assert getattr(pair, side) == row["answers"][index]
            assert place[f"{side}_gold"] == scores[index]  # type: ignore[literal-required]
        assert place["answers"] == len(scores)
    assert {(place["chosen"], place["rejected"]) for place in places} == {
        (i, j) for i, j in product(range(len(scores)), repeat=2) if scores[i] > scores[j]
    }


# Good and bad


def test_good_and_bad() -> None:
    row = {"question": "Q", "correct_answers": ["A", "B"], "incorrect_answers": ["C", "D", "E"]}
    assert detect(row) == "good_bad"
    assert sorted(texts("good_bad", row)) == sorted(product("AB", "CDE"))
    pairs = converter(FormatSettings(format="good_bad", max_pairs=3))(row)
    assert Counter(pair.rejected for pair in pairs) == {"C": 1, "D": 1, "E": 1}
    assert pairs.skipped == {"max_pairs": 3}
    assert texts("good_bad", {"prompt": "Q", "good": "A", "bad": [{"text": "B"}]}) == [("A", "B")]
    assert texts("good_bad", {"prompt": "Q", "good": "A; B", "bad": "C;"}, separator=";") == [("A", "C"), ("B", "C")]
    assert reason("good_bad", row | {"correct_answers": []}) == "no_pair"


@given(good=st.sets(st.integers(0, 99), max_size=9), bad=st.sets(st.integers(100, 199), max_size=9))
def test_good_and_bad_give_each_pair_once(good: set[int], bad: set[int]) -> None:
    row = {"prompt": "Q", "good": [str(n) for n in good], "bad": [str(n) for n in bad]}
    expected = sorted(product(row["good"], row["bad"]))
    assert (sorted(texts("good_bad", row)) if expected else []) == expected
