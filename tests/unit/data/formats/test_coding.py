"""Which answer is the better one is read only where the rows or the user say it, once for a whole dataset."""

from typing import Any

import pytest

from rewardline.data.conversation import Reject
from rewardline.data.formats.detect import choose
from rewardline.data.formats.registry import converter
from rewardline.data.formats.settings import FormatSettings

from support.formats import asked_for, read
from support.shapes import Row, assistant, talk, user

Q = [f"Question {n}?" for n in range(6)]
NUMBERED = [{"prompt": q, "response_1": "A", "response_2": "B"} for q in Q]
LETTERED = [{"prompt": q, "response_a": "A", "response_b": "B"} for q in Q]
SIX = [{"prompt": q, "answer_1": "A", "answer_2": "B", "answer_3": "C", "answer_4": "D"} for q in Q]
LIST = [{"prompt": q, "responses": ["A", "B", "C"]} for q in Q]


def each(rows: list[Row], key: str, values: list[Any]) -> list[Row]:
    return [row | {key: values[n % len(values)]} for n, row in enumerate(rows)]


def winners(rows: list[Row], **settings: Any) -> str:
    return "".join(pair.chosen for pair in read(rows, **settings))


# Numbers


def test_one_and_two_are_the_first_and_the_second_where_both_occur_and_no_other_number() -> None:
    assert winners(each(NUMBERED, "label", [1, 2, 2])) == "ABBABB"
    assert winners(each(NUMBERED, "label", ["1.0", "2.0", "tie"])[:2]) == "AB"
    settings, _ = choose(each(NUMBERED, "label", [1, 2, "tie"]), FormatSettings())
    assert settings
    convert = converter(settings)
    for label, reason in [(0, "unknown_code"), ("3", "unknown_code"), ("tie", "tie"), ("both_bad", "tie")]:
        with pytest.raises(Reject) as caught:
            convert(NUMBERED[0] | {"label": label})
        assert caught.value.reason == reason
    assert convert(NUMBERED[0] | {"label": "response_2"})[0].chosen == "B"


@pytest.mark.parametrize("labels", [[0, 1], [1], [2], [0, 1, 2], [1, 2, 5], [1, -1], [1, 2, 1.5], [0], ["0", "1"]])
@pytest.mark.parametrize("settings", [{}, {"format": "preference"}, {"format": "votes"}], ids=str)
def test_other_numbers_are_not_read_unless_the_user_says_what_they_mean(labels: list[Any], settings: Row) -> None:
    rows = each(NUMBERED, "label", labels)
    assert "values: {first: ..., second: ..., tie: ...}" in asked_for(rows, **settings)
    mapped = [{"prompt": row["prompt"], "response 1": "A", "response 2": "B", "label": row["label"]} for row in rows]
    fields = {"answer_a": "response 1", "answer_b": "response 2"}
    assert "values" in asked_for(mapped, fields=fields, **settings)
    assert set(winners(each(rows, "label", [0, 1]), values={"first": 0, "second": 1}, **settings)) == {"A", "B"}


@pytest.mark.parametrize(("key", "name"), [("preference_strength", "response_1"), ("overall_preference", "response1")])
def test_a_strength_has_a_sign_only_where_one_is_seen(key: str, name: str) -> None:
    rows = [{"prompt": q, name: "A", name[:-1] + "2": "B"} for q in Q]
    assert winners(each(rows, key, [-2, 1])) == "ABABAB"
    assert "signed" in asked_for(each(rows, key, [1, 2, 7]))
    assert "signed" in asked_for(each(rows, key, [1, 2, 7]), format="preference")
    assert winners(each(rows, key, [1, 2, 3]), values={"signed": "first"}) == "AAAAAA"


