"""A row to score is read as the same row of a dataset: the same prompt and the same answers, whatever its shape."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardline.data.conversation import Reject, trim
from rewardline.data.formats.detect import choose
from rewardline.data.formats.registry import converter
from rewardline.data.formats.settings import FormatSettings
from rewardline.data.turns import turns_of
from rewardline.scoring.rows import UnscorableError, parse_row, read_full_text, score_names
from rewardline.scoring.server import protocols
from rewardline.tokens.templates import PLAIN

from support.shapes import CERTAIN

Json = dict[str, Any]
SPACE = st.text(" \n\t\r\u00a0", max_size=5)
WORDS = st.sampled_from(
    ["Yes.", "No, not at all.", "def f():\n    return 1", "Human: he said", "caf\u00e9", "\U0001f600"]
)
TEXT = st.builds(lambda before, text, after: before + text + after, SPACE, WORDS, SPACE)
ROLES = {
    "system": ("system", "developer", "System"),
    "user": ("user", "human", "tool", "function", "prompter"),
    "assistant": ("assistant", "gpt", "model", "bot"),
}


@st.composite
def message(draw: st.DrawFn, role: str, text: str) -> Json:
    """A message in any of the accepted forms."""
    name = draw(st.sampled_from(ROLES[role]))
    if draw(st.booleans()):
        return {"from": name, "value": text}
    half = draw(st.integers(0, len(text)))
    parts = [{"type": "text", "text": text[:half]}, text[half:]]
    return {"role": name, "content": draw(st.sampled_from([text, parts]))}


@st.composite
def rows(draw: st.DrawFn) -> tuple[str, Json]:
    """A row with two answers, and its format."""
    question, *answers = draw(TEXT), draw(TEXT), draw(TEXT)
    turns = [("user", question)]
    if draw(st.booleans()):
        turns = [("user", draw(TEXT)), ("assistant", draw(TEXT)), *turns]
    if system := draw(st.booleans()):
        turns.insert(0, ("system", draw(st.one_of(TEXT, SPACE))))
    messages = [draw(message(role, text)) for role, text in turns]
    sides = [draw(message("assistant", text)) for text in answers]
    transcript = "".join(f"\n\n{'Human' if role == 'user' else 'Assistant'}: {text}" for role, text in turns)
    kind = draw(
        st.sampled_from(["text", "messages", "list", "conversation", "object", "transcript", "marked", "alpaca"])
    )
    if system and kind in ("transcript", "marked", "text", "alpaca"):
        kind = "messages"
    chosen, rejected = answers
    match kind:
        case "text":
            return "pairs", {"prompt": question, "chosen": chosen, "rejected": rejected, "system": draw(TEXT)}
        case "alpaca":
            more = {"input": draw(st.one_of(SPACE, TEXT)), "history": [[draw(TEXT), draw(TEXT)]]}
            return "pairs", {"instruction": question, **more, "chosen": chosen, "rejected": rejected}
        case "messages":
            return "pairs", {"prompt": messages, "chosen": chosen, "rejected": sides[1]}
        case "list":
            return "pairs", {"prompt": messages, "chosen": sides[:1], "rejected": sides[1:]}
        case "conversation":
            return "messages", {"chosen": [*messages, sides[0]], "rejected": [*messages, sides[1]]}
        case "object":
            return "messages", {"chosen": {"messages": [*messages, sides[0]]}, "rejected": [*messages, sides[1]]}
        case "transcript":
            both = [f"{transcript}\n\nAssistant: {text}" for text in answers]
            return "transcript", {"chosen": both[0], "rejected": both[1]}
        case _:
            prompt = f"{transcript}\n\nAssistant:"
            return "pairs", {"prompt": prompt, "chosen": f"Assistant: {chosen}", "rejected": f"\nAssistant:{rejected}"}


@settings(max_examples=400, deadline=None)
@given(rows())
def test_a_row_is_read_as_training_reads_it(found: tuple[str, Json]) -> None:
    name, row = found
    try:
        (pair,) = converter(FormatSettings(format=name))(row)
    except Reject as reject:
        assert reject.reason in (
            "identical",
            "empty_prompt",
            "empty_answer",
            "different_prompts",
            "several_turns",
            "no_answer",
        ), reject
        return
    read = parse_row(row)
    assert read.prompt == list(pair.prompt)
    assert read.answers == [pair.chosen, pair.rejected]
    assert read.names == ("chosen_score", "rejected_score")
    prompt = list(pair.prompt)
    assert parse_row({"prompt": prompt, "answers": read.answers})[:2] == read[:2]
    for answer in read.answers:
        conversation = {"messages": [*prompt, {"role": "assistant", "content": answer}]}
        assert parse_row(conversation)[:2] == (prompt, [answer])


@pytest.mark.parametrize(
    ("name", "row"), [shape[2:0:-1] for shape in CERTAIN if shape[2] in ("pairs", "messages", "transcript")]
)
def test_rows_of_known_datasets_are_read_as_in_training(name: str, row: Json) -> None:
    (pair,) = converter(FormatSettings(format=name))(row)
    read = parse_row(row)
    assert (read.prompt, read.answers) == (list(pair.prompt), [pair.chosen, pair.rejected])
    assert {"chosen_score", "rejected_score"} <= set(score_names(list(row), []))


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXT, min_size=2, max_size=4), st.booleans())
def test_the_text_of_a_plain_conversation_is_read_as_that_conversation(texts: list[str], system: bool) -> None:
    """As servers get it from trainers that write complete texts."""
    roles = ["user", "assistant", "user", "assistant"]
    turns = [{"role": role, "content": text} for role, text in zip(roles, texts[: len(texts) // 2 * 2], strict=False)]
    if system:
        turns.insert(0, {"role": "system", "content": "Be brief."})
    read = parse_row({"messages": turns})
    text = PLAIN.render(read.prompt, read.answers)
    again = read_full_text(f"\n{text.head}{text.bodies[0]} \n")
    assert again is not None
    assert again[:2] == read[:2]
    assert read_full_text("Is it so?") is None


@pytest.mark.parametrize("name", ["gpt-4", "online-A", "Claude 2", "Be brief."])
def test_a_name_of_a_system_is_left_out_as_in_training(name: str) -> None:
    row = {"prompt": "Which is the number?", "system": name, "chosen": "It is one.", "rejected": "It is 2, or 3."}
    settings, _ = choose([row] * 3, FormatSettings())
    assert settings is not None
    ((pair,), parsed) = converter(settings)(row), parse_row(row)
    assert list(pair.prompt) == parsed.prompt
    assert bool(parsed.ignored) == (len(parsed.prompt) == 1) == (name != "Be brief.")


def test_prompts_and_answers_may_have_the_names_that_datasets_give_them() -> None:
    turns: list[Json] = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    expected = turns[:1], ["So."]
    for row in (
        {"question": "Why?", "response": " So. "},
        {"instruction": "Why?", "input": "", "output": "So."},
        {"query": "Why?", "answers": ["So.\n"]},
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
        {"answer": "Human: Why?\n\nAssistant: So."},
        {"prompt": "Why?", "responses": ["So."]},
        {"messages": turns[:1], "completions": [turns[1:]]},
        {"messages": turns[:1], "response": {"role": "assistant", "content": "So."}},
        {"messages": turns[:1], "choices": [{"index": 0, "message": turns[1]}]},
        {"contents": turns[:1], "candidates": [{"content": {"role": "model", "parts": [{"text": "So."}]}}]},
        {"question": "Why?", "choices": ["Never.", "Always."], "response": "So."},
        {"trajectory": turns},
    ):
        assert parse_row(row)[:2] == expected
        lists = [key for key, value in row.items() if isinstance(value, list)]
        names = score_names(list(row), lists)
        assert set(parse_row(row).names) <= set(names), "a column for each in Parquet"
    with pytest.raises(UnscorableError, match="may be question or context; name it `prompt`"):
        parse_row({"question": "Why?", "context": "Then.", "answer": "So."})
    read = parse_row({"prompt": "Write a dialogue.", "answer": "Human: Why?\n\nAssistant: So."})
    assert read.answers == ["Human: Why?\n\nAssistant: So."], "an answer to a prompt is no conversation of its own"
    with pytest.raises(UnscorableError, match="do not begin with the same prompt"):
        parse_row({"answers": [f"Human: {one}\n\nAssistant: So." for one in ("Why?", "Why?", "How?")]})


def test_columns_of_text_have_one_score_and_lists_have_several() -> None:
    """By their names alone, `output` and others may be either."""
    assert score_names(["prompt", "output"], []) == ("score",)
    assert score_names(["prompt", "response", "choices"], ["choices"]) == ("scores", "score")
    for answers, names in ((["So.", "No."], ("scores",)), ([{"role": "assistant", "content": "So."}], ("score",))):
        assert parse_row({"prompt": "Why?", "output": answers}).names == names


def test_answers_beside_the_one_that_is_scored_are_named() -> None:
    row: Json = {"prompt": "Why?", "responses": ["So.", "No."]}
    assert parse_row({**row, "answer": "42"}).ignored == "responses ignored, as answer is what is scored,"
    assert not parse_row(row).ignored
    assert not parse_row({"prompt": "Why?", "answer": "42"}).ignored


def test_a_conversation_is_scored_at_its_end_unless_the_row_has_an_answer_to_it() -> None:
    turns: list[Json] = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    assert parse_row({"messages": turns, "output": "No."}).answers == ["So."]
    call = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    asked = [turns[0], call, {"role": "function", "content": "7"}]
    assert len(parse_row({"messages": asked, "responses": ["So.", "No."]}).prompt) == 3
    assert "tool" in [turn["role"] for turn in turns_of(parse_row({"messages": asked}).answers[0])]


def test_images_beside_the_text_are_ignored_and_named(caplog: pytest.LogCaptureFixture) -> None:
    row = {"prompt": "What is it?", "answer": "A cat."}
    assert parse_row({**row, "images": ["cat.png"]}).ignored.startswith("images ignored")
    assert not parse_row({**row, "images": []}).ignored
    with caplog.at_level("WARNING"):
        for _ in range(2):
            protocols.rows([{**row, "video": "cat.mp4"}], "model")
    assert [record.getMessage() for record in caplog.records] == [
        "video ignored, as only text is read, in a row, and in others like it"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n\n    x = 1\n    y\n", "    x = 1\n    y"),
        (" \n\tx\n", "\tx"),
        ("      \n  x", "x"),
        ("    ", ""),
        ("   x ", "x"),
    ],
)
def test_the_indentation_of_code_is_no_outer_white_space(text: str, expected: str) -> None:
    assert trim(text) == expected
