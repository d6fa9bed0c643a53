"""Answers of several turns, calls of tools, and what a row gives chat templates."""

import json
from typing import Any

import pyarrow as pa
import pytest

from rewardline.data.formats.detect import choose
from rewardline.data.formats.grouped import Grouping
from rewardline.data.formats.plausibility import remarks
from rewardline.data.formats.registry import converter, grouping
from rewardline.data.formats.settings import FormatSettings
from rewardline.data.schema import Message
from rewardline.data.sources.parquet_files import values_of
from rewardline.data.turns import Trajectory, pack, turns_of, unpack
from rewardline.scoring.rows import UnscorableError, parse_row

from support.formats import detect, one, reason
from support.shapes import Row, assistant, user

CALL: Row = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"b": 2, "a": 1}'}}
CALLS: Row = {"role": "assistant", "content": None, "tool_calls": [CALL]}
CALL_TEXT = '<tool_call>\n{"name": "add", "arguments": {"b": 2, "a": 1}}\n</tool_call>'
RESULT: Row = {"role": "tool", "tool_call_id": "c1", "content": "3"}
TOOLS: list[Row] = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize(
    ("chosen", "rejected", "shared"),
    [
        ([assistant("A"), user("R"), assistant("C")], [assistant("B"), user("S"), assistant("D")], 0),
        ([assistant("A"), user("R"), assistant("C")], [assistant("A"), user("S"), assistant("C")], 1),
        ([assistant("A"), user("R"), assistant("C")], [assistant("A"), user("R"), assistant("D")], 2),
        ([assistant("A"), user("R"), assistant("C")], [assistant("B")], 0),
        ([assistant("A"), assistant("C")], [assistant("A"), assistant("D")], 0),
        ([assistant("A"), user("R")], [assistant("A")], 0),
        ([CALLS, RESULT, assistant("3")], [assistant("4")], 0),
        ([CALLS, RESULT, assistant("3")], [CALLS, {**RESULT, "content": "error"}, assistant("4")], 1),
        ([CALLS, RESULT, assistant("3")], [CALLS, RESULT, assistant("4")], 2),
        ([CALLS, {**RESULT, "content": ""}], [CALLS, RESULT], 1),
    ],
)
def test_the_prompt_is_what_trajectories_share(chosen: list[Row], rejected: list[Row], shared: int) -> None:
    forms: list[Row] = [
        {"chosen": [user("Q"), *chosen], "rejected": [user("Q"), *rejected]},
        {"prompt": [user("Q")], "chosen": chosen, "rejected": rejected},
    ]
    if shared == 1:
        forms.append({"prompt": [user("Q"), chosen[0]], "chosen": chosen[1:], "rejected": rejected[1:]})
    for row in forms:
        assert detect(row) == "messages"
        pair = one("messages", row)
        assert len(pair.prompt) == 1 + shared
        for answer, turns in ((pair.chosen, chosen), (pair.rejected, rejected)):
            assert [turn["role"] for turn in turns_of(answer)] == [turn["role"] for turn in turns[shared:]]
        read = parse_row(row)
        assert (read.prompt, read.answers) == (list(pair.prompt), [pair.chosen, pair.rejected])
        packed = pack(pair.prompt, (pair.chosen, pair.rejected), pair.inputs)
        texts: list[Message] = [{"role": turn["role"], "content": turn["content"]} for turn in pair.prompt]
        found = unpack(texts, str(pair.chosen), str(pair.rejected), packed)
        assert found.prompt == list(pair.prompt)
        for side in ("chosen", "rejected"):
            assert list(turns_of(getattr(found, side))) == list(turns_of(getattr(pair, side)))


def test_answers_that_are_texts_say_it_all() -> None:
    pair = one("messages", {"chosen": [user("Q"), assistant("A")], "rejected": [user("Q"), assistant("B")]})
    assert pack(pair.prompt, (pair.chosen, pair.rejected), pair.inputs) is None
    assert type(pair.chosen) is str and not isinstance(pair.rejected, Trajectory)


