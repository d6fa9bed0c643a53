"""Rows in the shapes of public datasets, told apart without a word from the user: the format, and the pairs."""

import pytest

from rewardline.data.formats.detect import choose
from rewardline.data.formats.registry import converter, grouping
from rewardline.data.formats.settings import FormatSettings

from support.formats import asked_for, detect, read
from support.shapes import BARE, CERTAIN, GROUPS, Row, talk


@pytest.mark.parametrize(("row", "shape", "more"), [item[1:] for item in CERTAIN], ids=[item[0] for item in CERTAIN])
def test_what_is_unambiguous_is_recognised(row: Row, shape: str, more: list[tuple[str, str, str]]) -> None:
    assert detect(row) == shape
    settings, explanation = choose([row] * 3, FormatSettings())
    assert settings and settings.format == shape and explanation.startswith(f"format {shape}: ")
    found = [(pair.prompt[-1]["content"], pair.chosen, pair.rejected) for pair in read([row])]
    assert found == [("Q", "A", "B"), *more]


def test_the_certainty_of_a_judge_is_the_confidence() -> None:
    row = {"instruction": "Q", "output_1": "A", "output_2": "B", "preference": 1.25}
    (pair,) = converter(FormatSettings(format="preference"))(row)
    assert (pair.chosen, pair.confidence) == ("A", 0.75)
    (pair,) = converter(FormatSettings(format="preference"))(row | {"preference": 1.9})
    assert pair.chosen == "B" and pair.confidence == pytest.approx(0.9)


@pytest.mark.parametrize(("rows", "shape"), [item[1:] for item in GROUPS], ids=[item[0] for item in GROUPS])
def test_formats_of_several_rows_are_recognised(rows: list[Row], shape: str) -> None:
    settings, _ = choose(rows, FormatSettings())
    assert settings and settings.format == shape
    (pair,) = grouping(FormatSettings(format=shape)).convert(rows)
    assert (pair.prompt[-1]["content"], pair.chosen, pair.rejected) == ("Q", "A", "B")


# What no row says: its candidates, and words of the advice that go with them.
UNCLEAR: list[tuple[str, Row, list[str], list[str]]] = [
    ("answers without an order", {"prompt": "Q", "answers": ["A", "B"]}, ["ranked"], ["best answer comes first"]),
    (
        "UltraFeedback",
        {"instruction": "Q", "correct_answers": ["None"], "incorrect_answers": ["None"]}
        | {"completions": [{"response": "A", "overall_score": 8, "fine-grained_score": 4}] * 2},
        ["good_bad", "ranked"],
        ["completions[*].overall_score or completions[*].fine-grained_score"],
    ),
    (
        "HelpSteer2 rows",
        {"prompt": "Q", "response": "A", "helpfulness": 4, "verbosity": 2},
        ["labelled"],
        ["attributes"],
    ),
    ("BeaverTails", {"prompt": "Q", "response": "A", "is_safe": True}, [], []),
    ("0 or 1", {"prompt": "Q", "response": "A", "label": 1}, ["labelled"], ["larger number"]),
    (
        "number of a winner",
        {"prompt": "Q", "answer_a": "A", "answer_b": "B", "preference": 1},
        ["preference"],
        ["values"],
    ),
    ("0 or 1 of two", {"prompt": "Q", "response_1": "A", "response_2": "B", "label": 0}, ["preference"], ["values"]),
    ("0 or 1 by number", {"prompt": "Q", "answer_0": "A", "answer_1": "B", "label": 1}, ["preference"], ["values"]),
    (
        "steps",
        {"prompt": "Q", "initial_reason_steps": "S", "full_chosen": "SA", "full_rejected": "SB"} | BARE,
        ["pairs"],
        ["fields: {chosen"],
    ),
    ("two prompts", {"prompt": "Q", "question": "R"} | BARE, ["pairs"], ["fields: {prompt"]),
    (
        "two pairs of answers",
        {"prompt": "Q", "answer_a": "A", "answer_b": "B", "output_1": "C", "output_2": "D", "winner": "a"},
        ["preference"],
        ["answer_a"],
    ),
    ("plain text", {"text": "Q"}, [], ["fields: {prompt"]),
    ("instructions", {"instruction": "Q", "input": "", "output": "A"}, [], []),
    ("chats", {"messages": talk("Q", "A")}, [], []),
    ("summaries", {"info": {"post": "Q"}, "summaries": [{"text": "A"}, {"text": "B"}], "choice": 1}, [], []),
    ("judge's prompts", {"orig_instruction": "Q", "orig_response_A": "A", "orig_response_B": "B"}, [], []),
]


@pytest.mark.parametrize(("row", "names", "advice"), [item[1:] for item in UNCLEAR], ids=[item[0] for item in UNCLEAR])
def test_what_the_data_does_not_say_is_not_guessed(row: Row, names: list[str], advice: list[str]) -> None:
    assert detect(row) == names
    explanation = asked_for([row] * 3)
    assert all(word in explanation for word in [*names, *advice])


def test_what_the_user_says_makes_it_certain() -> None:
    row = {"prompt": "Q", "answer_a": "A", "answer_b": "B", "preference": 1}
    assert detect(row, values={"first": 1, "second": 2}) == "preference"
    assert detect({"prompt": "Q", "response": "A", "is_safe": False}, fields={"label": "is_safe"}) == "labelled"
    assert detect({"prompt": "Q", "response": "A", "mark": 3}, fields={"score": "mark"}) == "labelled"
    summaries = {"info": {"post": "Q"}, "summaries": [{"text": "A"}, {"text": "B"}], "choice": 1}
    fields = {"prompt": "info.post", "answers": "summaries", "preference": "choice"}
    assert detect(summaries, fields=fields, values={"first": 0, "second": 1}) == "preference"
    (pair,) = converter(FormatSettings(format="preference", fields=fields, values={"first": 0, "second": 1}))(summaries)
    assert (pair.chosen, pair.rejected) == ("B", "A")
    swift = {"messages": talk("Q", "A"), "rejected_response": "B"}
    (pair,) = converter(FormatSettings(format="messages", fields={"chosen": "messages"}))(swift)
    assert (pair.prompt[0]["content"], pair.chosen, pair.rejected) == ("Q", "A", "B")


def test_votes_of_several_annotators_in_columns_of_their_own() -> None:
    row: Row = {"instruction": "Q", "input": "", "response1": "A", "response2": "B"}
    row |= {"annotator1": 1, "annotator2": 0, "annotator3": 1}
    values: Row = {"first": 1, "second": 2, "tie": 0}
    settings = FormatSettings(format="votes", fields={"preference": "annotator*"}, values=values)
    assert detect(row, fields=settings.fields, values=values) == "votes"
    (pair,) = grouping(settings).convert([row])
    assert pair.chosen == "A" and pair.confidence == pytest.approx(2.5 / 3)


def test_a_few_bad_rows_do_not_hide_the_format() -> None:
    good, bad = {"prompt": "Q", "chosen": "A", "rejected": "B"}, {"prompt": "Q", "chosen": "A"}
    settings, _ = choose([good, bad, good], FormatSettings())
    assert settings and settings.format == "pairs"
    assert asked_for([good, bad]) and asked_for([])
    other = {"prompt": "Q", "answers": ["A", "B"], "scores": [1, 2]}
    explanation = asked_for([good, good, good, other])
    assert "pairs (set format: pairs)" in explanation and "ranked (set format: ranked)" in explanation
