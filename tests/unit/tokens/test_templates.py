"""Encoding a prompt once for all its answers gives the tokens of the complete conversations, whatever the tokenizer."""

import re
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rewardline.data.schema import Message
from rewardline.tokens.encoder import ConversationEncoder, EncodedAnswers
from rewardline.tokens.templates import ChatTemplate, TemplateRefusedError

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
KINDS = {
    "gpt2": (pre_tokenizers.ByteLevel(add_prefix_space=False), None, True),
    "llama3": (
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), BYTES]),
        None,
        True,
    ),
    "qwen": (
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), BYTES]),
        normalizers.NFC(),
        True,
    ),
    "digits": (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
        None,
        True,
    ),
    "bert": (pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer(), True),
    "spaced": (pre_tokenizers.ByteLevel(add_prefix_space=True), None, False),
    "metaspace": (pre_tokenizers.Metaspace(), None, False),
    "merging": (pre_tokenizers.Split(" ", "merged_with_next"), None, False),
    "nothing": (None, None, False),
    "replacing": (None, normalizers.Sequence([normalizers.Prepend("_"), normalizers.Replace(" ", "_")]), False),
}
CHAT = (
    "{% for m in messages %}{% if m['role'] == 'other' %}{{ raise_exception('no other') }}{% endif %}"
    "<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
BRACKETS = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %} "
    "{{ m['content'] }} {{ eos_token }}{% endif %}{% endfor %}"
)
WORDS = [
    "Human:", "Assistant:", "Sure", "don't", "'s", "1234", "7", "?", "?!", ":", "...", " ", "  ", "\n", "\n\n", "\t",
    "\r\n", "caf\u00e9", "e\u0301", "\u4f60\u597d", "\U0001f600", "<|end|>", "<|start|>assistant", "\u00a0", "a", "The",
    "_", "-",
]  # fmt: skip