def test_a_call_keeps_what_its_row_has() -> None:
    row = {"chosen": [user("Q"), CALLS, RESULT, assistant("3")], "rejected": [user("Q"), CALLS, RESULT, assistant("4")]}
    pair = one("messages", row)
    assert [turn["content"] for turn in pair.prompt] == ["Q", CALL_TEXT, "3"]
    assert [turn.get("native") for turn in pair.prompt] == [
        None, {"tool_calls": [CALL]}, {"content": "3", "tool_call_id": "c1"},
    ]  # fmt: skip
    spoken = {**CALLS, "content": " Well. ", "thinking": "Hm."}
    pair = one("messages", {"prompt": "Q", "chosen": [spoken, RESULT], "rejected": [assistant("4")]})
    assert pair.chosen == f"<think>\nHm.\n</think>\n\nWell.\n{CALL_TEXT}\n\nHuman: 3"
    native = turns_of(pair.chosen)[0]["native"]
    assert native == {"content": "Well.", "reasoning_content": "Hm.", "tool_calls": [CALL]}
    assert reason("messages", {"prompt": "Q", "chosen": [{**CALLS, "tool_calls": [{}]}], "rejected": "4"})


@pytest.mark.parametrize("calls", [json.dumps([CALL]), json.dumps(CALL), [json.dumps(CALL)], CALL])
def test_calls_may_be_json(calls: object) -> None:
    called = {**CALLS, "tool_calls": calls}
    row = {"chosen": [user("Q"), called, RESULT, assistant("3")], "rejected": [user("Q"), assistant("4")]}
    turns = turns_of(one("messages", row).chosen)
    assert (turns[0]["content"], turns[0].get("native")) == (CALL_TEXT, {"tool_calls": [CALL]})
    assert turns_of(parse_row(row).answers[0]) == turns
    old = {"role": "assistant", "content": None, "function_call": json.dumps(CALL["function"])}
    prompt = parse_row({"prompt": [user("Q"), old, RESULT], "answer": "3"}).prompt
    assert (prompt[1]["content"], prompt[1].get("native")) == (
        CALL_TEXT,
        {"tool_calls": [{"function": CALL["function"]}]},
    )


@pytest.mark.parametrize("value", [TOOLS, json.dumps(TOOLS), [json.dumps(tool) for tool in TOOLS]])
def test_tools_are_objects_or_json(value: object) -> None:
    row: Row = {"prompt": "Q", "chosen": "A", "rejected": "B", "tools": value}
    row["chat_template_kwargs"] = {"enable_thinking": False}
    assert one("pairs", row).inputs == (TOOLS, {"enable_thinking": False})
    assert parse_row(row).inputs == (TOOLS, {"enable_thinking": False})
    assert one("pairs", {**row, "tools": []}).inputs.tools == []


def test_what_is_no_tools_is_ignored_unless_it_is_mapped() -> None:
    row: Row = {"prompt": "Q", "chosen": "A", "rejected": "B", "tools": "search, add"}
    pairs = converter(FormatSettings(format="pairs"))(row)
    assert not pairs[0].inputs and "tools ignored" in pairs.changed
    assert reason("pairs", row, fields={"tools": "tools"}) == "bad_tools"
    assert not one("pairs", row, fields={"system": "tools"}).inputs.tools
    row = {**row, "tools": None, "chat_template_kwargs": {"add_generation_prompt": True}}
    assert reason("pairs", row) == "bad_chat_template_kwargs"


def groups(rows: list[Row]) -> list[Any]:
    found: dict[str, list[Row]] = {}
    shape: Grouping = grouping(FormatSettings(format="labelled"))
    for row in rows:
        found.setdefault(shape.key(row), []).append(row)
    return [pair for group in found.values() for pair in shape.convert(group)]


