"""Conversations with tools, calls, reasoning and variables are rendered as `apply_chat_template` renders them whole."""

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import trl
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rewardline.tokens.templates import ChatTemplate, fix_date
from rewardline.tokens.tokenizer import load_tokenizer

from support.reward_models import Doors, Json

SHIPPED = Path(trl.__file__).parent / "chat_templates"
IN_CHATML = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
OWN = {
    "strips_thinking": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and not loop.last %}"
        "{{ m.content.split('</think>')[-1].lstrip() }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    ),
    "refuses_system": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}{% for m in messages %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
        "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
        "{% endfor %}"
    ),
    "dates": (
        "<|system|>\nToday is {{ strftime_now('%d %b %Y') }}.\n{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
        "{{ eos_token }}\n{% endfor %}"
    ),
    "merges_roles": (
        "{% set ns = namespace(role='') %}{% for m in messages %}{% if m.role != ns.role %}"
        "{{ '<|end|>' if ns.role }}<|{{ m.role }}|>{% endif %}{% set ns.role = m.role %}\n{{ m.content }}{% endfor %}"
        "<|end|>"
    ),
    "tools_in_system": (
        "<|im_start|>system\n{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
        "{% for tool in tools or [] %}\n{{ tool | tojson }}{% endfor %}<|im_end|>\n"
        "{% for m in messages if m.role != 'system' %}{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>"
        "{{ m.content }}</tool_response><|im_end|>\n{% elif m.tool_calls %}<|im_start|>assistant\n{{ m.content or '' }}"
        "{% for call in m.tool_calls %}<tool_call>{{ call.function.name }}: "
        "{{ call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}"
        "</tool_call>{% endfor %}<|im_end|>\n{% else %}" + IN_CHATML + "{% endif %}{% endfor %}"
    ),
    "thinks_if_asked": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think>\n"
        "{{ m.reasoning_content if enable_thinking is not defined or enable_thinking }}\n</think>\n\n{% endif %}"
        "{{ m.content }}<|im_end|>\n{% endfor %}"
    ),
    "developer_first": (
        "{% if messages[0].role in ['system', 'developer'] %}<|start|>developer\n# {{ messages[0].content }}<|end|>"
        "{% set messages = messages[1:] %}{% endif %}{% for m in messages %}<|start|>{{ m.role }}\n"
        "{{ m.content }}<|end|>{% endfor %}"
    ),
    "instructions": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% elif m.role == 'assistant' %} {{ m.content }}</s>{% else %}[SYS]{{ m.content }}[/SYS]{% endif %}"
        "{% endfor %}"
    ),
}
PUBLISHED = (
    "deepseekv3",
    "gemma3",
    "gemma4",
    "glm4moe",
    "gptoss",
    "lfm2",
    "llama3",
    "llama3_1",
    "nemotron_3_nano",
    "phi3",
    "qwen2_5",
    "qwen3",
    "qwen3_5_think",
)
TOOLS: list[Json] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a place.",
            "parameters": {
                "type": "object",
                "properties": {"unit": {"type": "string", "enum": ["C", "F"]}, "city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
WORDS = st.sampled_from(["Yes.", "No, not at all.", "def f():\n    return 1", "café", "7", '{"a": 1}'])
ARGUMENTS = st.sampled_from([{"unit": "C", "city": "Oslo"}, {"city": "Zürich"}, {}])


def call(arguments: object) -> Json:
    function = {"name": "weather", "arguments": arguments}
    return {"id": "call00001", "type": "function", "function": function}


@st.composite
def conversations(draw: st.DrawFn) -> list[Json]:
    """Turns of a user, an assistant and tools, which may end with any of them."""
    found: list[Json] = []
    if role := draw(st.sampled_from(["", "system", "developer"])):
        found.append({"role": role, "content": draw(WORDS)})
    for _ in range(draw(st.integers(1, 2))):
        found.append({"role": "user", "content": draw(WORDS)})
        if draw(st.booleans()):
            said = draw(st.sampled_from([None, "", "Let me look."]))
            found.append({"role": "assistant", "content": said, "tool_calls": [call(draw(ARGUMENTS))]})
            found.append({"role": "tool", "name": "weather", "tool_call_id": "call00001", "content": draw(WORDS)})
        turn = {"role": "assistant", "content": draw(WORDS)}
        if draw(st.booleans()):
            turn["reasoning_content"] = "Hm, I see."
        found.append(turn)
    match draw(st.sampled_from(["", "", "user", "tool"])):
        case "user":
            found.append({"role": "user", "content": "Thanks!"})
        case "tool":
            found += [{"role": "assistant", "content": None, "tool_calls": [call({"city": "Rome"})]}]
            found += [{"role": "tool", "name": "weather", "tool_call_id": "call00001", "content": "Rain"}]
    return found


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory, base_models: Callable[..., Path]) -> Callable[[str], Doors]:
    root = tmp_path_factory.mktemp("doors")

    @lru_cache
    def make(name: str) -> Doors:
        template = OWN.get(name) or (SHIPPED / f"{name}.jinja").read_text()
        return Doors(base_models("llama"), root / name, template)

    return make


def whole(base: Path, template: str, messages: list[Json], **inputs: Any) -> str:
    """What plain transformers render with the template itself."""
    tokenizer = load_tokenizer(base)
    tools, variables = inputs.get("tools") or None, inputs.get("chat_template_kwargs", {})
    text = tokenizer.apply_chat_template(
        messages, chat_template=fix_date(template), tools=tools, tokenize=False, **variables
    )
    return str(text).rstrip()


@pytest.mark.parametrize("name", [*OWN, *PUBLISHED])
@settings(max_examples=25, deadline=None, phases=[Phase.generate])
@given(messages=conversations(), tools=st.sampled_from([[], TOOLS]), thinks=st.sampled_from([None, True, False]))
def test_the_text_is_that_of_the_whole_conversation(
    doors: Callable[[str], Doors],
    base_models: Callable[..., Path],
    name: str,
    messages: list[Json],
    tools: list[Json],
    thinks: bool | None,
) -> None:
    inputs: Json = {"tools": tools, "chat_template_kwargs": {} if thinks is None else {"enable_thinking": thinks}}
    door = doors(name)
    ids = door.check(messages, **inputs)
    form = door.training._format
    assert isinstance(form, ChatTemplate)
    roles = {message["role"] for message in messages}
    lacking = {role for role in ("tool", "developer") if not getattr(form.abilities, role)}
    if not form.abilities.object_arguments:
        for message in messages:
            for each in message.get("tool_calls", ()):
                each["function"]["arguments"] = json.dumps(each["function"]["arguments"], ensure_ascii=False)
    if ids is None or lacking & roles or (not form.abilities.calls and any("tool_calls" in one for one in messages)):
        return
    end = door.training.ending and "<|end|>"
    text = whole(base_models("llama"), OWN.get(name) or (SHIPPED / f"{name}.jinja").read_text(), messages, **inputs)
    text += "" if text.endswith(end) else end
    assert door.plain(text, add_special_tokens=False)["input_ids"] == ids
