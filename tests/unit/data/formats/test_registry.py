import json
import time
from itertools import chain
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rewardline.core.errors import UserError
from rewardline.data.conversation import Reject, trim
from rewardline.data.formats.drafts import PreferencePair
from rewardline.data.formats.fields import SYNONYMS
from rewardline.data.formats.registry import FORMATS, GROUPED, converter
from rewardline.data.formats.settings import FormatSettings

from support.formats import detect, one, read, reason, texts
from support.shapes import Row, assistant, user


def system(text: str) -> Row:
    return {"role": "system", "content": text}


# Transcripts


def test_transcript_splits_at_the_last_answer() -> None:
    row = {
        "chosen": "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: A joke?\n\nAssistant: Knock, knock.",
        "rejected": "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: A joke?\n\nAssistant: No.\n\nReally not.",
    }
    pair = one("transcript", row)
    assert pair.prompt == (user("Hi"), assistant("Hello!"), user("A joke?"))
    assert (pair.chosen, pair.rejected) == ("Knock, knock.", "No.\n\nReally not.")
    assert detect(row) == "transcript"


def test_transcript_keeps_an_answer_whole_in_which_the_model_wrote_its_marker_again() -> None:
    # A split at the last marker puts half of the chosen answer into the prompt and cuts the rejected one anywhere.
    row = {
        "chosen": "\n\nHuman: Cost of a panel?\n\nAssistant: One moment...\n\nAssistant: About $60.",
        "rejected": "\n\nHuman: Cost of a panel?\n\nAssistant: Look it up.",
    }
    pair = one("transcript", row)
    assert pair.prompt == (user("Cost of a panel?"),)
    assert (pair.chosen, pair.rejected) == ("One moment...\n\nAssistant: About $60.", "Look it up.")


def test_transcript_in_which_one_answer_begins_like_the_other() -> None:
    start = "\n\nHuman: Hi\n\nAssistant: Hello"
    pair = one("transcript", {"chosen": start + " there.", "rejected": start})
    assert (pair.chosen, pair.rejected) == ("Hello there.", "Hello")
    pair = one("transcript", {"chosen": start + "\n\nAssistant: More.", "rejected": start})
    assert (pair.chosen, pair.rejected) == ("Hello\n\nAssistant: More.", "Hello")


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ("\n\nHuman: Q\n\nAssistant: A", "\n\nHuman: Q\n\nAssistant: A", "identical"),
        ("\n\nHuman: Q\n\nAssistant: A", "\n\nHuman: Q\n\nAssistant: ", "empty_answer"),
        ("\n\nHuman: \n\nAssistant: A", "\n\nHuman: \n\nAssistant: B", "empty_prompt"),
        ("\n\nHuman: Q\n\nAssistant: A", "\n\nHuman: R\n\nAssistant: B", "different_prompts"),
        ("\n\nHuman: Q\n\nAssistant: A\n\nHuman: \n\nAssistant: C", "\n\nHuman: Q\n\nAssistant: B", "empty_answer"),
        ("\n\nHuman: Q", "\n\nHuman: Q\n\nAssistant: A", "no_answer"),
        ("A plain answer", "\n\nHuman: Q\n\nAssistant: A", "not_transcript"),
        ("Preamble.\n\nHuman: Q\n\nAssistant: A", "\n\nHuman: Q\n\nAssistant: A", "not_transcript"),
        ("\n\nAssistant: A", "\n\nAssistant: B", "empty_prompt"),
        (["\n\nHuman: Q\n\nAssistant: A"], "\n\nHuman: Q\n\nAssistant: B", "not_text"),
    ],
)
def test_transcript_rejects(chosen: Any, rejected: Any, expected: str) -> None:
    assert reason("transcript", {"chosen": chosen, "rejected": rejected}) == expected


SPOKEN = st.text(st.characters(codec="utf-8", exclude_characters="\0:"), min_size=1).filter(str.strip)


@settings(deadline=None)
@given(turns=st.lists(st.tuples(SPOKEN, SPOKEN), max_size=3), last=SPOKEN, chosen=SPOKEN, rejected=SPOKEN)
def test_transcript_finds_what_it_was_made_of(
    turns: list[tuple[str, str]], last: str, chosen: str, rejected: str
) -> None:
    text = "".join(f"\n\nHuman: {question}\n\nAssistant: {reply}" for question, reply in turns)
    text += f"\n\nHuman: {last}\n\nAssistant: "
    row = {"chosen": text + chosen, "rejected": text + rejected}
    if trim(chosen) == trim(rejected):
        assert reason("transcript", row) == "identical"
        return
    said = [turn for question, reply in turns for turn in (user(trim(question)), assistant(trim(reply)))]
    assert one("transcript", row) == PreferencePair((*said, user(trim(last))), trim(chosen), trim(rejected))  # type: ignore[arg-type]


