"""Single answers with ratings: what is read of a row, and what is left out."""

from typing import Any

import pytest

from rewardline.core.errors import UserError
from rewardline.data.conversation import Reject
from rewardline.data.formats.detect import choose
from rewardline.data.formats.drafts import RowPairs
from rewardline.data.formats.registry import check, converter
from rewardline.data.formats.settings import FormatSettings

from support.shapes import talk

Row = dict[str, Any]


def convert(row: Row, **settings: Any) -> RowPairs:
    chosen = choose([row], FormatSettings.model_validate({"format": "rated", **settings}))
    assert chosen.settings is not None, chosen.explanation
    return converter(chosen.settings)(row)


def read(row: Row, **settings: Any) -> list[tuple[str, dict[str, float]]]:
    """Each answer of a row with its ratings, by name."""
    pairs = convert(row, **settings)
    assert all(pair.rejected == "" and pair.prompt[-1]["content"] == "Q" for pair in pairs)
    return [(pair.chosen, dict(pair.ratings or ())) for pair in pairs]


@pytest.mark.parametrize(
    ("row", "settings", "value"),
    [
        ({"prompt": "Q", "completion": "A", "label": True}, {}, 1),
        ({"prompt": "Q", "completion": "A", "label": False}, {}, 0),
        ({"question": "Q", "answer": "A", "thumbs": "down"}, {}, 0),
        ({"messages": talk("Q", "A"), "label": 1}, {}, 1),
        ({"messages": talk("Q", "A"), "label": -1}, {}, -1),
        ({"prompt": "Q", "response": "A", "label": 4}, {}, 4),
        ({"prompt": "Q", "response": "A", "score": "3.5"}, {}, 3.5),
        ({"prompt": "Q", "response": "A", "score": [1, 2, None]}, {}, 1.5),
        ({"prompt": "Q", "response": "A", "stars": "★★★☆☆"}, {"fields": {"score": "stars"}}, 3),
        ({"prompt": "Q", "response": "A", "ok": "ja"}, {"fields": {"label": "ok"}, "values": {"good": "ja"}}, 1),
        ({"prompt": "Q", "response": "A", "label": 3}, {"scale": [1, 5]}, 0.5),
    ],
)
def test_a_label_or_a_score_is_the_rating_label(row: Row, settings: Any, value: float) -> None:
    assert read(row, **settings) == [("A", {"label": value})]


def test_named_ratings_are_found_in_the_answer_or_in_the_row_and_may_be_missing() -> None:
    single = {"prompt": "Q", "response": "A", "helpfulness": 3, "verbosity": None}
    assert read(single, ratings=["helpfulness", "verbosity"]) == [("A", {"helpfulness": 3})]
    assert read(single, format="auto", ratings={"h": "helpfulness"}) == [("A", {"h": 3})]
    several = {
        "instruction": "Q",
        "completions": [
            {"response": "A", "annotations": {"h": {"Rating": "5"}}},
            {"response": "B", "annotations": {"h": {"Rating": "N/A"}}},
            {"response": "C", "annotations": {}},
        ],
        "truth": [0.5, 1, None],
    }
    ratings = {"h": "annotations.h.Rating", "t": "truth"}
    assert read(several, ratings=ratings) == [("A", {"h": 5, "t": 0.5}), ("B", {"t": 1})]
    assert convert(several, ratings=ratings).skipped == {"no_rating": 1}
    lists = {"prompt": "Q", "answers": ["A", "B"], "scores": [1, 2]}
    assert read(lists) == [("A", {"label": 1}), ("B", {"label": 2})]
    columns = {"prompt": "Q", "answer 1": "A", "answer 2": "B", "answer 3": "C", "given": [3, 1, 2]}
    assert read(columns, fields={"answers": "answer *"}, ratings={"x": "given"}) == [
        ("A", {"x": 3}),
        ("B", {"x": 1}),
        ("C", {"x": 2}),
    ]


def test_chosen_and_rejected_are_two_answers() -> None:
    row = {"chosen": talk("Q", "A"), "rejected": talk("Q", "B"), "chosen_reward": -1.5, "rejected_reward": -7}
    assert read(row, ratings={"reward": "*_reward"}) == [("A", {"reward": -1.5}), ("B", {"reward": -7})]


@pytest.mark.parametrize(
    ("row", "settings", "reason"),
    [
        ({"prompt": "Q", "response": "A", "h": None}, {"ratings": ["h"]}, "no_rating"),
        ({"prompt": "Q", "response": "A", "h": "great"}, {"ratings": ["h"]}, "bad_number"),
        ({"prompt": "Q", "response": "A", "h": 6}, {"ratings": ["h"], "scale": [1, 5]}, "off_scale"),
        ({"prompt": "Q", "response": "", "h": 6}, {"ratings": ["h"]}, "empty_answer"),
        ({"prompt": "", "response": "A", "h": 6}, {"ratings": ["h"]}, "empty_prompt"),
        ({"prompt": "Q", "response": "A", "label": "meh"}, {}, "bad_label"),
    ],
)
def test_what_is_left_out_has_a_reason(row: Row, settings: Any, reason: str) -> None:
    with pytest.raises(Reject) as reject:
        convert(row, **settings)
    assert reject.value.reason == reason


def test_ratings_belong_to_the_format_rated() -> None:
    with pytest.raises(UserError, match="format: rated instead of labelled"):
        check(FormatSettings.model_validate({"format": "labelled", "ratings": ["a"]}))
    with pytest.raises(ValueError, match="lowest value before"):
        FormatSettings.model_validate({"scale": [5, 1]})
