"""A conversation has the same tokens in training, score.py, serve.py and plain transformers with an exported folder."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import trl
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rewardline.data.schema import Message
from rewardline.tokens.encoder import ConversationEncoder, EncodedAnswers
from rewardline.tokens.settings import TODAY
from rewardline.tokens.templates import fix_date
from rewardline.tokens.tokenizer import load_tokenizer

from support.reward_models import Doors, Json

FOLDER = Path(trl.__file__).parent / "chat_templates"
TEMPLATES = [
    *("cohere", "deepseekv3", "gemma", "gemma3", "glm4moe", "gptoss", "lfm2", "llama3", "llama3_2", "phi3"),
    *("qwen2_5", "qwen3", "qwen3_training"),
]
SPACE = st.text(" \n\t\u00a0\u2028", max_size=4)
WORDS = ["Yes.", "No, not at all.", "def f():\n    return 1", "<think>\nHm.\n</think>\n\nNo.", "caf\u00e9", "7"]
TEXT = st.builds(lambda before, text, after: before + text + after, SPACE, st.sampled_from(WORDS), SPACE)
CONVERSATIONS = st.tuples(
    st.one_of(st.none(), st.tuples(st.sampled_from(["system", "developer"]), st.one_of(TEXT, SPACE))),
    st.lists(st.tuples(TEXT, TEXT), max_size=1),
    st.tuples(st.sampled_from(["user", "tool", "human"]), TEXT),
    TEXT,
    st.booleans(),
)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory, base_models: Callable[..., Path]) -> Callable[..., Doors]:
    root = tmp_path_factory.mktemp("doors")

    @lru_cache
    def make(name: str, **options: Any) -> Doors:
        first = options.pop("first", None)
        base = base_models("llama", **({"bos_token": first} if first else {}))
        template = None if name == "plain" else (FOLDER / f"{name}.jinja").read_text()
        return Doors(base, root / f"{name}-{first}-{options}", template, **options)

    return make


@pytest.mark.parametrize("name", ["plain", *TEMPLATES])
@settings(max_examples=12, deadline=None, phases=[Phase.generate])
@given(found=CONVERSATIONS)
def test_a_conversation_has_the_same_tokens_at_every_door(doors: Callable[..., Doors], name: str, found: Any) -> None:
    system, history, (role, question), answer, in_parts = found
    messages = [{"role": system[0], "content": system[1]}] if system else []
    for one, two in history:
        messages += [{"role": "user", "content": one}, {"role": "assistant", "content": two}]
    parts = [{"type": "text", "text": question[:2]}, {"type": "input_text", "text": question[2:]}]
    content = parts if in_parts else question
    messages += [{"role": role, "content": content}, {"role": "assistant", "content": answer}]
    doors(name).check(messages)


@pytest.mark.parametrize("name", ["plain", "qwen2_5"])
def test_tool_calls_are_text_at_every_door(doors: Callable[..., Doors], name: str) -> None:
    function = {"name": "add", "arguments": {"numbers": [1, 2.5, None], "unit": "\u00e9"}}
    calls: list[Json] = [
        {"content": None, "tool_calls": [{"type": "function", "function": function}, {"function": {"name": "end"}}]},
        {"content": " Well. \n", "function_call": function},
        {"content": None, "tool_call": {"id": "c1", "function": function}},
        {"role": "tool_call", "content": "", "text": "Well.", "tool_call": function},
    ]
    for call in calls:
        turns: list[Json] = [{"role": "user", "content": "So?"}, {"role": "assistant", **call}]
        doors(name).check([*turns, {"role": "tool", "content": "3.5"}, {"role": "assistant", "content": "3.5"}])
    as_text = {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": "{}"}}]}
    with pytest.raises(Exception, match="arguments of a tool call that are text"):
        doors(name).plain.apply_chat_template([as_text])
    for spelled in ({"tool_calls": "[]"}, {"tool_calls": ["{}"]}, {"function_call": "{}"}, {"role": "function_call"}):
        with pytest.raises(Exception, match=r"tool_calls that are text|arguments of a tool call that are text"):
            doors(name).plain.apply_chat_template([{"role": "assistant", "content": "{}", **spelled}])


@pytest.mark.parametrize(
    "block",
    [{"type": "tool_use", "text": "A"}, {"functionCall": {}}, {"text": "A", "thought": True}, {"type": "image"}],
)
def test_blocks_that_transformers_do_not_read_are_refused(doors: Callable[..., Doors], block: Json) -> None:
    with pytest.raises(Exception, match="text"):
        doors("plain").plain.apply_chat_template([{"role": "assistant", "content": [block]}])


@pytest.mark.parametrize("name", ["plain", "qwen2_5"])
@pytest.mark.parametrize("options", [{"first": "<s>"}, {"end_token": "<|pad|>"}])
def test_leading_and_end_tokens_are_known_at_every_door(doors: Callable[..., Doors], name: str, options: Json) -> None:
    if "end_token" in options:
        options = {"end_token": "?"}  # no special token of the base model
    doors(name, **options).check([{"role": "user", "content": "So? "}, {"role": "assistant", "content": "Yes. "}])


def test_a_text_may_begin_with_the_token_that_ends_it(base_models: Callable[..., Path], tmp_path: Path) -> None:
    template = "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}{% endfor %}"
    doors = Doors(base_models("llama", bos_token="<|end|>"), tmp_path / "model", template)
    ids = doors.check([{"role": "user", "content": "So?"}, {"role": "assistant", "content": "Yes."}])
    assert ids and ids[0] == ids[-1]


def test_an_exported_template_is_not_wrapped_again(base_models: Callable[..., Path]) -> None:
    cases: list[Json] = [
        {"template": "plain"},
        {"chat_template": "{{ messages[0].content }}{{ messages[1].content }}"},
    ]
    for options in cases:
        tokenizer = load_tokenizer(base_models("llama"))
        first = ConversationEncoder(tokenizer, max_length=50, **options)
        tokenizer.chat_template = first.export_template()
        again = ConversationEncoder(tokenizer, max_length=50)
        assert again.template == first.template
        assert again.export_template() == tokenizer.chat_template


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
        ('{{ strftime_now( "%-d/%-m" ) }}', "26/7"),
        (
            "{% if strftime_now is defined %}{% set f = '%-d. %B, %j%%' %}{{ strftime_now(f) }}{% endif %}",
            "26. July, 208%",
        ),
    ],
)
def test_no_date_is_left_to_the_day(base_models: Callable[..., Path], template: str, expected: str) -> None:
    from jinja2 import Environment

    fixed = fix_date(template)
    assert "strftime_now" not in fixed
    assert Environment().from_string(fixed).render().replace("%%", "%") == expected
    tokenizer = load_tokenizer(base_models("llama"))
    tokenizer.chat_template = {"default": template + "{{ messages[-1].content }}", "tool_use": "?"}
    exported = ConversationEncoder(tokenizer, max_length=50).export_template()
    assert exported is not None and "strftime_now" not in exported
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    text = tokenizer.apply_chat_template(messages, chat_template=exported, tokenize=False)
    assert text.replace("%%", "%") == f"{expected}b<|end|>"
    assert TODAY.strftime("%d %b %Y") == "26 Jul 2024"


def test_what_a_template_leaves_out_is_known(base_models: Callable[..., Path]) -> None:
    template = (
        "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content.split('</think>')[-1] }}{% endfor %}"
    )
    encoder = ConversationEncoder(load_tokenizer(base_models("llama")), max_length=100, chat_template=template)
    system: Message = {"role": "system", "content": "Be brief."}
    question: Message = {"role": "user", "content": "Why?"}
    answers = ["<think>Hm.</think>So.", "No."]
    for prompt, lost in (([question], False), ([system, question], True)):
        (encoded,) = encoder.encode([prompt], [answers])
        assert isinstance(encoded, EncodedAnswers)
        assert set(encoded.changed) == {0}
        assert encoded.prompt_changed == lost
