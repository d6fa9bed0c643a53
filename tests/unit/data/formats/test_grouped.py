import random
from collections import defaultdict
from itertools import permutations
from statistics import NormalDist
from typing import Any

import pytest

from rewardline.core.errors import UserError
from rewardline.data.conversation import Reject
from rewardline.data.formats.drafts import PreferencePair, RowPairs
from rewardline.data.formats.grouped import GroupReject
from rewardline.data.formats.registry import GROUPED, check, converter, grouping
from rewardline.data.formats.settings import GROUPED_FORMATS, FormatSettings

from support.formats import detect, read
from support.shapes import Row, assistant, user


def convert(shape: str, rows: list[Row], fields: dict[str, str] | None = None, **options: Any) -> RowPairs:
    """The pairs of one group; the same whatever the order of its rows."""
    group = grouping(FormatSettings(format=shape, fields=fields or {}, **options))
    assert len({group.key(row) for row in rows}) == 1
    result = group.convert(rows)
    for order in list(permutations(range(len(rows))))[:24]:
        again = group.convert([rows[index] for index in order])
        assert list(again) == list(result) and again.skipped == result.skipped
        assert {order[index]: reject.reason for index, reject in again.unused.items()} == {
            index: reject.reason for index, reject in result.unused.items()
        }
    assert len(result.rows) == len(result)
    assert set(result.unused) | {row for rows in result.rows for row in rows} == set(range(len(rows)))
    return result


def texts(shape: str, rows: list[Row], fields: dict[str, str] | None = None, **options: Any) -> list[tuple[str, str]]:
    return [(pair.chosen, pair.rejected) for pair in convert(shape, rows, fields, **options)]


def reasons(shape: str, rows: list[Row], fields: dict[str, str] | None = None, **options: Any) -> dict[int, str]:
    """Why each row of a group that gives nothing gives nothing."""
    with pytest.raises(GroupReject) as caught:
        grouping(FormatSettings(format=shape, fields=fields or {}, **options)).convert(rows)
    assert set(caught.value.unused) == set(range(len(rows)))
    return {index: reject.reason for index, reject in sorted(caught.value.unused.items())}


def labelled(*answers: tuple[str, Any], key: str = "label") -> list[Row]:
    return [{"prompt": "Q", "completion": text, key: label} for text, label in answers]


def raters(**answers: list[float]) -> list[tuple[int, float, str]]:
    """The number of a rater, the rating and the answer."""
    return [(n, rating, text) for text, ratings in answers.items() for n, rating in enumerate(ratings)]


# Labelled answers


@pytest.mark.parametrize(
    ("good", "bad"),
    [(True, False), (1, -1), (1.0, 0), ("+1", "-1"), ("true", "False"), ("👍", "👎"), ("thumbs_up", "thumbs_down")],
)
def test_every_good_answer_is_better_than_every_bad_one(good: Any, bad: Any) -> None:
    rows = labelled(("A", good), ("B", bad), ("C", good), ("D", bad))
    pairs = convert("labelled", rows)
    assert {(pair.chosen, pair.rejected) for pair in pairs} == {("A", "B"), ("A", "D"), ("C", "B"), ("C", "D")}
    assert all(pair.margin is None and pair.confidence == 1 for pair in pairs)
    assert not pairs.unused and not pairs.skipped
    capped = convert("labelled", rows, max_pairs=2)
    assert {text for pair in capped for text in (pair.chosen, pair.rejected)} == set("ABCD")
    assert capped.skipped == {"max_pairs": 2}


def test_labelled_conversations() -> None:
    start = [user("Hi"), assistant("Hello!"), user("A joke?")]
    rows: list[Row] = [
        {"messages": [*start, assistant("Knock.")], "label": True},
        {"messages": [*start, assistant("No.")], "label": False},
    ]
    assert convert("labelled", rows) == [PreferencePair(tuple(start), "Knock.", "No.")]  # type: ignore[arg-type]
    assert convert("labelled", [row | {"output": "something else"} for row in rows]) == convert("labelled", rows)
    tagged = [{"conversations": row["messages"], "kto_tag": row["label"]} for row in rows]
    assert convert("labelled", tagged) == convert("labelled", rows)
    listed = [{"prompt": start, "completion": row["messages"][3:], "label": row["label"]} for row in rows]
    assert convert("labelled", listed) == convert("labelled", rows)
    assert all(detect(row) == "labelled" for row in (*rows, *tagged, *listed))


