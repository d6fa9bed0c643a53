import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from tokenizers import Encoding, Tokenizer

from rewardline.core.errors import UserError
from rewardline.data.schema import Message
from rewardline.data.turns import Trajectory
from rewardline.tokens.encoder import AnswerTooLongError, ConversationEncoder, EncodedAnswers
from rewardline.tokens.store import split_prefix
from rewardline.tokens.tokenizer import encode_texts, load_tokenizer

CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def turns(*contents: str) -> list[Message]:
    return [{"role": ("user", "assistant")[k % 2], "content": text} for k, text in enumerate(contents)]


def encode(encoder: ConversationEncoder, prompt: list[Message], answers: list[str]) -> EncodedAnswers:
    result = encoder.encode([prompt], [answers])[0]
    assert isinstance(result, EncodedAnswers)
    return result


@pytest.mark.parametrize("template", ["plain", "chat"])
def test_prefix_and_tails_equal_tokenising_complete_conversations(
    base_models: Callable[..., Path], template: str
) -> None:
    tokenizer = load_tokenizer(base_models("llama"))
    if template == "chat":
        tokenizer.chat_template = CHAT
    encoder = ConversationEncoder(tokenizer, max_length=200, template=template)
    prompt, answers = turns("How many are 3 and 4?", "7.", "And 5 and 6?"), ["They are 11.", "They are 12!", "The"]
    sequences = encode(encoder, prompt, answers).sequences
    prefix, tails = split_prefix(sequences)
    for answer, sequence, tail in zip(answers, sequences, tails, strict=True):
        assert sequence[-1] == tokenizer.eos_token_id
        text = tokenizer.decode(sequence[:-1])
        expected = (
            f"Human: How many are 3 and 4?\n\nAssistant: 7.\n\nHuman: And 5 and 6?\n\nAssistant: {answer}"
            if template == "plain"
            else f"<user>How many are 3 and 4?<|end|>\n<assistant>7.<|end|>\n<user>And 5 and 6?<|end|>\n"
            f"<assistant>{answer}"
        )
        assert text == expected
        assert len(tail)
        assert [*prefix, *tail] == sequence.tolist()
    assert len({tail[0] for tail in tails}) > 1, "no longer prefix is shared"


def test_a_chat_template_of_the_users_own_takes_the_place_of_the_tokenizers(base_models: Callable[..., Path]) -> None:
    tokenizer = load_tokenizer(base_models("llama"))
    tokenizer.chat_template = "not this one"
    encoder = ConversationEncoder(tokenizer, max_length=200, chat_template=CHAT)
    assert encoder.template == "chat"
    (sequence,) = encode(encoder, turns("How many are 3 and 4?"), ["They are 7."]).sequences
    assert tokenizer.decode(sequence) == "<user>How many are 3 and 4?<|end|>\n<assistant>They are 7.<|end|>"
    with pytest.raises(UserError, match="chat_template: line 1"):
        ConversationEncoder(tokenizer, max_length=200, chat_template="{% for m in %}")


def test_truncation_drops_the_oldest_turns_and_keeps_answers_and_end(base_models: Callable[..., Path]) -> None:
    tokenizer = load_tokenizer(base_models("llama"))
    encoder = ConversationEncoder(tokenizer, max_length=40, template="plain")
    prompt = [Message(role="system", content="Be kind."), *turns("old " * 30, "older", "How many are 1 and 2?")]
    result = encode(encoder, prompt, ["They are 3.", "They are 4."])
    assert result.truncated_tokens > 0
    for answer, sequence in zip(("They are 3.", "They are 4."), result.sequences, strict=True):
        assert len(sequence) <= 40
        text = tokenizer.decode(sequence)
        assert text == f"System: Be kind.\n\nHuman: How many are 1 and 2?\n\nAssistant: {answer}<|end|>"


def test_truncation_cuts_the_beginning_of_a_turn_that_is_too_long_alone(base_models: Callable[..., Path]) -> None:
    tokenizer = load_tokenizer(base_models("llama"))
    encoder = ConversationEncoder(tokenizer, max_length=30, template="plain")
    result = encode(encoder, turns("word " * 50 + "How many are 1 and 2?"), ["They are 3.", "They are 4."])
    assert {len(sequence) for sequence in result.sequences} <= set(range(24, 31))
    assert all(tokenizer.decode(sequence).startswith("Human: word") for sequence in result.sequences)
    for answer, sequence in zip(("They are 3.", "They are 4."), result.sequences, strict=True):
        assert tokenizer.decode(sequence).endswith(f"How many are 1 and 2?\n\nAssistant: {answer}<|end|>")