def test_a_strength_that_fits_no_two_answers_is_explained() -> None:
    strength = {"fields": {"strength": "grade"}}
    assert winners(each(NUMBERED, "grade", [-2, 1]), **strength) == "BABABA"
    sided: list[Row] = [{"prompt": q, "chosen": "A", "rejected": "B"} for q in Q]
    talks: list[Row] = [{name: [user(q), assistant(name)] for name in ("chosen", "rejected")} for q in Q]
    for rows, form in ((sided, "pairs"), (talks, "messages")):
        asked = asked_for(each(rows, "grade", [2, 1]), **strength)
        assert f"the rows fit {form}, where `chosen` is the better one" in asked and "{margin: grade}" in asked
    odd = [{"prompt": q, "one": "A", "other": "B"} for q in Q]
    for rows in (odd, LIST):
        asked = asked_for(each(rows, "grade", [-2, 1]), **strength)
        assert "but not which two: set fields: {answer_a: ..., answer_b: ...} too" in asked
    asked = asked_for(each(NUMBERED, "grade", [-2, 1]), fields={"strength": "grad"})
    assert "none of the first rows has a value at grad, which `fields` maps as the strength" in asked
    assert "no format fits" in asked_for(odd), "without a strength, nothing is said of it"


def test_alpacas_numbers_go_to_two() -> None:
    rows = [{"instruction": q, "output_1": "A", "output_2": "B"} for q in Q]
    assert winners(each(rows, "preference", [1, 2])) == "ABABAB"
    assert winners(each(rows, "preference", [1.1, 1.9])) == "ABABAB"
    assert "values" in asked_for(each(rows, "preference", [0, 1]))
    assert "values" in asked_for(each(rows, "preference", [1, 2, 3]))


def test_two_numbers_under_votes_are_not_two_votes() -> None:
    rows = each(NUMBERED, "votes", [[2, 1]])
    assert "values" in asked_for(rows) and "votes_a: votes[0]" in asked_for(rows)
    pair, *_ = read(rows, fields={"votes_a": "votes[0]", "votes_b": "votes[1]"})
    assert pair.chosen == "A" and pair.confidence == pytest.approx(2 / 3)


def test_counts_of_votes_are_a_soft_label() -> None:
    rows = [row | {"votes_a": 5, "votes_b": 2} for row in LETTERED[:1]] + [LETTERED[1] | {"votes_a": 0, "votes_b": 3}]
    for settings in ({}, {"format": "votes"}):
        one, two = sorted(read(rows, **settings), key=lambda pair: pair.chosen)
        assert (one.chosen, two.chosen, two.confidence) == ("A", "B", 1.0)
        assert one.confidence == pytest.approx(5 / 7)
    mapped = [{"prompt": "Q", "x": "A", "y": "B", "for x": 1, "for y": 3}]
    fields = {"answer_a": "x", "answer_b": "y", "votes_a": "for x", "votes_b": "for y"}
    (pair,) = read(mapped, format="preference", fields=fields)
    assert (pair.chosen, pair.confidence) == ("B", 0.75)


# Words


@pytest.mark.parametrize(
    ("rows", "key", "values"),
    [
        (NUMBERED, "preferred", ["response_1", "response_2"]),
        (NUMBERED, "preference", ["Response 1", "Response 2"]),
        (NUMBERED, "winner", ["Model A", "Model B"]),
        (LETTERED, "better", ["A", "B"]),
        (LETTERED, "winner", ["Answer A", "Answer B"]),
        (LETTERED, "chosen", ["response_a", "response_b"]),
    ],
)
def test_words_for_an_answer(rows: list[Row], key: str, values: list[str]) -> None:
    assert winners(each(rows, key, values)) == "ABABAB"