def test_a_prompt_with_one_side_gives_nothing() -> None:
    assert reasons("labelled", labelled(("A", True))) == {0: "one_sided"}
    assert reasons("labelled", labelled(("A", False), ("B", False))) == {0: "one_sided", 1: "one_sided"}
    assert reasons("labelled", labelled(("A", True), ("B", "perhaps"))) == {0: "one_sided", 1: "bad_label"}
    assert reasons("labelled", labelled(("A", 3), ("B", 3), key="score")) == {0: "tie", 1: "tie"}


def test_an_answer_with_several_labels_has_their_share() -> None:
    pairs = convert("labelled", labelled(("A", True), ("A", False), ("B", True), ("C", False), ("B", True)))
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("B", "A"), ("B", "C"), ("A", "C")]
    assert [pair.confidence == 1 for pair in pairs] == [False, True, False]
    assert all(pair.margin is None and pair.confidence > 0.5 for pair in pairs) and not pairs.unused
    assert reasons("labelled", labelled(("A", True), ("A", False))) == dict.fromkeys(range(2), "one_sided")


def test_scores_of_single_answers() -> None:
    rows = labelled(("A", 1), ("B", 4.5), ("C", 4.5), ("D", "3"), key="score")
    pairs = convert("labelled", rows)
    assert {(pair.chosen, pair.rejected): pair.margin for pair in pairs} == {
        ("B", "D"): 1.5,
        ("C", "D"): 1.5,
        ("B", "A"): 3.5,
        ("C", "A"): 3.5,
        ("D", "A"): 2.0,
    }
    assert pairs.skipped == {"tie": 1}
    assert texts("labelled", rows, pairing="best_worst") == [("B", "A")]
    assert texts("labelled", rows, min_margin=3) == [("B", "A"), ("C", "A")]
    kept = convert("labelled", rows, ties="keep", pairing="adjacent")
    assert [(pair.chosen, pair.rejected, pair.confidence) for pair in kept if pair.confidence < 1] == [("B", "C", 0.5)]
    assert convert("labelled", labelled(("A", 1), ("B", 4)), {"score": "label"})[0].margin == 3


def test_attributes_make_a_score() -> None:
    rows = [
        {"prompt": "Q", "response": "A", "helpfulness": 4, "verbosity": 4},
        {"prompt": "Q", "response": "B", "helpfulness": 3, "verbosity": 1},
    ]
    (pair,) = convert("labelled", rows, attributes={"helpfulness": 1, "verbosity": -0.5})
    assert (pair.chosen, pair.margin) == ("B", 0.5)
    row = {
        "prompt": "Q",
        "answers": [{"text": "A", "a": {"x": 1, "y": 5}}, {"text": "B", "a": {"x": 3, "y": 1}}],
    }
    (pair,) = converter(FormatSettings(format="ranked", attributes={"a.x": 1, "a.y": 0.25}))(row)
    assert (pair.chosen, pair.margin) == ("B", 1.0)
    with pytest.raises(Reject, match="missing_field"):
        converter(FormatSettings(format="ranked", attributes={"a.z": 1}))(row)


def test_the_mean_of_several_raters_decides_and_their_spread_is_the_confidence() -> None:
    rows = [{"prompt": "Q", "story": text, "score": n, "rater": r} for r, n, text in raters(A=[5, 4, 5], B=[2, 3, 2])]
    (pair,) = convert("labelled", rows, {"answer": "story"})
    assert pair.chosen == "A" and pair.margin == pytest.approx(7 / 3) and 0.999 < pair.confidence < 1
    listed = [{"prompt": "Q", "response": text, "ratings": ns} for text, ns in (("A", [5, None, 1]), ("B", [2, 3]))]
    (pair,) = convert("labelled", listed, {"score": "ratings"})
    # Means 3 and 2.5; pooled variance (8 + 0.5) / 2, so a standard error of sqrt(4.25).
    assert pair.chosen == "A" and pair.confidence == pytest.approx(NormalDist().cdf(0.5 / 4.25**0.5))
    for scores in ([[5, 1], [2, 3]], [[1, 5], [3, 2]]):
        (pair,) = converter(FormatSettings(format="ranked"))({"prompt": "Q", "answers": ["A", "B"], "scores": scores})
        assert pair.confidence == pytest.approx(NormalDist().cdf(0.5 / 4.25**0.5))
    row = {"prompt": "Q", "answer_a": "A", "answer_b": "B", "score_a": [2, 3], "score_b": [5, 1]}
    (pair,) = converter(FormatSettings(format="preference"))(row)
    assert pair.chosen == "B" and pair.confidence == pytest.approx(NormalDist().cdf(0.5 / 4.25**0.5))
    agreed = [{"prompt": "Q", "answer": text, "score": n} for _, n, text in raters(A=[3, 3], B=[1, 1])]
    assert [pair.confidence for pair in convert("labelled", agreed)] == [1.0]
    tied = [{"prompt": "Q", "answer": text, "score": n} for _, n, text in raters(A=[0.1, 0.2, 0.3], B=[0.2, 0.2, 0.2])]
    assert reasons("labelled", tied) == dict.fromkeys(range(6), "tie")