def test_answer_that_leaves_no_room_is_named(base_models: Callable[..., Path]) -> None:
    tokenizer = load_tokenizer(base_models("llama"))
    encoder = ConversationEncoder(tokenizer, max_length=20, template="plain")
    results = encoder.encode([turns("a"), turns("b")], [["They are 3. " * 20, "No."], ["No.", "Yes."]])
    assert isinstance(results[0], EncodedAnswers)
    assert {index: error.length for index, error in results[0].too_long.items()} == {0: 102}
    assert tokenizer.decode(results[0].sequences[1]) == "Human: a\n\nAssistant: No.<|end|>"
    assert isinstance(results[1], EncodedAnswers)
    (neither,) = encoder.encode([turns("a")], [["They are 3. " * 20, "They are 4. " * 30]])
    assert isinstance(neither, AnswerTooLongError)


def test_answers_that_begin_alike_are_never_cut(base_models: Callable[..., Path]) -> None:
    tokenizer = load_tokenizer(base_models("llama"))
    encoder = ConversationEncoder(tokenizer, max_length=40, template="plain")
    shared = "They are 3 and 4 and 5 "
    answers = [shared + "not 6.", shared + "not 7.", "No."]
    result = encode(encoder, turns("How many are 1 and 2? " * 9), answers)
    for answer, sequence in zip(answers, result.sequences, strict=True):
        text = tokenizer.decode(sequence)
        assert text.endswith(f"\n\nAssistant: {answer}<|end|>")
        assert text.startswith("Human: ")
        assert tokenizer.decode(sequence[result.answer_start :]).strip() == f"{answer}<|end|>"
    long = [shared * 9 + "6.", shared * 9 + "7."]
    (refused,) = encoder.encode([turns("Is it so?")], [long])
    assert isinstance(refused, AnswerTooLongError)


def test_what_a_chat_template_puts_around_a_turn_stays_when_the_turn_is_cut(base_models: Callable[..., Path]) -> None:
    tokenizer = load_tokenizer(base_models("llama"))
    encoder = ConversationEncoder(tokenizer, max_length=60, chat_template="<s>" + CHAT)
    prompt = [Message(role="system", content="Be kind."), *turns("word " * 60 + "end?")]
    (sequence,) = encode(encoder, prompt, ["They are 3."]).sequences
    text = tokenizer.decode(sequence)
    assert text.startswith("<s><system>Be kind.<|end|>\n<user>word word")
    assert text.endswith("end?<|end|>\n<assistant>They are 3.<|end|>")
    prompt[0]["content"] = "Be kind. " * 30
    text = tokenizer.decode(encode(encoder, prompt, ["They are 3."]).sequences[0])
    assert text.startswith("<s><user>word word"), "a system message that leaves no room goes"


CALL: Message = {"role": "assistant", "content": "<tool_call>", "native": {"tool_calls": [{"name": "add"}]}}
ANSWER = Trajectory(
    [
        {"role": "assistant", "content": "Let me see."},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "They are 3."},
    ]
)


@pytest.mark.parametrize("template", ["plain", "chat"])
def test_a_trajectory_is_never_cut(base_models: Callable[..., Path], template: str) -> None:
    tokenizer = load_tokenizer(base_models("llama"))
    tokenizer.chat_template = CHAT
    prompt = turns("word " * 60, "Yes.", "How many are 1 and 2?")
    whole = encode(ConversationEncoder(tokenizer, max_length=500, template=template), prompt, [ANSWER, "No."])
    encoder = ConversationEncoder(tokenizer, max_length=80, template=template)
    cut = encode(encoder, prompt, [ANSWER, "No."])
    for full, sequence in zip(whole.sequences, cut.sequences, strict=True):
        assert full[whole.answer_start :].tolist() == sequence[cut.answer_start :].tolist()
    texts = [tokenizer.decode(sequence[cut.answer_start :]) for sequence in cut.sequences]
    if template == "plain":
        assert texts == [" Let me see.\n\nHuman: 3\n\nAssistant: They are 3.<|end|>", " No.<|end|>"]
    else:
        assert texts == ["Let me see.<|end|>\n<tool>3<|end|>\n<assistant>They are 3.<|end|>", "No.<|end|>"]
    (refused,) = encoder.encode([prompt], [[Trajectory([*ANSWER.turns * 9])]])
    assert isinstance(refused, AnswerTooLongError)


def test_answers_that_begin_with_a_tools_turn_begin_behind_its_heading(base_models: Callable[..., Path]) -> None:
    tokenizer = load_tokenizer(base_models("llama"))
    prompt = [*turns("Add 1 and 2."), CALL]
    answers = [Trajectory([{"role": "tool", "content": text}, ANSWER.turns[2]]) for text in ("3", "error")]
    for template in ("plain", CHAT):
        kind, chat = ("plain", None) if template == "plain" else ("chat", template)
        encoder = ConversationEncoder(tokenizer, max_length=500, template=kind, chat_template=chat)
        result = encode(encoder, prompt, [*answers])
        heading = "Human:" if template == "plain" else "<tool>"
        assert tokenizer.decode(result.sequences[0][: result.answer_start]).endswith(heading)