def test_chosen_and_rejected_may_name_answers() -> None:
    rows: list[Row]
    for names in (("response_a", "response_b"), ("A", "B"), ("a", "b")):
        rows = [row | {"chosen": names[n % 2], "rejected": names[1 - n % 2]} for n, row in enumerate(LETTERED)]
        assert winners(rows) == "ABABAB"
        assert "names an answer" in asked_for(rows, format="pairs")
    rows = [{"prompt": "Q", "responses": {"m": "A", "n": "B"}, "chosen": "n", "rejected": "m"}]
    assert winners(rows) == "B"
    rows = [{"prompt": "Q", "responses": ["A", "B"], "chosen": 1, "rejected": 0}]
    assert winners(rows) == "B"
    assert "start" in asked_for([{"prompt": "Q", "responses": ["A", "B", "C"], "chosen": 2, "rejected": 1}])
    short = [{"prompt": "Q", "generations": ["B", "A"], "chosen": "A", "rejected": "B"}]  # texts that are letters
    assert winners(short) == "A"


def test_labels_of_single_answers_in_words() -> None:
    rows = [{"prompt": "Q", "response": text, "label": label} for text, label in [("A", "chosen"), ("B", "rejected")]]
    assert winners(rows) == "A"
    assert winners([{"prompt": "Q", "response": text, "chosen": text == "A"} for text in "AB"]) == "A"


# More than two answers in columns


def test_columns_that_go_on_are_not_two_answers() -> None:
    rows = [row | {"score_1": 2, "score_2": 1, "score_3": 5, "score_4": None} for row in SIX[:1]]
    assert [(pair.chosen, pair.rejected) for pair in read(rows)] == [("C", "A"), ("C", "B"), ("A", "B")]
    with pytest.raises(Reject):
        converter(FormatSettings(format="preference"))(rows[0])
    rows = [{"prompt": "Q", "response_a": "A", "response_b": "B", "response_c": "C", "winner": "c"}]
    assert [(pair.chosen, pair.rejected) for pair in read(rows)] == [("C", "A"), ("C", "B")]
    rows = each(SIX, "choice", [1, 4])
    assert {(pair.chosen, pair.rejected) for pair in read(rows)} == {
        (one, two) for one in "AD" for two in "ABCD" if one != two
    }
    assert "start" in asked_for(each(SIX, "choice", [1, 2]))


def test_the_best_of_a_list_by_its_number_its_letter_or_its_text() -> None:
    assert {pair.chosen for pair in read(each(LIST, "best", [0, 1]))} == {"A", "B"}
    assert {pair.chosen for pair in read(each(LIST, "best", [1, 3]))} == {"A", "C"}
    assert "values: {start: 0} or {start: 1}" in asked_for(each(LIST, "best", [1, 2]))
    assert "start" in asked_for(each(LIST, "best", [0, 3]))
    assert {pair.chosen for pair in read(each(LIST, "best", [1]), values={"start": 1})} == {"A"}
    assert {pair.rejected for pair in read(each(LIST, "best", ["b", "B", ["A", "b"]]))} == {"A", "C"}
    columns = [{"query": q, "sample0": "A", "sample1": "B", "sample2": "C"} for q in Q]
    assert {pair.chosen for pair in read(each(columns, "best", [0, 2]))} == {"A", "C"}
    arc = [{"question": "Q", "choices": {"text": ["A", "B"], "label": ["1", "2"]}, "answerKey": "x"}]
    assert "best" in asked_for(arc)
    assert winners([{**arc[0], "choices": {"text": ["A", "B"], "label": ["X", "Y"]}}]) == "A"


# Scores and ranks


def test_ranks_are_offered_as_ranks() -> None:
    assert "attributes: {rank: -1}" in asked_for([{"prompt": "Q", "response": text, "rank": 1} for text in "AB"])
    rows = [{"prompt": "Q", "response": text, "rank": rank} for text, rank in (("A", 1), ("B", 2))]
    assert winners(rows, attributes={"rank": -1}) == "A"
    lists = [{"prompt": "Q", "responses": ["B", "A"], "rank": [2, 1]}]
    assert "fields: {ranks: rank}" in asked_for(lists) and winners(lists, fields={"ranks": "rank"}) == "A"