@pytest.mark.parametrize("weights", [{"a": 0.1, "b": 0.2, "c": 0.3}, {"a": 0.0333, "b": 0.0666, "c": 0.0999}])
def test_equal_weighted_sums_are_ties(weights: dict[str, float]) -> None:
    three, one = {"a": 3, "b": 0, "c": 0}, {"a": 0, "b": 0, "c": 1}
    rows = [{"prompt": "Q", "response": "A"} | three, {"prompt": "Q", "response": "B"} | one]
    assert reasons("labelled", rows, attributes=weights) == dict.fromkeys(range(2), "tie")
    row = {"prompt": "Q", "answers": [{"text": "A", "a": 1, "b": 1, "c": 0}, {"text": "B"} | one]}
    with pytest.raises(Reject, match="tie"):
        converter(FormatSettings(format="ranked", attributes=weights))(row)


def test_scores_that_differ_in_their_last_bits_are_ties() -> None:
    """As where somebody else computed means or sums."""
    one, two = 0.1 + 0.2, 0.3
    assert one != two
    rows = [{"prompt": "Q", "response": text, "score": score} for text, score in (("A", one), ("B", two))]
    assert reasons("labelled", rows, {"score": "score"}) == dict.fromkeys(range(2), "tie")
    apart = {"prompt": "Q", "answer_a": "A", "answer_b": "B", "score_a": one, "score_b": two}
    listed = {"prompt": "Q", "answers": ["A", "B"], "scores": [one, two]}
    for name, row in (("preference", apart), ("ranked", listed)):
        with pytest.raises(Reject, match="tie"):
            converter(FormatSettings(format=name))(row)
    (pair,) = converter(FormatSettings(format="preference", min_margin=0.1))(apart | {"score_b": 0.2})
    assert pair.margin == 0.1


@pytest.mark.parametrize(
    ("columns", "settings"),
    [
        ({"score_a": sum([0.1] * 100), "score_b": 10}, {}),
        ({"score_a": -0.1 - 0.2, "score_b": -0.3}, {}),
        ({"strength": 0.3 - (0.1 + 0.2)}, {"fields": {"strength": "strength"}}),
        ({"share": 0.5 + 1e-15}, {"format": "preference", "fields": {"confidence": "share"}}),
        ({"ratio": 1 + 1e-15}, {"format": "preference", "fields": {"odds": "ratio"}}),
    ],
)
def test_what_differs_by_rounding_errors_is_a_tie(columns: Row, settings: dict[str, Any]) -> None:
    row = {"prompt": "Say it.", "answer_a": "It is.", "answer_b": "Yes.", **columns}
    (pair,) = read([row], ties="keep", **settings)
    assert pair.confidence == 0.5
    for large in (1_700_000_000_001, 0.1234567891):  # digits that were meant
        scores = {"score_a": large, "score_b": large - 1 if large > 1 else 0.1234567892}
        assert read([{"prompt": "Say it.", "answer_a": "It is.", "answer_b": "Yes.", **scores}])[0].confidence == 1


def test_a_margin_that_is_a_rounding_error_is_none() -> None:
    row = {"prompt": "Say it.", "chosen": "It is.", "rejected": "Yes.", "margin": 0.3 - (0.1 + 0.2)}
    assert [pair.margin for pair in read([row])] == [0]
    scored = {**row, "margin": None, "high": 0.1 + 0.2, "low": 0.3}
    assert [pair.margin for pair in read([scored], fields={"chosen_score": "high", "rejected_score": "low"})] == [0]


def test_equal_sums_of_weighted_votes_are_a_tie() -> None:
    rows = [
        {"prompt": "Q", "chosen": a, "rejected": b, "w": w} for a, b, w in [*[("A", "B", 0.1)] * 3, ("B", "A", 0.3)]
    ]
    assert reasons("votes", rows, {"weight": "w"}) == dict.fromkeys(range(4), "tie")


