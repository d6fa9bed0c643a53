"""Rows in the shapes of public data sets, told apart without a word from the user: the format, and the pairs."""

from typing import Any

import pytest

from rewardline.data.formats.registry import GROUPED, OPTIONS, Pair, choose, converter, detect, grouping, recognise

from support.shapes import BARE, CERTAIN, GROUPS, Row, talk


def read(rows: list[Row], **settings: Any) -> list[Pair]:
    """The pairs of rows, by what they say of themselves."""
    choice = choose(rows, **settings)
    assert choice.name, choice.words
    options = {name: value for name, value in settings.items() if name in OPTIONS} | {"values": choice.values}
    if choice.name in GROUPED:
        return list(grouping(choice.name, choice.fields, **options).convert(rows))
    convert = converter(choice.name, choice.fields, **options)
    return [pair for row in rows for pair in convert(row)]


@pytest.mark.parametrize(("row", "shape", "more"), [item[1:] for item in CERTAIN], ids=[item[0] for item in CERTAIN])
def test_what_is_unambiguous_is_recognised(row: Row, shape: str, more: list[tuple[str, str, str]]) -> None:
    assert detect(row) == shape
    name, sentence = recognise([row] * 3)
    assert name == shape and sentence.startswith(f"format {shape}: ")
    found = [(pair.prompt[-1]["content"], pair.chosen, pair.rejected) for pair in read([row])]
    assert found == [("Q", "A", "B"), *more]


def test_the_certainty_of_a_judge_is_the_confidence() -> None:
    row = {"instruction": "Q", "output_1": "A", "output_2": "B", "preference": 1.25}
    (pair,) = converter("preference")(row)
    assert (pair.chosen, pair.confidence) == ("A", 0.75)
    (pair,) = converter("preference")(row | {"preference": 1.9})
    assert pair.chosen == "B" and pair.confidence == pytest.approx(0.9)


@pytest.mark.parametrize(("rows", "shape"), [item[1:] for item in GROUPS], ids=[item[0] for item in GROUPS])
def test_formats_of_several_rows_are_recognised(rows: list[Row], shape: str) -> None:
    assert recognise(rows)[0] == shape
    (pair,) = grouping(shape).convert(rows)
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
    name, sentence = recognise([row] * 3)
    assert name is None
    assert all(word in sentence for word in [*names, *advice])


def test_what_the_user_says_makes_it_certain() -> None:
    row = {"prompt": "Q", "answer_a": "A", "answer_b": "B", "preference": 1}
    assert detect(row, None, {"first": 1, "second": 2}) == "preference"
    assert detect({"prompt": "Q", "response": "A", "is_safe": False}, {"label": "is_safe"}) == "labelled"
    assert detect({"prompt": "Q", "response": "A", "mark": 3}, {"score": "mark"}) == "labelled"
    summaries = {"info": {"post": "Q"}, "summaries": [{"text": "A"}, {"text": "B"}], "choice": 1}
    fields = {"prompt": "info.post", "answers": "summaries", "preference": "choice"}
    assert detect(summaries, fields, {"first": 0, "second": 1}) == "preference"
    (pair,) = converter("preference", fields, values={"first": 0, "second": 1})(summaries)
    assert (pair.chosen, pair.rejected) == ("B", "A")
    swift = {"messages": talk("Q", "A"), "rejected_response": "B"}
    (pair,) = converter("messages", {"chosen": "messages"})(swift)
    assert (pair.prompt[0]["content"], pair.chosen, pair.rejected) == ("Q", "A", "B")


def test_votes_of_several_annotators_in_columns_of_their_own() -> None:
    row: Row = {"instruction": "Q", "input": "", "response1": "A", "response2": "B"}
    row |= {"annotator1": 1, "annotator2": 0, "annotator3": 1}
    fields, values = {"preference": "annotator*"}, {"first": 1, "second": 2, "tie": 0}
    assert detect(row, fields, values) == "votes"
    (pair,) = grouping("votes", fields, values=values).convert([row])
    assert pair.chosen == "A" and pair.confidence == pytest.approx(2.5 / 3)


def test_a_few_bad_rows_do_not_hide_the_format() -> None:
    good, bad = {"prompt": "Q", "chosen": "A", "rejected": "B"}, {"prompt": "Q", "chosen": "A"}
    assert recognise([good, bad, good])[0] == "pairs"
    assert recognise([good, bad])[0] is None
    assert recognise([])[0] is None
    other = {"prompt": "Q", "answers": ["A", "B"], "scores": [1, 2]}
    name, sentence = recognise([good, good, good, other])
    assert name is None and "pairs (set format: pairs)" in sentence and "ranked (set format: ranked)" in sentence