# Pairs


@pytest.mark.parametrize("chosen", ["chosen", "response_chosen", "better", "preferred", "accepted", "response_j"])
@pytest.mark.parametrize("rejected", ["rejected", "reject", "worse", "dispreferred", "response_k"])
@pytest.mark.parametrize("prompt", ["prompt", "question", "instruction", "query", "context", "input"])
def test_pairs_under_their_usual_names(prompt: str, chosen: str, rejected: str) -> None:
    row = {prompt: "2 + 2?", chosen: " 4", rejected: "5\n", "id": 7, "subset": "maths"}
    assert detect(row) == "pairs"
    assert one("pairs", row) == PreferencePair((user("2 + 2?"),), "4", "5", subset="maths")  # type: ignore[arg-type]


def test_pairs_with_a_transcript_as_prompt() -> None:
    row = {
        "prompt": "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: A joke?\n\nAssistant:",
        "response": " Knock.",
        "chosen": " Knock.",
        "rejected": " No.",
    }
    pair = one("pairs", row)
    assert pair.prompt == (user("Hi"), assistant("Hello!"), user("A joke?"))
    assert (pair.chosen, pair.rejected) == ("Knock.", "No.")
    plain = one("pairs", row | {"prompt": "Explain this log:\n\nHuman: Hi\n\nAssistant: Hello!"})
    assert [turn["role"] for turn in plain.prompt] == ["user"]


def test_pairs_with_turns_as_helpsteer_marks_them() -> None:
    text = "Hi\n<extra_id_1>Assistant\nHello!\n<extra_id_1>User\nA joke?\nNow."
    row = {"prompt": text, "chosen": "Knock.", "rejected": "No."}
    turns = (user("Hi"), assistant("Hello!"), user("A joke?\nNow."))
    assert one("pairs", row).prompt == turns
    assert one("pairs", row | {"prompt": "<extra_id_1>User\n" + text}).prompt == turns
    assert reason("pairs", row | {"prompt": "Hi\n<extra_id_1>Assistant\nHello!"}) == "prompt_ends_with_assistant"
    plain = "What does <extra_id_1>Assistant mean?"
    assert one("pairs", row | {"prompt": plain}).prompt == (user(plain),)


def test_pairs_with_alpacas_parts_and_a_system_prompt() -> None:
    row = {
        "system": "Be brief.",
        "instruction": "Translate.",
        "input": "chat",
        "history": [["Hi", "Hello!"]],
        "chosen": "cat",
        "rejected": "dog",
    }
    assert one("pairs", row).prompt == (
        system("Be brief."),
        user("Hi"),
        assistant("Hello!"),
        user("Translate.\nchat"),
    )
    assert one("pairs", row | {"input": "", "history": []}).prompt == (system("Be brief."), user("Translate."))
    assert one("pairs", row, {"prompt": "instruction"}) == one("pairs", row)
    assert one("pairs", row, {"prompt": "input"}).prompt[1:] == (user("Hi"), assistant("Hello!"), user("chat"))
    assert reason("pairs", row | {"history": "Hi"}) == "not_messages"


def test_pairs_with_messages() -> None:
    prompt = [system(""), user(" Hi "), assistant("Hello!"), user("A joke?")]
    row = {"prompt": prompt, "chosen": [assistant("Knock.")], "rejected": {"from": "gpt", "value": "No."}}
    pair = one("pairs", row)
    assert pair == PreferencePair((user("Hi"), assistant("Hello!"), user("A joke?")), "Knock.", "No.")  # type: ignore[arg-type]