def test_label_codes() -> None:
    rows = labelled(("A", "safe"), ("B", "unsafe"), ("C", "harmful"))
    assert texts("labelled", rows, values={"good": "safe", "bad": ["unsafe", "harmful"]}) == [("A", "B"), ("A", "C")]
    assert reasons("labelled", rows) == dict.fromkeys(range(3), "bad_label")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "Q", "completion": "A"}, "missing_field"),
        ({"prompt": "Q", "completion": "", "label": True}, "empty_answer"),
        ({"prompt": "", "completion": "A", "label": True}, "empty_prompt"),
        ({"prompt": "Q", "completion": 5, "label": True}, "not_text"),
        ({"prompt": "Q", "completion": "A", "label": None}, "bad_label"),
        ({"messages": [user("Q")], "label": True}, "no_answer"),
        ({"messages": [user("Q"), user("R")], "label": True}, "no_answer"),
        ({"messages": "Q", "label": True}, "not_messages"),
        ([], "not_object"),
    ],
)
def test_a_row_that_cannot_be_used_has_no_group(row: Any, expected: str) -> None:
    with pytest.raises(Reject) as caught:
        grouping(FormatSettings(format="labelled")).key(row)
    assert caught.value.reason == expected


# Votes


def votes(*winners: str) -> list[Row]:
    return [{"question": "Q", "answer_a": "A", "answer_b": "B", "winner": winner} for winner in winners]


def test_votes_give_a_share() -> None:
    (pair,) = pairs = convert("votes", votes("a", "b", "a", "a"))
    assert pair == PreferencePair((user("Q"),), "A", "B", 0.5, confidence=0.75)  # type: ignore[arg-type]
    assert pairs.rows == [(0, 1, 2, 3)] and not pairs.unused
    swapped = {"question": "Q", "answer_a": "B", "answer_b": "A", "winner": "a"}
    (pair,) = convert("votes", [*votes("a", "b"), swapped])
    assert pair.chosen == "B" and pair.confidence == pytest.approx(2 / 3)
    (pair,) = convert("votes", votes("b", "tie"))  # a tie is half a vote for each
    assert (pair.chosen, pair.confidence) == ("B", 0.75)
    assert reasons("votes", votes("a", "b")) == {0: "tie", 1: "tie"}
    (pair,) = convert("votes", votes("a", "b"), ties="keep")
    assert (pair.chosen, pair.confidence, pair.margin) == ("A", 0.5, 0.0)
    assert reasons("votes", votes("a", "a", "b"), min_margin=0.5) == dict.fromkeys(range(3), "small_margin")


def test_a_list_of_votes_in_a_row() -> None:
    row = {"question": "Q", "response_1": "A", "response_2": "B", "votes": ["response_2", "tie", "response_2"]}
    assert detect(row) == "votes"
    (pair,) = convert("votes", [row])
    assert pair.chosen == "B" and pair.confidence == pytest.approx(2.5 / 3)


def test_votes_by_chosen_and_rejected() -> None:
    rows = [{"prompt": "Q", "chosen": a, "rejected": b, "w": w} for a, b, w in [("A", "B", 1), ("B", "A", 3)]]
    (pair,) = convert("votes", rows, {"weight": "w"})
    assert (pair.chosen, pair.confidence) == ("B", 0.75)


# Trees


def message(name: str, parent: str | None, text: str, rank: float | None = None, **more: Any) -> Row:
    depth = name.count(".")
    role = "assistant" if depth % 2 else "prompter"
    return {
        "message_id": name,
        "parent_id": parent,
        "message_tree_id": "r",
        "role": role,
        "text": text,
        "rank": rank,
        "deleted": False,
        "review_result": None if parent is None else True,
    } | more


TREE = [
    message("r", None, "Q"),
    message("r.1", "r", "A", 1),
    message("r.2", "r", "B", 0),
    message("r.1.1", "r.1", "Why?"),
    message("r.1.1.1", "r.1.1", "C", 0),
    message("r.1.1.2", "r.1.1", "D", 1),
    message("r.2.1", "r.2", "Thanks."),
    message("r.2.1.1", "r.2.1", "E"),
]


def nested(rows: list[Row]) -> Row:
    nodes = {row["message_id"]: row | {"replies": []} for row in rows}
    for row in rows[1:]:
        nodes[row["parent_id"]]["replies"].append(nodes[row["message_id"]])
    return {"message_tree_id": "r", "tree_state": "ready_for_export", "prompt": nodes["r"]}


EXPECTED = {
    (("Q",), "B", "A"),
    (("Q", "A", "Why?"), "C", "D"),
}