def test_rows_with_other_tools_are_not_compared() -> None:
    rows = [
        {"messages": [user("Q"), CALLS], "label": True, "tools": TOOLS},
        {"messages": [user("Q"), assistant("3")], "label": False, "tools": TOOLS},
        {"messages": [user("Q"), assistant("4")], "label": True},
        {"messages": [user("Q"), assistant("5")], "label": False},
    ]
    first, second = sorted(groups(rows), key=lambda pair: len(pair.inputs.tools))
    assert (first.chosen, first.rejected) == ("4", "5")
    assert second.inputs.tools == TOOLS and turns_of(second.chosen)[0]["native"] == {"tool_calls": [CALL]}


def test_an_answer_that_begins_with_the_users_turn_says_what_is_wrong() -> None:
    row = {"prompt": "Q", "answers": [[user("Q"), assistant("A")], [user("Q"), assistant("B")]], "scores": [1, 0]}
    assert reason("ranked", row) == "several_turns"
    row["answers"] = [[assistant("A"), user("R"), assistant("C")], [assistant("B")]]
    assert one("ranked", row).chosen == "A\n\nHuman: R\n\nAssistant: C"


def anthropic(calls: list[Row], results: list[Row]) -> list[Row]:
    """A call with reasoning, its result, and an answer, in blocks of Anthropic's API."""
    return [
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Add.", "signature": "x"}, *calls]},
        {"role": "user", "content": [*results, {"type": "text", "text": "And now?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "It is 3."}]},
    ]


def gemini(call: Row, result: Row) -> list[Row]:
    """The same as Google's API has it."""
    return [
        {"role": "model", "parts": [{"text": "Add.", "thought": True}, {"text": "Wait."}, {"functionCall": call}]},
        {"role": "function", "parts": [{"functionResponse": result}]},
        {"role": "user", "parts": [{"text": "And now?"}]},
        {"role": "model", "parts": [{"text": "It is 3."}]},
    ]


SAID: Row = {"role": "assistant", "content": "Wait.", "reasoning_content": "Add."}
USE: Row = {"type": "tool_use", "id": "c1", "name": "add", "input": {"b": 2, "a": 1}}
BLOCKS: list[tuple[list[Row], Row, Row]] = [
    (
        anthropic(
            [{"type": "text", "text": "Wait."}, USE], [{"type": "tool_result", "tool_use_id": "c1", "content": got}]
        ),
        {"id": "c1"},
        {"tool_call_id": "c1", "content": "3"},
    )
    for got in ("3", [{"type": "text", "text": "3"}])
]
BLOCKS.append(
    (
        gemini({"name": "add", "args": {"b": 2, "a": 1}}, {"name": "add", "response": {"sum": 3}}),
        {},
        {"name": "add", "content": '{"sum": 3}'},
    )
)

ITEMS: list[Row] = [
    {"type": "reasoning", "id": "r1", "summary": [{"type": "summary_text", "text": "Add."}]},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Wait."}]},
    {"type": "function_call", "call_id": "c1", "name": "add", "arguments": {"b": 2, "a": 1}},
    {"type": "function_call_output", "call_id": "c1", "output": "3"},
    user("And now?"),
    {"type": "reasoning", "id": "r2", "summary": []},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It is 3."}]},
]
BLOCKS.append((ITEMS, {"id": "c1"}, {"tool_call_id": "c1", "content": "3"}))


@pytest.mark.parametrize(("spelled", "call", "result"), BLOCKS)
def test_blocks_of_other_apis_are_calls_results_and_reasoning(spelled: list[Row], call: Row, result: Row) -> None:
    function = {"name": "add", "arguments": {"b": 2, "a": 1}}
    turns: list[Row] = [
        {**SAID, "tool_calls": [{**call, "type": "function", "function": function}]},
        {"role": "tool", **result},
        user("And now?"),
        assistant("It is 3."),
    ]
    other = [assistant("It is 4.")]
    for prompt in ([user("Q")], [{"role": "user", "content": [{"type": "input_text", "text": "Q"}]}]):
        for row, same in (
            ({"prompt": prompt, "chosen": spelled, "rejected": other}, {"chosen": turns, "rejected": other}),
            ({"chosen": [*prompt, *other], "rejected": [*prompt, *spelled]}, {"chosen": other, "rejected": turns}),
        ):
            expected = one("messages", {"prompt": [user("Q")], **same})
            found = one("messages", row)
            assert found == expected
            assert [turns_of(side) for side in (found.chosen, found.rejected)] == [
                turns_of(side) for side in (expected.chosen, expected.rejected)
            ]
            read = parse_row(row)
            assert (read.prompt, read.answers) == (list(found.prompt), [found.chosen, found.rejected])


def test_arguments_in_parquet_are_those_of_the_call_alone() -> None:
    """A column of calls has the arguments of all of them."""
    other = {**USE, "input": {"c": 1}}
    for key, calls in (
        ("content", (USE, other)),
        (
            "parts",
            (
                {"functionCall": {"name": "add", "args": USE["input"]}},
                {"functionCall": {"name": "add", "args": {"c": 1}}},
            ),
        ),
    ):
        rows = [
            {"prompt": "Q", "answer": [{"role": "assistant", key: [{"type": "text", "text": "A"}, call]}]}
            for call in calls
        ]
        (batch,) = pa.Table.from_pylist(rows).to_batches()
        (first, _) = values_of(batch)
        assert isinstance(first, dict)
        assert parse_row(first).answers == [f"A\n{CALL_TEXT}"]


@pytest.mark.parametrize(
    "block", [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "image"}, {"type": "input_audio"}, {"type": 3}]
)
def test_content_that_is_no_text_is_refused_by_its_type(block: Row) -> None:
    row = {"prompt": [{"role": "user", "content": [block, {"type": "text", "text": "Q"}]}], "answer": "A"}
    with pytest.raises(UnscorableError, match=f"part 1 of message 1 of the prompt is of type {block['type']!r}"):
        parse_row(row)
    assert reason("pairs", {**row, "chosen": "A", "rejected": "B"}) == "not_text"
    result = {"type": "tool_result", "tool_use_id": "c1", "content": [block]}
    with pytest.raises(UnscorableError, match="is of type"):
        parse_row({"prompt": [user("Q")], "answer": [assistant("A"), {"role": "user", "content": [result]}]})


def test_tools_beside_the_messages_of_openais_preferences_are_read() -> None:
    row: Row = {"input": {"messages": [user("Q")], "tools": TOOLS, "parallel_tool_calls": True}}
    row |= {"preferred_output": [CALLS], "non_preferred_output": [assistant("B")]}
    assert one("messages", row).inputs.tools == TOOLS == parse_row(row).inputs.tools
    row = {side: {"messages": [user("Q"), assistant(side)], "tools": TOOLS} for side in ("chosen", "rejected")}
    assert one("messages", row).inputs.tools == TOOLS == parse_row(row).inputs.tools
    assert reason("messages", {**row, "chosen": {**row["chosen"], "tools": TOOLS * 2}}) == "different_prompts"


def test_items_of_a_response_are_turns_in_their_order() -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    thought = {"type": "reasoning", "summary": [{"text": "Hm."}, {"text": "Ah."}]}
    text = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "A"}]}
    for items, expected in (
        ([thought, call, call], [("Hm.\n\nAh.", "", 2)]),
        ([call, text], [("", "", 1), ("", "A", 0)]),
        ([text, thought, call], [("", "A", 0), ("Hm.\n\nAh.", "", 1)]),
        ([thought, thought, text], [("Hm.\n\nAh.\n\nHm.\n\nAh.", "A", 0)]),
        ([call], [("", "", 1)]),
    ):
        turns = turns_of(parse_row({"prompt": "Q", "answer": items}).answers[0])
        native = [turn.get("native") or {"content": turn["content"]} for turn in turns]
        keys = ("reasoning_content", "content")
        assert [(*(one.get(key, "") for key in keys), len(one.get("tool_calls", []))) for one in native] == expected  # type: ignore[arg-type]
    with pytest.raises(UnscorableError, match="holds 0 turns"):
        parse_row({"prompt": "Q", "answer": [{"type": "reasoning", "summary": []}]})