def test_pairs_with_objects_that_hold_one_text() -> None:
    row = {
        "conversation_input": [user("Hi") | {"language": "English"}],
        "chosen": {"llm_name": "m", "answer": "Hello!"},
        "reject": {"llm_name": "n", "answer": "Go away."},
    }
    assert detect(row) == "pairs"
    assert one("pairs", row) == PreferencePair((user("Hi"),), "Hello!", "Go away.")  # type: ignore[arg-type]
    assert reason("pairs", row | {"chosen": {"answer": "a", "text": "b"}}) == "not_text"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"prompt": ""}, "empty_prompt"),
        ({"prompt": " \n\t"}, "empty_prompt"),
        ({"prompt": []}, "empty_prompt"),
        ({"prompt": [system("")]}, "empty_prompt"),
        ({"prompt": [user("")]}, "empty_prompt"),
        ({"prompt": None}, "not_text"),
        ({"prompt": True}, "not_text"),
        ({"prompt": 5}, "not_text"),
        ({"prompt": ["Q"]}, "not_messages"),
        ({"prompt": [user("Q"), assistant("A")]}, "prompt_ends_with_assistant"),
        ({"prompt": "\n\nHuman: Q\n\nAssistant: Well,"}, "prompt_ends_with_assistant"),
        ({"prompt": [{"role": "narrator", "content": "Q"}]}, "bad_role"),
        ({"prompt": [{"content": "Q"}]}, "bad_role"),
        ({"prompt": [{"role": "user", "content": None}]}, "not_text"),
        ({"chosen": ""}, "empty_answer"),
        ({"chosen": [assistant(" ")]}, "empty_answer"),
        ({"chosen": []}, "empty_answer"),
        ({"chosen": None}, "not_text"),
        ({"chosen": 1.5}, "not_text"),
        ({"chosen": False}, "not_text"),
        ({"chosen": ["4"]}, "not_messages"),
        ({"chosen": {"score": 1}}, "not_text"),
        ({"chosen": [user("4")]}, "different_prompts"),
        ({"chosen": " 5 "}, "identical"),
        ({"chosen": "4\0"}, "bad_text"),
        ({"chosen": "4\ud83d"}, "bad_text"),
        ({"chosen": "4" * 1_000_001}, "too_long"),
        ({"question": "3 + 3?"}, "ambiguous_field"),
        ({"margin": -1}, "negative_margin"),
        ({"margin": float("nan")}, "bad_number"),
        ({"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"}, "whole_dialogue"),
    ],
)
def test_pairs_reject(change: Row, expected: str) -> None:
    assert reason("pairs", {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"} | change) == expected


def test_a_row_without_a_field_is_told_what_it_has() -> None:
    with pytest.raises(Reject) as caught:
        converter(FormatSettings(format="pairs"))({"prompt": "Q", "good": "A", "rejected": "B"})
    assert caught.value.reason == "missing_field"
    assert "chosen" in caught.value.detail and "prompt, good, rejected" in caught.value.detail
    assert reason("pairs", ["Q", "A", "B"]) == "not_object"


def test_the_detail_can_always_be_stored() -> None:
    with pytest.raises(Reject) as caught:
        converter(FormatSettings(format="pairs"))({"\ud83d\0" * 2000: 1})
    assert len(caught.value.detail.encode("utf-8")) < 5000 and "\0" not in caught.value.detail


# Fields


def test_fields_name_paths() -> None:
    row = {
        "data": {"question": "Q"},
        "answers": [{"text": "A"}, {"text": "B"}],
        "strength": "2.5",
        "tags": {"category": "maths"},
        "w": 3,
    }
    fields = {
        "prompt": "data.question",
        "chosen": "answers[0].text",
        "rejected": "answers[-1].text",
        "margin": "strength",
        "subset": "tags.category",
        "weight": "w",
    }
    assert one("pairs", row, fields) == PreferencePair((user("Q"),), "A", "B", 2.5, 3.0, "maths")  # type: ignore[arg-type]
    assert detect(row, fields=fields) == "pairs"
    assert one("pairs", row | {"data.question": "R"}, fields).prompt == (user("R"),)
    assert one("pairs", row, fields | {"prompt": "=Which?"}).prompt == (user("Which?"),)
    with pytest.raises(Reject) as caught:
        converter(FormatSettings(format="pairs", fields=fields | {"margin": "data.margin"}))(row)
    assert caught.value.reason == "missing_field"
    assert "data.margin" in caught.value.detail and "question" in caught.value.detail
    assert reason("pairs", row, fields | {"chosen": "answers[2].text"}) == "missing_field"
    assert reason("pairs", row, fields | {"chosen": "strength.text"}) == "missing_field"
    assert reason("pairs", row | {"w": 0}, fields) == "bad_number"
    assert reason("pairs", row | {"w": True}, fields) == "bad_number"
    assert reason("pairs", row | {"strength": "much"}, fields) == "bad_number"
    assert one("pairs", row, fields | {"subset": "w"}).subset == "3"
    assert one("pairs", row | {"tags": {"category": None}}, fields).subset == ""
    assert reason("pairs", row, fields | {"subset": "data"}) == "not_text"


def test_fields_put_texts_together() -> None:
    row = {"title": "Bottles", "side": {"name": "ban", "n": 2}, "chosen": "A", "rejected": "B"}
    fields = {"prompt": "=On {title}: argue for {side.name} ({side.n})."}
    assert one("pairs", row, fields).prompt == (user("On Bottles: argue for ban (2)."),)
    assert reason("pairs", row, {"prompt": "={body}"}) == "missing_field"
    assert reason("pairs", row, {"prompt": "={side}"}) == "not_text"
    with pytest.raises(UserError, match="not a path"):
        converter(FormatSettings(format="pairs", fields={"prompt": "={a..b}"}))


def test_fields_take_several_values() -> None:
    row = {"q": "Q", "reply 10": "C", "reply 2": "B", "reply 1": "A", "s": [{"v": 1}, {"v": 2}, {"v": 3}]}
    fields = {"prompt": "q", "answers": "reply *", "scores": "s[*].v"}
    assert texts("ranked", row, fields) == [("C", "B"), ("C", "A"), ("B", "A")]


def test_the_margin_may_come_from_two_scores() -> None:
    row = {"prompt": "Q", "chosen": "A", "rejected": "B", "high": 3, "low": -1.5}
    fields = {"chosen_score": "high", "rejected_score": "low"}
    assert one("pairs", row, fields).margin == 4.5
    assert reason("pairs", row | {"high": -2}, fields) == "negative_margin"
    assert reason("pairs", row | {"high": 1e308, "low": -1e308}, fields) == "bad_number"
    assert reason("pairs", row, fields, min_margin=5) == "small_margin"
    assert reason("pairs", row, min_margin=5) == "no_margin"


def test_who_wrote_an_answer_stays_with_it() -> None:
    row = {"prompt": "Q", "chosen": "A", "rejected": "B", "chosen_model": "m1", "rejected_model": "m2", "agree": 0.9}
    assert one("pairs", row).sources == ("m1", "m2")
    assert one("pairs", row | {"agree": 0.2}, {"confidence": "agree"}).sources == ("m2", "m1")
    assert one("pairs", row, {"chosen_source": "prompt", "rejected_source": "chosen"}).sources == ("Q", "A")
    assert one("pairs", row | {"chosen_model": 7}).sources == ("", "m2")
    row = {"prompt": "Q", "response_a": "A", "response_b": "B", "winner": "model_b", "model_a": "m1", "model_b": "m2"}
    pair = one("preference", row)
    assert (pair.chosen, pair.sources) == ("B", ("m2", "m1"))
    answers = [{"text": "A", "score": 1, "model": "m1"}, {"text": "B", "score": 3, "model": "m2"}]
    assert one("ranked", {"prompt": "Q", "answers": answers}).sources == ("m2", "m1")
    reject = reason("ranked", {"prompt": "Q", "answers": answers, "by": ["m1"]}, {"sources": "by"})
    assert reject == "bad_sources"


def test_a_confidence_below_a_half_swaps_the_pair() -> None:
    row = {"prompt": "Q", "chosen": "A", "rejected": "B", "agree": 0.9}
    fields = {"confidence": "agree"}
    assert one("pairs", row, fields) == PreferencePair((user("Q"),), "A", "B", confidence=0.9)  # type: ignore[arg-type]
    assert one("pairs", row).confidence == 1
    pair = one("pairs", row | {"agree": 0.25}, fields)
    assert (pair.chosen, pair.rejected, pair.confidence) == ("B", "A", 0.75)
    assert reason("pairs", row | {"agree": "0.5"}, fields) == "tie"
    assert one("pairs", row | {"agree": 0.5}, fields, ties="keep").confidence == 0.5
    assert reason("pairs", row | {"agree": 2}, fields) == "bad_number"
    assert reason("pairs", row | {"agree": 0.25, "margin": 3}, fields) == "negative_margin"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"format": "pears"}, "did you mean pairs"),
        ({"fields": {"chosn": "a"}}, "did you mean chosen"),
        ({"fields": {"chosen": "a..b"}}, "not a path"),
        ({"fields": {"chosen": ""}}, "not a path"),
        ({"fields": {"chosen": "a[x]"}}, "not a path"),
        ({"fields": {"chosen_score": "a"}}, "together"),
        ({"pairing": "some"}, "best_worst"),
        ({"max_pairs": 0}, "max_pairs"),
        ({"values": {"left": 1}}, "first, second and tie"),
        ({"values": {"signed": "up"}}, "first or second"),
        ({"values": {"start": 2}}, "0 or 1"),
        ({"values": {"first": 1, "second": ["2", 1.0]}}, "1 stands for first and for second"),
        ({"attributes": {"a": "much"}}, "a number"),
        ({"separater": ";"}, "separater"),
    ],
)
def test_a_wrong_setting_is_named(settings: Row, expected: str) -> None:
    with pytest.raises((UserError, ValidationError), match=expected):
        converter(FormatSettings(**{"format": "pairs", **settings}))