def found(pairs: list[PreferencePair]) -> set[tuple[tuple[str, ...], str, str]]:
    return {(tuple(turn["content"] for turn in pair.prompt), pair.chosen, pair.rejected) for pair in pairs}


def test_trees_nested_and_flat_give_the_same() -> None:
    flat = convert("tree_messages", TREE)
    assert found(flat) == EXPECTED
    assert {index: reject.reason for index, reject in flat.unused.items()} == {6: "no_pair", 7: "one_answer"}
    pairs = converter(FormatSettings(format="tree"))(nested(TREE))
    assert found(pairs) == EXPECTED and pairs.skipped == {}
    assert found(converter(FormatSettings(format="tree"))(nested(TREE)["prompt"])) == EXPECTED
    assert detect(nested(TREE)) == "tree" and detect(TREE[1]) == "tree_messages"


def test_what_was_deleted_or_failed_its_review_is_excluded() -> None:
    rows = [row | ({"deleted": True} if row["message_id"] == "r.1" else {}) for row in TREE]
    assert reasons("tree_messages", rows) == {
        0: "no_pair",
        1: "deleted",
        2: "one_answer",
        3: "below_deleted",
        4: "below_deleted",
        5: "below_deleted",
        6: "no_pair",
        7: "one_answer",
    }
    rows = [row | ({"review_result": False} if row["message_id"] == "r.1.1.1" else {}) for row in TREE]
    pairs = converter(FormatSettings(format="tree"))(nested(rows))
    assert found(pairs) == {(("Q",), "B", "A")} and pairs.skipped == {"failed_review": 1}


def test_broken_trees() -> None:
    rows = [TREE[0], *TREE[4:6], TREE[1], TREE[2], message("r.3", "r", "F"), TREE[2] | {"text": "Z"}]
    pairs = convert("tree_messages", rows)
    assert found(pairs) == {(("Q",), "B", "A")}
    unused = {index: reject.reason for index, reject in pairs.unused.items()}
    assert unused == {1: "no_parent", 2: "no_parent", 5: "no_rank", 6: "duplicate"}
    circle = [message("a.1", "b.1", "A"), message("b.1", "a.1", "B")]
    assert reasons("tree_messages", circle) == {0: "no_parent", 1: "no_parent"}
    with pytest.raises(Reject, match="bad_role"):
        converter(FormatSettings(format="tree"))({"prompt": {"text": "Q", "role": "judge", "replies": []}})
    deep: Row = {"role": "user", "text": "Q", "replies": []}
    for depth in range(5000):
        deep = {"role": "assistant" if depth % 2 else "user", "text": "Q", "replies": [deep]}
    with pytest.raises(Reject, match="no_pair"):
        converter(FormatSettings(format="tree"))({"prompt": deep})


# All of them


def test_groups_are_found_by_their_key() -> None:
    rows = [
        {"prompt": f"Q{n % 7}", "completion": f"A{n}", "label": n % 3 == 0}
        for n in random.Random(1).sample(range(60), 60)
    ]
    group = grouping(FormatSettings(format="labelled"))
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[group.key(row)].append(row)
    assert len(groups) == 7
    for members in groups.values():
        good = sum(row["label"] for row in members)
        assert len(group.convert(members)) == good * (len(members) - good)


@pytest.mark.parametrize("shape", GROUPED)
def test_a_grouped_format_is_no_converter(shape: str) -> None:
    with pytest.raises(UserError, match="grouping"):
        converter(FormatSettings(format=shape))
    check(FormatSettings(format=shape, pairing="all"))
    with pytest.raises(UserError, match="no field"):
        check(FormatSettings(format=shape, fields={"chosn": "a"}))


def test_settings_know_the_grouped_formats() -> None:
    assert tuple(GROUPED) == GROUPED_FORMATS


def test_check_knows_every_format() -> None:
    check(FormatSettings(format="auto", fields={"prompt": "a", "label": "b"}))
    check(FormatSettings(format="pairs", fields={"chosen": "a"}))
    wrong: dict[str, dict[str, str]] = {"pears": {}, "auto": {"promt": "a"}, "ranked": {"prompt": "a..b"}}
    for shape, fields in wrong.items():
        with pytest.raises(UserError):
            check(FormatSettings(format=shape, fields=fields))
    with pytest.raises(UserError, match="not a path"):
        check(FormatSettings(format="labelled", attributes={"a..b": 1}))


def test_too_many_answers_to_compare() -> None:
    rows = labelled(*((str(n), n % 2) for n in range(2001)))
    assert set(reasons("labelled", rows).values()) == {"too_many_answers"}