FUNCTION: Row = {"name": "add", "arguments": {"b": 2, "a": 1}}


@pytest.mark.parametrize(
    "called",
    [
        {"role": "assistant", "content": None, "tool_call": FUNCTION},
        {"role": "assistant", "content": None, "tool_call": {"id": None, "function": FUNCTION}},
        {"role": "assistant", "tool_call": json.dumps({"function": FUNCTION})},
        {"from": "function_call", "value": json.dumps(FUNCTION)},
        {"from": "tool_call", "value": json.dumps([FUNCTION])},
    ],
)
def test_the_only_call_of_a_turn_may_be_a_key_or_the_text_of_a_role_for_calls(called: Row) -> None:
    row = {"chosen": [user("Q"), called, RESULT, assistant("3")], "rejected": [user("Q"), assistant("4")]}
    turns = turns_of(one("messages", row).chosen)
    assert turns == turns_of(parse_row(row).answers[0])
    assert turns[0]["content"] == CALL_TEXT and "content" not in turns[0].get("native", {})
    sides = {side: [user("Q"), called, RESULT, assistant(side)] for side in ("chosen", "rejected")}
    assert one("messages", sides).prompt[1]["content"] == CALL_TEXT, "where most rows are read in one step, too"


@pytest.mark.parametrize("text", ["f(1)", "{}", "[1]", '[{"name": "f"}, {}]', '{"x": 1}'])
def test_the_text_of_a_role_for_calls_stays_if_it_is_no_call(text: str) -> None:
    (turn,) = turns_of(parse_row({"prompt": "Q", "answer": {"from": "function_call", "value": text}}).answers[0])
    assert (turn["content"], turn.get("native")) == (text, None)