def test_scores_and_ranks_that_contradict_each_other() -> None:
    row = {"prompt": "Q", "responses": ["A", "B"], "scores": [2, 1]}
    assert winners([row | {"ranks": [1, 2]}]) == "A"
    with pytest.raises(Reject) as caught:
        read([row | {"ranks": [2, 1]}])
    assert caught.value.reason == "contradiction"


@pytest.mark.parametrize("settings", [{}, {"format": "ranked"}], ids=str)
def test_a_row_without_scores_is_not_taken_for_one_in_order(settings: Row) -> None:
    scored = [row | {"scores": [1, 2, 3]} for row in LIST]
    chosen, _ = choose([*scored, LIST[0]], FormatSettings(**settings))
    assert chosen
    convert = converter(chosen)
    assert convert(scored[0])[0].chosen == "C"
    for row in (LIST[0], LIST[0] | {"scores": None}, LIST[0] | {"scores": "1 2 3"}):
        with pytest.raises(Reject):
            convert(row)
    best = [row | {"best": "b"} for row in LIST]
    chosen, _ = choose(best, FormatSettings(**settings))
    assert chosen
    with pytest.raises(Reject):
        converter(chosen)(LIST[0] | {"best": None})
    assert read(LIST, format="ranked")[0].chosen == "A"


# What was followed must work


def test_a_hint_that_is_followed_makes_the_format_certain() -> None:
    steer = [{"prompt": "Q", "response": text, "helpfulness": n} for text, n in (("A", 4), ("B", 1))]
    assert "attributes" in asked_for(steer) and winners(steer, attributes={"helpfulness": 1.0}) == "A"
    listed = [{"prompt": "Q", "completions": [{"response": "B", "helpful": 1}, {"response": "A", "helpful": 4}]}]
    assert winners(listed, attributes={"helpful": 1.0}) == "A"
    joined = [{"question": "Q", "correct_answers": "A; C", "incorrect_answers": "B"}]
    assert "separator" in asked_for(joined) and winners(joined, separator=";") == "AC"


# Shapes


SHAPES: list[tuple[str, Row]] = [
    ("axolotl", {"messages": talk("Q"), "chosen": assistant("A"), "rejected": assistant("B")}),
    ("ms-swift", {"messages": talk("Q", "A"), "rejected_response": "B"}),
    ("objects of messages", {"chosen": {"messages": talk("Q", "A")}, "rejected": {"messages": talk("Q", "B")}}),
    (
        "Gemini",
        {"contents": [{"role": "user", "parts": [{"text": "Q"}]}]}
        | {
            "completions": [
                {"score": score, "completion": {"role": "model", "parts": [{"text": text}]}}
                for score, text in enumerate("BA")
            ]
        },
    ),
    (
        "parts without a type",
        {"chosen": talk("Q", "A"), "rejected": [user("Q"), {"role": "ai", "content": [{"text": "B"}]}]},
    ),
    ("history", {"question": "Q", "history": [["R", "S"]], "chosen": "A", "rejected": "B"}),
    ("no history", {"question": "Q", "history": [], "chosen": "A", "rejected": "B"}),
    (
        "scores after names",
        {"prompt": "Q", "response_a": "A", "response_b": "B", "response_a_score": 5, "response_b_score": 1},
    ),
    (
        "an output beside candidates",
        {"instruction": "Q", "output": "C"}
        | {"candidates": [{"text": text, "score": score} for score, text in enumerate("BA")]},
    ),
    ("winner and loser", {"prompt": "Q", "winner": "A", "loser": "B"}),
    ("an empty prompt", {"prompt": "", "chosen": talk("Q", "A"), "rejected": talk("Q", "B")}),
    ("an empty list as prompt", {"prompt": [], "chosen": talk("Q", "A"), "rejected": talk("Q", "B")}),
    ("no prompt", {"prompt": None, "chosen": talk("Q", "A"), "rejected": talk("Q", "B")}),
    ("turns as texts", {"prompt": "Q", "chosen": ["Q", "A"], "rejected": ["Q", "B"]}),
    (
        "a marker before the answers",
        {"prompt": "\n\nHuman: Q\n\n", "chosen": "Assistant: A", "rejected": "Assistant:B"},
    ),
]