def test_the_output_of_a_tool_is_cut_and_its_call_stays(base_models: Callable[..., Path]) -> None:
    tokenizer = load_tokenizer(base_models("llama"))
    template = "{% for m in messages %}{% if m.role == 'tool' and not messages[loop.index0 - 1].tool_calls %}"
    template += "{{ raise_exception('no call') }}{% endif %}<{{ m.role }}>{{ m.content }}{{ m.tool_calls }}{% endfor %}"
    encoder = ConversationEncoder(tokenizer, max_length=120, chat_template=template)
    tool: Message = {"role": "tool", "content": "word " * 200 + "end", "native": {"content": "word " * 200 + "end"}}
    prompt = [*turns("Old?", "Yes.", "Add."), CALL, tool]
    (sequence,) = encode(encoder, prompt, ["They are 3."]).sequences
    text = tokenizer.decode(sequence)
    assert text.startswith("<user>Add.<assistant>[{'name': 'add'}]<tool>word") and "word end<assistant>They" in text
    prompt[2]["content"] = "Add. " * 200
    (refused,) = encoder.encode([prompt], [["They are 3."]])
    assert isinstance(refused, AnswerTooLongError)


def test_a_thousand_turns_are_cut_in_a_moment(base_models: Callable[..., Path]) -> None:
    encoder = ConversationEncoder(load_tokenizer(base_models("llama")), max_length=60, template="plain")
    started = time.process_time()
    result = encode(encoder, turns(*(f"turn {k}" for k in range(2001))), ["They are 3.", "No."])
    assert max(map(len, result.sequences)) <= 60
    assert time.process_time() - started < 5


def test_tokenizer_that_puts_a_token_first_keeps_it_and_it_is_counted(base_models: Callable[..., Path]) -> None:
    """As OPT's: </s> comes first and ends the text."""
    names = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = load_tokenizer(base_models("opt", **names))
    encoder = ConversationEncoder(tokenizer, max_length=30, template="plain", num_padding_at_beginning=1)
    long = encode(encoder, turns("word " * 50), ["They are 3.", "They are 4."])
    short = encode(encoder, turns("a"), ["They are 3.", "They are 4."])
    for sequence in (*long.sequences, *short.sequences):
        positions = np.flatnonzero(sequence == tokenizer.eos_token_id).tolist()
        assert positions == [0, len(sequence) - 1]
    with pytest.raises(UserError, match=r"num_padding_at_beginning is 0.* 1 end or padding"):
        ConversationEncoder(tokenizer, max_length=30, num_padding_at_beginning=0)
    with pytest.raises(UserError, match="num_padding_at_beginning is 1"):
        ConversationEncoder(load_tokenizer(base_models("llama")), max_length=30, num_padding_at_beginning=1)


def test_end_token_written_in_a_text_is_text(base_models: Callable[..., Path]) -> None:
    tokenizer = load_tokenizer(base_models("llama"))
    encoder = ConversationEncoder(tokenizer, max_length=100, template="plain")
    for sequence in encode(encoder, turns("what is <|end|>?"), ["It is <|end|>.", "No."]).sequences:
        assert (sequence == tokenizer.eos_token_id).sum() == 1


def test_bad_choices_are_named(base_models: Callable[..., Path], tmp_path: Path) -> None:
    tokenizer = load_tokenizer(base_models("llama"))
    with pytest.raises(UserError, match="no chat template"):
        ConversationEncoder(tokenizer, max_length=30, template="chat")
    with pytest.raises(UserError, match=r"end_token: '<nope>'"):
        ConversationEncoder(tokenizer, max_length=30, end_token="<nope>")
    with pytest.raises(UserError, match="tokenizer cannot be loaded"):
        load_tokenizer(tmp_path)


def test_texts_are_encoded_in_portions_of_bounded_size(
    base_models: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = load_tokenizer(base_models("llama")).backend_tokenizer
    texts = ["a b " * size for size in (0, 1, 30, 2, 2, 2, 0, 40, 1)]
    expected = [backend.encode(text, add_special_tokens=False).ids for text in texts]
    portions: list[list[str]] = []

    class Watched:
        def encode_batch_fast(self, batch: list[str], add_special_tokens: bool) -> list[Encoding]:
            portions.append(batch)
            return list(backend.encode_batch_fast(batch, add_special_tokens=add_special_tokens))

    monkeypatch.setattr("rewardline.tokens.tokenizer.CHARACTERS_AT_ONCE", 30)
    assert list(encode_texts(cast(Tokenizer, Watched()), texts)) == expected
    assert all(len(portion) == 1 or sum(map(len, portion)) <= 30 for portion in portions)
    assert len(portions) < len(texts)
    assert list(encode_texts(backend, [])) == []