def test_calls_and_reasoning_in_half_broken_shapes() -> None:
    item = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": ""}
    text = {**CALLS, "tool_calls": json.dumps([CALL])}
    turns = turns_of(parse_row({"prompt": "Q", "answer": [text, item]}).answers[0])
    assert [turn["content"] for turn in turns] == [
        CALL_TEXT,
        '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>',
    ]
    for block in (
        {"type": "tool_use", "name": "f", "input": None},
        {"functionCall": {"name": "f"}},
    ):
        answer = parse_row({"prompt": "Q", "answer": {"role": "assistant", "content": [block]}}).answers[0]
        assert '"arguments": {}' in answer
        both = parse_row({"prompt": "Q", "answer": {"role": "assistant", "content": [{**block, "text": "A"}]}})
        assert both.answers == [f"A\n{answer}"], "no text is lost"
    for shape in ({"content": "", "text": "A"}, {"content": [], "parts": [{"text": "A"}]}):
        assert parse_row({"prompt": "Q", "answer": {"role": "assistant", **shape}}).answers == ["A"]
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
        {"type": None, "text": "A"},
    ]
    answer = parse_row({"prompt": "Q", "answer": {"role": "assistant", "content": parts}}).answers[0]
    assert answer == "<think>\nHm.\n</think>\n\nA"


@pytest.mark.parametrize(
    "prompt",
    [
        '["Q"]',
        '[{"role": "user", "content": "Q"}]',
        "[{'role': 'user', 'content': 'Q'}]",
        '{"role": "user", "content": "Q"}',
        '{"messages": []}',
    ],
)
def test_a_list_in_a_text_is_no_prompt(prompt: str) -> None:
    assert reason("pairs", {"prompt": prompt, "chosen": "A", "rejected": "B"}) == "messages_as_text"
    with pytest.raises(UnscorableError, match="spells a list or a message"):
        parse_row({"prompt": prompt, "answer": "A"})
    for text in ("[1, 2]", '{"role": "x"}', '["a", "b"] Sort it.', '[{"role": "user"}] What is it?'):
        assert one("pairs", {"prompt": text, "chosen": "A", "rejected": "B"}).prompt[0]["content"] == text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("system", [{"type": "text", "text": "Be brief."}]),
        ("systemInstruction", {"parts": [{"text": "Be brief."}]}),
        ("system_instruction", {"role": "user", "parts": [{"text": "Be brief."}]}),
        ("system_message", "Be brief."),
    ],
)
def test_system_prompts_of_other_apis(key: str, value: object) -> None:
    row: Row = {"prompt": "Q", "chosen": "A", "rejected": "B", key: value}
    prompt = list(one("pairs", row).prompt)
    assert prompt == parse_row(row).prompt == [{"role": "system", "content": "Be brief."}, user("Q")]