# Messages


def test_messages_share_their_prompt() -> None:
    start = [system("Be kind."), user("Hi"), assistant("Hello!"), user("A joke?")]
    row = {"chosen": [*start, assistant("Knock.")], "rejected": [*start, assistant("No.")]}
    assert detect(row) == "messages"
    pair = one("messages", row)
    assert pair.prompt == tuple(start)
    assert (pair.chosen, pair.rejected) == ("Knock.", "No.")
    assert one("messages", row | {"prompt": "Hi"}) == pair  # as UltraFeedback repeats the first question
    assert one("messages", row | {"prompt": start}) == pair
    assert one("messages", {"prompt": start} | {name: row[name][-1:] for name in row}) == pair
    assert one("messages", {name: row[name][1:] for name in row} | {"prompt": start}) == pair
    assert reason("messages", row | {"prompt": "Bye"}) == "different_prompts"
    assert reason("messages", {name: row[name][-1:] for name in row}) == "missing_field"


def test_messages_in_sharegpts_form() -> None:
    row = {
        "conversations": [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "Hi"}],
        "chosen": {"from": "gpt", "value": "Hello!"},
        "rejected": {"from": "gpt", "value": "Go."},
    }
    assert detect(row) == "messages"
    assert one("messages", row) == PreferencePair((system("Be kind."), user("Hi")), "Hello!", "Go.")  # type: ignore[arg-type]
    assert reason("messages", row | {"chosen": {"from": "human", "value": "Hello!"}}) == "bad_role"
    assert reason("messages", row | {"chosen": {"from": "observation", "value": "Hello!"}}) == "bad_role"