@pytest.mark.parametrize("row", [item[1] for item in SHAPES], ids=[item[0] for item in SHAPES])
def test_shapes_that_say_which_is_better(row: Row) -> None:
    (pair,) = read([row])
    assert (pair.prompt[-1], pair.chosen, pair.rejected) == (user("Q"), "A", "B")
    assert len(pair.prompt) == (3 if row.get("history") else 1)


def test_a_tools_turn_is_one_from_outside() -> None:
    turns = [user("Q"), assistant("call"), {"role": "tool", "content": "result"}]
    (pair,) = read([{"chosen": [*turns, assistant("A")], "rejected": [*turns, assistant("B")]}])
    assert pair.prompt == (user("Q"), assistant("call"), {"role": "tool", "content": "result"})


def test_lists_that_may_be_turns_or_answers_are_not_guessed() -> None:
    assert "turns" in asked_for([{"prompt": "R", "chosen": ["Q", "A"], "rejected": ["Q", "B"]}])
    (pair, *_) = read([{"prompt": "Q", "chosen": ["A", "C"], "rejected": ["B", "D"]}], format="good_bad")
    assert pair.prompt == (user("Q"),)


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": talk("Q", "A"), "rejected": talk("Q", "B")},
        {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"},
        {"conversation_a": talk("Q", "A"), "conversation_b": talk("Q", "B"), "winner": "a"},
        {"prompt": "Q", "responses": ["B", "A"], "scores": [1, 2]},
    ],
)
def test_a_system_prompt_stands_before_the_turns(row: Row) -> None:
    (pair,) = read([row | {"system": "Be brief."}])
    assert pair.prompt == ({"role": "system", "content": "Be brief."}, user("Q"))


def test_system_prompts_of_labelled_conversations() -> None:
    rows = [{"system": "S", "messages": talk("Q", text), "label": text == "A"} for text in "AB"]
    (pair,) = read(rows)
    assert pair.prompt[0] == {"role": "system", "content": "S"}
    row = {"system": "S", "chosen": talk("Q", "A"), "rejected": talk("Q", "B")}
    row |= {side: [{"role": "system", "content": "T"}, *row[side]] for side in ("chosen", "rejected")}
    with pytest.raises(Reject) as caught:
        converter(FormatSettings(format="messages"))(row)
    assert caught.value.reason == "ambiguous_field"
    (pair,) = converter(FormatSettings(format="messages"))(row | {"system": "T"})
    assert [turn["role"] for turn in pair.prompt] == ["system", "user"]


def test_single_answers_may_have_a_group() -> None:
    rows = [{"prompt": "Q", "completion": text, "label": text in "AC", "task": n // 2} for n, text in enumerate("ABCD")]
    assert len(read(rows)) == 4
    assert {(pair.chosen, pair.rejected) for pair in read(rows, fields={"group": "task"})} == {("A", "B"), ("C", "D")}


# Texts


def test_messages_in_a_text_are_no_answer() -> None:
    for text in (str(talk("Q", "A")), '[{"role": "user", "content": "Q"}]'):
        with pytest.raises(Reject) as caught:
            converter(FormatSettings(format="pairs"))({"prompt": "Q", "chosen": text, "rejected": "B"})
        assert caught.value.reason == "messages_as_text"


def test_the_indentation_of_code_stays() -> None:
    row = {"prompt": "Q", "chosen": "\n \n    x = 1\n    y\n", "rejected": "x = 1"}
    (pair,) = converter(FormatSettings(format="pairs"))(row)
    assert (pair.chosen, pair.rejected) == ("    x = 1\n    y", "x = 1")
    (pair,) = converter(FormatSettings(format="pairs"))({"prompt": "Q", "chosen": "  \n A ", "rejected": "\tB"})
    assert (pair.chosen, pair.rejected) == ("A", "\tB")