def test_tools_beside_the_messages_of_each_answer_are_read() -> None:
    answers = [{"messages": [assistant(text)], "tools": TOOLS} for text in "AB"]
    assert parse_row({"prompt": [user("Q")], "responses": answers}).inputs.tools == TOOLS
    row = {"prompt": [user("Q")], "preferred_output": answers[0], "non_preferred_output": answers[1]}
    assert one("messages", row).inputs.tools == TOOLS


def test_rows_with_different_tools_do_not_end_the_choice_of_a_format() -> None:
    def row(n: int, *names: str) -> Row:
        sides = zip(("chosen", "rejected"), names, strict=True)
        return {
            side: {"messages": [user(f"Q{n}"), assistant(f"It is {n}, {side}.")], "tools": [{"name": name}]}
            for side, name in sides
        }

    rows = [row(n, "f", "f" if n else "g") for n in range(5)]
    settings, _ = choose(rows, FormatSettings())
    assert settings is not None and settings.format == "messages"
    assert remarks(rows, settings) == []


def test_remarks_name_lists_in_texts_but_not_items_that_are_read() -> None:
    rows: list[Row] = [{"prompt": [user(f"Q{n}"), *ITEMS[:4]], "chosen": "A", "rejected": "B"} for n in range(4)]
    assert remarks(rows, FormatSettings(format="pairs")) == []
    rows = [{"prompt": f"Q{n}", "chosen": f'["A{n}"]', "rejected": '["B"]'} for n in range(4)]
    (remark,) = remarks(rows, FormatSettings(format="pairs"))
    assert "brackets and quotes count as text" in remark
    assert remarks([*rows, {**rows[0], "chosen": "A"}], FormatSettings(format="pairs")) == []


def test_answers_of_every_format_may_be_objects_with_messages() -> None:
    good, bad = ({"messages": [CALLS, RESULT, assistant(text)], "tools": TOOLS} for text in "34")
    row: Row = {"prompt": [user("Q")]}
    read = parse_row({**row, "answers": [good, bad]})
    for name, answers in (
        ("ranked", {"responses": [good, bad], "scores": [1, 0]}),
        ("good_bad", {"correct": [good], "incorrect": [bad]}),
        ("preference", {"response_a": good, "response_b": bad, "winner": "a"}),
    ):
        pair = one(name, {**row, **answers})
        found = [[*pair.prompt, *turns_of(side)] for side in (pair.chosen, pair.rejected)]
        assert found == [[*read.prompt, *turns_of(text)] for text in read.answers]


def test_tools_of_other_apis_are_those_of_openais_chats() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "number"}}}
    function = {"name": "add", "description": "Adds.", "parameters": schema}
    for tool in (
        {"type": "function", "function": function},
        {"type": "function", **function},
        {"name": "add", "description": "Adds.", "input_schema": schema, "cache_control": {"type": "ephemeral"}},
        {"functionDeclarations": [function]},
        {"function_declarations": [function]},
    ):
        row: Row = {"prompt": "Q", "chosen": "A", "rejected": "B", "tools": [tool]}
        expected = [{"type": "function", "function": function}]
        assert one("pairs", row).inputs.tools == parse_row(row).inputs.tools == expected
    assert one("pairs", {**row, "tools": [function]}).inputs.tools == [function], "as transformers pass it on"


def test_items_that_are_not_read_are_named_by_their_type() -> None:
    with pytest.raises(UnscorableError, match="message 2 of the prompt has no role and is of type 'web_search_call'"):
        parse_row({"prompt": [user("Q"), {"type": "web_search_call", "id": "w"}], "answer": "A"})