def test_messages_with_content_parts() -> None:
    def parts(role: str, *items: Row) -> Row:
        return {"role": role, "content": list(items)}

    first = parts("user", {"type": "text", "text": "Hi "}, {"type": "text", "value": "there"})
    row = {
        "chosen_messages": [first, parts("assistant", {"type": "text", "text": "Hello!"})],
        "rejected_messages": [first, parts("assistant", {"type": "text", "text": "Go."})],
    }
    assert detect(row) == "messages"
    assert one("messages", row) == PreferencePair((user("Hi there"),), "Hello!", "Go.")  # type: ignore[arg-type]
    row["chosen_messages"][0] = parts("user", {"type": "image", "text": "Hi"})
    assert reason("messages", row) == "not_text"


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ([user("Q"), assistant("A")], [user("Q"), assistant("A")], "identical"),
        ([user("Q"), assistant("A")], [user("R"), assistant("B")], "different_prompts"),
        ([system("S"), user("Q"), assistant("A")], [user("Q"), assistant("B")], "different_prompts"),
        ([user("Q"), assistant("A"), user("R")], [user("Q"), assistant("A"), user("R"), assistant("C")], "no_answer"),
        ([user("Q"), assistant("A"), user(""), assistant("C")], [user("Q"), assistant("B")], "empty_answer"),
        ([user("Q")], [user("Q"), assistant("B")], "no_answer"),
        ([user("Q"), assistant("")], [user("Q"), assistant("B")], "empty_answer"),
        ([user("Q"), 3], [user("Q"), assistant("B")], "not_messages"),
    ],
)
def test_messages_reject(chosen: list[Any], rejected: list[Any], expected: str) -> None:
    assert reason("messages", {"chosen": chosen, "rejected": rejected}) == expected


# Any row at all