@lru_cache
def tokenizer(kind: str, chat: str | None = None) -> PreTrainedTokenizerFast:
    pre, normalizer, _ = KINDS[kind]
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    if pre is not None:
        backend.pre_tokenizer = pre
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.decoder = decoders.ByteLevel()
    texts = [
        f"Human: {a} {b}\n\nAssistant: {b}{a} the and\n\nHuman: {b}\n\nAssistant: Sure {a}"
        for a in WORDS
        for b in WORDS
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<unk>", "<|end|>", "<|start|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", pad_token="<|pad|>")
    made.chat_template = chat
    return made


def text(least: int = 1) -> st.SearchStrategy[str]:
    pieces = st.one_of(st.sampled_from(WORDS), st.text(max_size=3))
    return st.lists(pieces, min_size=least, max_size=8).map("".join).map(str.strip).map(_without_surrogates)


def _without_surrogates(found: str) -> str:
    return re.sub("[\ud800-\udfff\0]", "", found)


CONVERSATIONS = st.tuples(st.lists(text(), min_size=1, max_size=3), st.lists(text(), min_size=1, max_size=3))


def turns(contents: list[str]) -> list[Message]:
    roles = ["user", "assistant"] * len(contents)
    return [
        {"role": role, "content": one} for role, one in zip(roles[(len(contents) + 1) % 2 :], contents, strict=False)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_known_which_tokenizers_cut_words_apart(kind: str) -> None:
    assert ConversationEncoder(tokenizer(kind), max_length=50, template="plain").encodes_prompts_once == KINDS[kind][2]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(CONVERSATIONS)
def test_plain_text_is_encoded_as_complete_conversations_are(kind: str, found: tuple[list[str], list[str]]) -> None:
    contents, answers = found
    made = tokenizer(kind)
    encoder = ConversationEncoder(made, max_length=100_000, template="plain")
    prompt = turns(contents)
    speakers = {"user": "Human", "assistant": "Assistant"}
    head = "".join(f"{speakers[turn['role']]}: {turn['content']}\n\n" for turn in prompt)
    result = encoder.encode([prompt], [answers])[0]
    assert isinstance(result, EncodedAnswers)
    for answer, sequence in zip(answers, result.sequences, strict=True):
        complete = made.backend_tokenizer.encode(f"{head}Assistant: {answer}", add_special_tokens=False)
        assert sequence.tolist() == [*complete.ids, encoder.end_id]
        starts = [k for k, (first, last) in enumerate(complete.offsets) if last > len(head) + len("Assistant:")]
        if starts and kind in ("gpt2", "llama3", "digits"):
            assert result.answer_start <= starts[0]
            assert complete.offsets[result.answer_start][0] >= len(head)


@pytest.mark.parametrize("kind", ["gpt2", "llama3", "metaspace", "nothing"])
@pytest.mark.parametrize("template", [CHAT, BRACKETS])
@settings(max_examples=40, deadline=None)
@given(CONVERSATIONS)
def test_chat_text_is_encoded_as_complete_conversations_are(
    kind: str, template: str, found: tuple[list[str], list[str]]
) -> None:
    contents, answers = found
    made = tokenizer(kind, template)
    encoder = ConversationEncoder(made, max_length=100_000, template="chat")
    assert encoder.encodes_prompts_once == (template == CHAT)
    prompt = turns(contents)
    result = encoder.encode([prompt], [answers])[0]
    assert isinstance(result, EncodedAnswers)
    for answer, sequence in zip(answers, result.sequences, strict=True):
        rendered = made.apply_chat_template([*prompt, {"role": "assistant", "content": answer}], tokenize=False)
        ids = made.backend_tokenizer.encode(str(rendered).rstrip(), add_special_tokens=False).ids
        assert sequence.tolist() == (ids if ids[-1] == encoder.end_id else [*ids, encoder.end_id])


def test_the_prompts_tokens_are_before_the_start_of_the_answer() -> None:
    made = tokenizer("llama3", CHAT)
    encoder = ConversationEncoder(made, max_length=500, template="chat")
    result = encoder.encode([turns(["What is it?"])], [["Sure, it is.", "Sure, it was."]])[0]
    assert isinstance(result, EncodedAnswers)
    for answer, sequence in zip(("Sure, it is.", "Sure, it was."), result.sequences, strict=True):
        assert made.decode(sequence[result.answer_start :]) == f"{answer}<|end|>"
        assert made.decode(sequence[: result.answer_start]).endswith("<|start|>assistant\n")


def test_thoughts_that_a_template_opens_are_no_part_of_the_answer() -> None:
    thinking = CHAT.replace("assistant\\n", "assistant\\n<think>\\n")
    closing = (
        "{% for m in messages %}<|start|>{{ m['role'] }}\n{% if loop.last and m['role'] == 'assistant' %}"
        "<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}<|end|>\n{% endfor %}"
    )
    prompt = turns(["What is it?", "Say more.", "What now?"])
    answers = ["<|start|>assistant\nSure", "<|start|>assistant\nSure not"]
    for template in (thinking, closing):
        made = tokenizer("llama3", template)
        encoder = ConversationEncoder(made, max_length=500, template="chat")
        for some in (answers, answers[:1], ["Sure, it is.", "Sure, it was."]):
            result = encoder.encode([prompt], [some])[0]
            assert isinstance(result, EncodedAnswers)
            for answer, sequence in zip(some, result.sequences, strict=True):
                assert made.decode(sequence[result.answer_start :]) == f"{answer}<|end|>"


def test_tokens_are_the_same_on_every_day() -> None:
    made = tokenizer("gpt2", "{{ strftime_now('%d %b %Y %H:%M:%S') }}" + CHAT)
    text = ChatTemplate(made).render(turns(["a"]), ["b"])
    assert (text.head + text.bodies[0]).startswith("26 Jul 2024 00:00:00<|start|>user\na<|end|>")


def test_a_conversation_that_the_template_refuses_is_an_outcome_of_its_own() -> None:
    made = tokenizer("gpt2", CHAT)
    with pytest.raises(TemplateRefusedError, match="no other"):
        ChatTemplate(made).render([{"role": "other", "content": "x"}], ["a"])
    encoder = ConversationEncoder(made, max_length=50, template="chat")
    refused, fine = encoder.encode([[{"role": "other", "content": "x"}], turns(["a"])], [["a"], ["b"]])
    assert isinstance(refused, TemplateRefusedError)
    assert refused.__traceback__ is None  # it would hold the texts of all conversations
    assert isinstance(fine, EncodedAnswers)
    assert np.array_equal(fine.sequences[0][-1:], [encoder.end_id])
