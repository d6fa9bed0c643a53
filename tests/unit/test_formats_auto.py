"""Rows in the shapes of public data sets, told apart without a word from the user: the format, and the pairs."""

from typing import Any

import pytest

from rewardline.formats import GROUPED, Pair, converter, detect, grouping, recognise

Row = dict[str, Any]


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def assistant(text: str) -> Row:
    return {"role": "assistant", "content": text}


def talk(*texts: str) -> list[Row]:
    return [(user, assistant)[n % 2](text) for n, text in enumerate(texts)]


def shared(*texts: str) -> list[Row]:
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]


def parts(*texts: str) -> list[Row]:
    return [{**turn, "content": [{"type": "text", "text": turn["content"], "image": None}]} for turn in talk(*texts)]


BARE = {"chosen": "A", "rejected": "B"}
WHOLE = {"chosen": talk("Q", "A"), "rejected": talk("Q", "B")}
# What it is; a row; its format; prompt and answers of the pairs.
CERTAIN: list[tuple[str, Row, str, list[tuple[str, str, str]]]] = [
    (
        "HH-RLHF",
        {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"},
        "transcript",
        [],
    ),
    ("rm-static", {"prompt": "\n\nHuman: Q\n\nAssistant:", "response": " A"} | BARE, "pairs", []),
    ("orca_dpo_pairs", {"system": "", "question": "Q"} | BARE, "pairs", []),
    (
        "distilabel orca",
        {"system": "", "input": "Q", "generations": ["B", "A"], "order": ["rejected", "chosen"], "rating": [9, 8]}
        | {"labelling_prompt": [user("Judge.")], "rationale": "...", "status": "unchanged", "in_gsm8k_train": False}
        | BARE,
        "pairs",
        [],
    ),
    ("stack-exchange-paired", {"qid": 5, "question": "Q", "response_j": "A", "response_k": "B"}, "pairs", []),
    ("code preferences", {"input": "Q", "accepted": "A", "rejected": "B"}, "pairs", []),
    ("chosen_response", {"instruction": "Q", "chosen_response": "A", "rejected_response": "B"}, "pairs", []),
    (
        "RewardBench",
        {"prompt": "Q", "chosen_model": "m", "rejected_model": "n", "subset": "s", "id": 1} | BARE,
        "pairs",
        [],
    ),
    ("dialogue sets", {"prompt": "Q", "question": "Q", "id": 1} | BARE, "pairs", []),
    ("UltraInteract", {"trajectory": shared("Q"), "id": "1", "parent_id": "0"} | BARE, "pairs", []),
    ("PKU single", {"prompt": {"text": "Q"}} | BARE, "pairs", []),
    ("Skywork", {"source": "s"} | WHOLE, "messages", []),
    ("ORPO mixtures", {"source": "s", "prompt": "Q", "question": ""} | WHOLE, "messages", []),
    (
        "Magpie DPO",
        {"uuid": "1", "instruction": "Q", "responses": ["A", "B"], "task_category": "x"} | WHOLE,
        "messages",
        [],
    ),
    (
        "Snorkel",
        {"prompt": "Q", "all_generated_responses": ["A", "B"], "all_rm_scores": [1.0, 0.5]} | WHOLE,
        "messages",
        [],
    ),
    ("UltraFeedback binarised", {"prompt": "Q", "messages": talk("Q", "A"), "score_chosen": 8} | WHOLE, "messages", []),
    (
        "lists of one message",
        {"prompt": [user("Q")], "chosen": [assistant("A")], "rejected": [assistant("B")]},
        "messages",
        [],
    ),
    (
        "ShareGPT",
        {
            "conversations": shared("Q"),
            "chosen": {"from": "gpt", "value": "A"},
            "rejected": {"from": "gpt", "value": "B"},
        },
        "messages",
        [],
    ),
    ("content parts", {"chosen": parts("Q", "A"), "rejected": parts("Q", "B")}, "messages", []),
    (
        "arena",
        {"conversation_a": talk("Q", "A"), "conversation_b": talk("Q", "B"), "winner": "model_a"},
        "preference",
        [],
    ),
    (
        "arena with parts",
        {"model_a": "m", "model_b": "n", "winner": "model_b"}
        | {"conversation_a": parts("Q", "B"), "conversation_b": parts("Q", "A"), "full_conversation": []},
        "preference",
        [],
    ),
    (
        "arena, winner by name",
        {"model_a": "m-1", "model_b": "n-2", "winner": "n-2", "prompt": "Q", "response_a": "B", "response_b": "A"},
        "preference",
        [],
    ),
    (
        "arena, one-hot",
        {"id": 1, "model_a": "m", "model_b": "n", "prompt": '["Q"]', "response_a": '["A"]', "response_b": '["B"]'}
        | {"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0},
        "preference",
        [],
    ),
    (
        "Unified-Feedback",
        {"conv_A": shared("Q", "A"), "conv_B": shared("Q", "B"), "conv_A_rating": 2.0, "conv_B_rating": 1.0},
        "preference",
        [],
    ),
    (
        "AlpacaFarm",
        {"instruction": "Q", "input": "", "output_1": "B", "output_2": "A", "preference": 2, "annotator": 5},
        "preference",
        [],
    ),
    (
        "AlpacaEval",
        {"instruction": "Q", "output_1": "A", "output_2": "B", "generator_1": "m", "preference": 1.25},
        "preference",
        [],
    ),
    (
        "JudgeBench",
        {"pair_id": "1", "source": "mmlu", "question": "Q", "response_model": "m"}
        | {"response_A": "B", "response_B": "A", "label": "B>A"},
        "preference",
        [],
    ),
    ("PKU-SafeRLHF", {"prompt": "Q", "response_0": "B", "response_1": "A", "better_response_id": 1}, "preference", []),
    (
        "SHP",
        {"history": "Q", "human_ref_A": "A", "human_ref_B": "B", "labels": 1, "score_ratio": 2.0},
        "preference",
        [],
    ),
    (
        "HelpSteer2",
        {"prompt": "Q", "response_1": "A", "response_2": "B", "preference_strength": -2, "preference_statement": "..."},
        "preference",
        [],
    ),
    (
        "HelpSteer3",
        {"context": talk("Q"), "response1": "B", "response2": "A", "overall_preference": 3},
        "preference",
        [],
    ),
    (
        "WebGPT",
        {"question": {"dataset": "eli5", "id": "1", "full_text": "Q"}, "answer_0": "B", "answer_1": "A"}
        | {"score_0": -0.5, "score_1": 0.5, "quotes_0": {}, "quotes_1": {}},
        "preference",
        [],
    ),
    ("label by name", {"prompt": "Q", "response_1": "B", "response_2": "A", "label": "response_2"}, "preference", []),
    ("judges' words", {"prompt": "Q", "response_a": "B", "response_b": "A", "winner": "[[B]]"}, "preference", []),
    (
        "votes",
        {"prompt": "Q", "answer_1": "A", "answer_2": "B", "votes": ["answer_1", "answer_1", "answer_2"]},
        "votes",
        [],
    ),
    (
        "stack-exchange-preferences",
        {"qid": 5, "question": "Q"}
        | {"answers": [{"pm_score": n, "text": text, "author": "x", "selected": True} for n, text in enumerate("BA")]},
        "ranked",
        [],
    ),
    (
        "Nectar",
        {"prompt": "\n\nHuman: Q\n\nAssistant: ", "turns": 1}
        | {"answers": [{"answer": "B", "model": "m", "rank": 2.0}, {"answer": "A", "model": "n", "rank": 1.0}]},
        "ranked",
        [],
    ),
    ("distilabel", {"instruction": "Q", "generations": ["B", "A"], "ratings": [1.0, 4.0]}, "ranked", []),
    (
        "GPT-4-LLM",
        {
            "user_input": "Q",
            "responses_and_scores": [{"response": "A", "source": "m", "score": 8}, {"response": "B", "score": 2}],
        },
        "ranked",
        [],
    ),
    (
        "lists in an object",
        {"question": "Q", "answers": {"text": ["A", "B"], "score": [7, 3], "a_id": ["x", "y"]}},
        "ranked",
        [],
    ),
    (
        "RewardBench 2",
        {"prompt": "Q", "chosen": ["A"], "rejected": ["B", "C"], "num_correct": 1},
        "good_bad",
        [("Q", "A", "C")],
    ),
    (
        "TruthfulQA",
        {"question": "Q", "best_answer": "A", "correct_answers": ["A"], "incorrect_answers": ["B"]},
        "good_bad",
        [],
    ),
    (
        "OASST",
        {"message_tree_id": "1", "tree_state": "ready"}
        | {
            "prompt": {"role": "prompter", "text": "Q"}
            | {
                "replies": [
                    {"role": "assistant", "text": text, "rank": rank, "replies": []} for rank, text in enumerate("AB")
                ]
            }
        },
        "tree",
        [],
    ),
    (
        "a Q of the user",
        {
            "prompt": "Q",
            "chosen": {"content": "A", "role": "assistant"},
            "rejected": {"role": "assistant", "content": "B"},
        },
        "messages",
        [],
    ),
]


def read(shape: str, row: Row) -> list[Pair]:
    if shape in GROUPED:
        return list(grouping(shape).convert([row]))
    return list(converter(shape)(row))


@pytest.mark.parametrize(("row", "shape", "more"), [item[1:] for item in CERTAIN], ids=[item[0] for item in CERTAIN])
def test_what_is_unambiguous_is_recognised(row: Row, shape: str, more: list[tuple[str, str, str]]) -> None:
    assert detect(row) == shape
    name, sentence = recognise([row] * 3)
    assert name == shape and sentence.startswith(f"format {shape}: ")
    found = [(pair.prompt[-1]["content"], pair.chosen, pair.rejected) for pair in read(shape, row)]
    assert found == [("Q", "A", "B"), *more]


def test_the_certainty_of_a_judge_is_the_confidence() -> None:
    row = {"instruction": "Q", "output_1": "A", "output_2": "B", "preference": 1.25}
    (pair,) = converter("preference")(row)
    assert (pair.chosen, pair.confidence) == ("A", 0.75)
    (pair,) = converter("preference")(row | {"preference": 1.9})
    assert pair.chosen == "B" and pair.confidence == pytest.approx(0.9)


GROUPS: list[tuple[str, list[Row], str]] = [
    ("TRL KTO", [{"prompt": "Q", "completion": text, "label": text == "A"} for text in "AB"], "labelled"),
    ("KTO chats", [{"messages": talk("Q", text), "label": text == "A"} for text in "AB"], "labelled"),
    ("KTO ShareGPT", [{"conversations": shared("Q", text), "kto_tag": text == "A"} for text in "AB"], "labelled"),
    ("signs", [{"prompt": "Q", "response": text, "label": 1 if text == "A" else -1} for text in "AB"], "labelled"),
    (
        "thumbs",
        [{"question": "Q", "answer": text, "thumbs": "up" if text == "A" else "down"} for text in "AB"],
        "labelled",
    ),
    (
        "OASST messages",
        [
            {"message_id": name, "parent_id": parent, "message_tree_id": "t", "role": role, "text": text, "rank": rank}
            for name, parent, role, text, rank in [
                ("1", None, "prompter", "Q", None),
                ("2", "1", "assistant", "B", 1.0),
                ("3", "1", "assistant", "A", 0.0),
            ]
        ],
        "tree_messages",
    ),
]


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
    ("0 or 1 of two", {"prompt": "Q", "response_1": "A", "response_2": "B", "label": 1}, ["preference"], ["values"]),
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


def test_a_few_bad_rows_do_not_hide_the_format() -> None:
    good, bad = {"prompt": "Q", "chosen": "A", "rejected": "B"}, {"prompt": "Q", "chosen": "A"}
    assert recognise([good, bad, good])[0] == "pairs"
    assert recognise([good, bad])[0] is None
    assert recognise([])[0] is None
    other = {"prompt": "Q", "answers": ["A", "B"], "scores": [1, 2]}
    name, sentence = recognise([good, good, good, other])
    assert name is None and "pairs (set format: pairs)" in sentence and "ranked (set format: ranked)" in sentence