WORDS = st.text(st.characters(exclude_categories=[]), max_size=5) | st.sampled_from(
    ["\n\nHuman: Q\n\nAssistant: A", "\n\nHuman: Q\n\nAssistant:", "Q", "A", "B", "a", "tie", "1", "user", "gpt"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | WORDS
MESSAGES = st.dictionaries(
    st.sampled_from(["role", "content", "from", "value", "type", "text", "score", "rank"]), SCALARS
)
VALUES = st.recursive(
    SCALARS | MESSAGES, lambda item: st.lists(item, max_size=4) | st.dictionaries(WORDS, item), max_leaves=8
)
KEYS = st.sampled_from([*chain(*SYNONYMS.values()), "answer_a", "answer_b", "score_a", "score_b", "weight", "a"])
MAPPINGS = st.dictionaries(
    st.sampled_from(["prompt", "chosen", "rejected", "answers", "preference", "margin", "weight", "subset"]),
    st.sampled_from(["a", "a[0]", "a[*]", "a[-1].text", "answer*", "=x", "*", "chosen.content", "prompt[0][0]"]),
    max_size=2,
)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(row=st.dictionaries(KEYS | WORDS, VALUES) | VALUES, mapping=MAPPINGS)
def test_whatever_a_row_holds_it_gives_sound_pairs_or_is_rejected(row: Any, mapping: dict[str, str]) -> None:
    found = detect(row)
    assert isinstance(found, str | list) and set([found] if isinstance(found, str) else found) <= {*FORMATS, *GROUPED}
    detect(row, fields=mapping)
    for name, shape in FORMATS.items():
        known = {key: path for key, path in mapping.items() if key in shape.fields}
        for fields, options in ((None, {}), (known, {"values": {"first": 1, "second": "a"}, "separator": ","})):
            try:
                pairs = converter(FormatSettings(format=name, fields=fields or {}, **options))(row)  # type: ignore[arg-type]
            except Reject as reject:
                assert reject.reason.isidentifier() and reject.reason.islower()
                reject.detail.encode("utf-8")
                continue
            assert pairs
            for pair in pairs:
                assert pair.chosen.strip() == pair.chosen != pair.rejected == pair.rejected.strip()
                assert pair.chosen and pair.rejected and pair.prompt
                assert pair.prompt[-1]["role"] != "assistant"
                assert pair.margin is None or 0 <= pair.margin < float("inf")
                assert 0 < pair.weight < float("inf")
                json.dumps([*pair.prompt, pair.chosen, pair.rejected, pair.subset], ensure_ascii=False).encode("utf-8")


def test_twenty_thousand_rows_a_second() -> None:
    rows = [
        {
            "prompt": f"What is {n} + {n}? " * 20,
            "chosen": f" It is {2 * n}. " * 20,
            "rejected": f" Que sé yo, {n}. " * 20,
        }
        for n in range(4000)
    ]
    convert = converter(FormatSettings(format="pairs"))
    best = 0.0
    for _ in range(5):
        start = time.process_time()
        for row in rows:
            convert(row)
        best = max(best, len(rows) / (time.process_time() - start))
    assert best > 20_000


# Strength of preference


@pytest.mark.parametrize(
    ("strength", "values", "expected"),
    [
        (2, {}, ("A", "B", 2.0)),
        (-3, {}, ("B", "A", 3.0)),
        ("-0.5", {}, ("B", "A", 0.5)),
        (2, {"signed": "second"}, ("B", "A", 2.0)),
        (-3, {"signed": "first"}, ("B", "A", 3.0)),
    ],
)
def test_a_signed_strength_says_which_answer_is_better_and_by_how_much(
    strength: float | str, values: dict[str, str], expected: tuple[str, str, float]
) -> None:
    row = {"question": "Q", "one": "A", "other": "B", "how_much": strength}
    fields = {"prompt": "question", "answer_a": "one", "answer_b": "other", "strength": "how_much"}
    for found in (read([row], fields=fields, values=values), [one("preference", row, fields, values=values)]):
        (pair,) = found
        assert (pair.chosen, pair.rejected, pair.margin) == expected


def test_no_strength_is_a_tie_and_other_labels_beside_it_are_an_error() -> None:
    row = {"prompt": "Q", "response_1": "A", "response_2": "B", "grade": 0}
    assert reason("preference", row, {"strength": "grade"}) == "tie"
    assert reason("preference", {**row, "grade": "much"}, {"strength": "grade"}) == "bad_number"
    for wrong in (
        {"fields": {"strength": "grade", "margin": "m"}},
        {"fields": {"strength": "grade", "preference": "p"}},
    ):
        with pytest.raises(ValidationError, match="strength without preference and margin"):
            FormatSettings.model_validate(wrong)
    with pytest.raises(ValidationError, match="strength with no values but signed"):
        FormatSettings.model_validate({"fields": {"strength": "grade"}, "values": {"first": 1, "second": 2}})
