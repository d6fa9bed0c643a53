"""A format that fits by the names of columns is not chosen where their content says that it is something else."""

import re
from typing import Any

import pytest

from rewardline.data.conversation import Reject
from rewardline.data.formats.detect import choose
from rewardline.data.formats.plausibility import remarks, unread_texts
from rewardline.data.formats.registry import converter
from rewardline.data.formats.settings import FormatSettings

from support.formats import asked_for, read
from support.shapes import Row, talk

THINGS = ["colour", "fruit", "river", "metal", "bird", "planet"]
Q = [f"Name a {thing}." for thing in THINGS]
GOOD = [
    "Red is a colour.",
    "An apple is a fruit.",
    "The Nile is a river.",
    "Iron is a metal.",
    "A wren is a bird.",
    "Mars!",
]
BAD = ["Table is one.", "A shoe maybe.", "Ask later.", "Wood, I guess.", "A dog?", "The Moon, no?"]


def rows(**columns: list[Any]) -> list[Row]:
    """Rows of these columns, which are repeated to the length of the questions."""
    return [{key.replace("__", " "): values[n % len(values)] for key, values in columns.items()} for n in range(len(Q))]


def said(records: list[Row], **settings: Any) -> str:
    """What the user is told of rows that are read."""
    chosen, explanation = choose(records, FormatSettings(**settings))
    assert chosen, explanation
    return "\n".join(remarks(records, chosen))


def chosen_texts(records: list[Row], **settings: Any) -> list[str]:
    return [pair.chosen for pair in read(records, **settings)]


# Names and ids


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ([f"ans_{n}a" for n in range(6)], [f"ans_{n}b" for n in range(6)]),
        ([f"3f2b8c1e-{n}a" for n in range(6)], [f"77aa01d2-{n}b" for n in range(6)]),
        ([str(10400 + n) for n in range(6)], [str(20400 + n) for n in range(6)]),
        (["gpt-4", "claude-2", "vicuna-13b"], ["meta-llama/Llama-2", "gpt-4", "gpt-4"]),
        (["alpha", "beta", "gamma"], ["beta", "gamma", "alpha"]),
        (["Claude 2", "GPT 4"], ["GPT 4", "Claude 2"]),
        (["yes", "no"], ["no", "yes"]),
    ],
)
def test_names_and_ids_are_not_taken_for_answers(good: list[str], bad: list[str]) -> None:
    shapes: list[tuple[list[Row], Row]] = [
        (rows(prompt=Q, chosen=good, rejected=bad), {"format": "pairs"}),
        (rows(question=Q, winner=good, loser=bad), {"format": "pairs"}),
        (rows(prompt=Q, answer_a=good, answer_b=bad, winner=["a", "b"]), {"format": "preference"}),
        (rows(prompt=Q, chosen=[[text] for text in good], rejected=[[text] for text in bad]), {"format": "good_bad"}),
    ]
    for records, confirmed in shapes:
        message = asked_for(records)
        assert (
            any(text in message for text in (*good, *bad)) and "join" in message and str(confirmed["format"]) in message
        )
        assert len(read(records, **confirmed)) == 6


def test_ids_of_prompts_and_of_single_answers() -> None:
    assert "its prompts look like ids (q_0, q_1, q_2)" in asked_for(
        rows(prompt=[f"q_{n}" for n in range(6)], chosen=GOOD, rejected=BAD)
    )
    single = [
        {"prompt": q, "completion": f"out-{n}{side}", "label": side == "a"} for n, q in enumerate(Q) for side in "ab"
    ]
    assert "its answers look like ids or names (out-0a" in asked_for(single)


def test_short_answers_that_differ_are_answers() -> None:
    assert len(read(rows(prompt=Q, chosen=["4", "9", "16", "25", "36", "49"], rejected=["5", "7", "8", "10"]))) == 6
    assert len(read(rows(prompt=Q, chosen=["Paris", "Rome", "Oslo", "Bern", "Lima", "Bonn"], rejected=["Nice"]))) == 6
    assert len(read(rows(prompt=Q, chosen=GOOD, rejected=["I cannot help with that."]))) == 6
    assert len(read(rows(prompt=Q, chosen=["A", "B"], rejected=["C", "A"]))) == 6  # of a multiple choice


def test_names_of_columns_are_led_to_the_columns() -> None:
    records = rows(question=Q, winner=["alpha", "beta"], loser=["beta", "alpha"], alpha_answer=GOOD, beta_answer=BAD)
    message = asked_for(records)
    fields = {"answer_a": "alpha_answer", "answer_b": "beta_answer", "preference": "winner"}
    assert all(f"{name}: {path}" in message for name, path in fields.items())
    assert "values: {first: alpha, second: beta}" in message
    pairs = read(records, format="preference", fields=fields, values={"first": "alpha", "second": "beta"})
    assert [pair.chosen for pair in pairs] == [(GOOD, BAD)[n % 2][n] for n in range(6)]


# System prompts


@pytest.mark.parametrize(
    "names", [["online-A", "online-B"], ["alpha", "beta"], ["GPT 4", "Claude 2"], ["model-1"], ["GPT-4 (March 2024)"]]
)
def test_names_of_systems_are_no_system_prompts(names: list[str]) -> None:
    records = [
        {"source": q, "target": text, "system": names[n % len(names)], "score": 4 - n}
        for q, *texts in zip(Q, GOOD, BAD, strict=True)
        for n, text in enumerate(texts)
    ]
    fields = {"prompt": "source", "answer": "target", "score": "score"}
    for settings in ({}, {"format": "labelled"}):
        pairs = read(records, fields=fields, **settings)
        assert [pair.chosen for pair in pairs] == GOOD and all(len(pair.prompt) == 1 for pair in pairs)
        assert names[0] in said(records, fields=fields, **settings)
    for system in (["gpt-4"], ["Claude 2", "Llama 3 70B Instruct"], ["o1 (high)", "GPT-4 (March 2024)"]):
        pairs_of_rows = read(rows(prompt=Q, system=system, chosen=GOOD, rejected=BAD))
        assert all(turn["role"] == "user" for pair in pairs_of_rows for turn in pair.prompt)


@pytest.mark.parametrize(
    "system",
    [
        ["Be brief."],
        ["You are a pirate.", "You are a poet."],
        ["S"],
        ["", "Be kind!"],
        ["Answer in 3 words", "USE 2 LINES"],
    ],
)
def test_system_prompts_stay(system: list[str]) -> None:
    pairs = read(rows(prompt=Q, system=system, chosen=GOOD, rejected=BAD))
    assert [pair.prompt[0]["content"] for pair in pairs if pair.prompt[0]["role"] == "system"] == [
        system[n % len(system)] for n in range(6) if system[n % len(system)]
    ]
    named = read(rows(prompt=Q, system=["gpt-4"], chosen=GOOD, rejected=BAD), fields={"system": "system"})
    assert named[0].prompt[0] == {"role": "system", "content": "gpt-4"}


# Lists


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        ({}, ("chosen", "rejected")),
        ({}, ("accepted", "worse")),
        ({}, ("correct", "incorrect")),
        (
            {"fields": {"chosen": "original_process", "rejected": "modified_process"}},
            ("original_process", "modified_process"),
        ),
    ],
)
def test_lists_may_be_the_steps_of_one_answer(settings: Row, keys: tuple[str, str]) -> None:
    good = [[f"First {n}*2={2 * n}.", f"Then {2 * n}+{n}={3 * n}.", f"The answer is {3 * n}."] for n in range(6)]
    bad = [["First 1+1=2.", f"Then 2*{n}={2 * n}."] for n in range(6)]
    records = [{"question": q, keys[0]: one, keys[1]: two} for q, one, two in zip(Q, good, bad, strict=True)]
    message = asked_for(records, **settings)
    assert f"good: {keys[0]}, bad: {keys[1]}" in message and f'"={{{keys[0]}}}"' in message
    assert len(read(records, format="good_bad", fields={"good": keys[0], "bad": keys[1]})) == 6 * 6
    joined = read(records, fields={"chosen": f"={{{keys[0]}}}", "rejected": f"={{{keys[1]}}}"})
    assert [pair.chosen for pair in joined] == ["\n".join(steps) for steps in good]


def test_columns_may_be_listed() -> None:
    records = [
        {"doc": q, "alpha": one, "beta": two, "grade-alpha": 5, "grade-beta": n % 3}
        for n, (q, one, two) in enumerate(zip(Q, GOOD, BAD, strict=True))
    ]
    listed: Row = {"prompt": "doc", "answers": ["alpha", "beta"], "scores": ["grade-alpha", "grade-beta"]}
    assert chosen_texts(records, fields=listed) == GOOD
    message = asked_for(records, fields={"prompt": "doc", "answers": "*a", "scores": "grade-*"})
    assert "answers has 4 and scores 2" in message and "alpha, beta" in message
    assert FormatSettings(fields=listed).fields["answers"] == "[alpha, beta]"


# Labels


@pytest.mark.parametrize("key", ["preference_strength", "overall_preference", "degree", "confidence_level", "strength"])
@pytest.mark.parametrize("stem", ["response", "response_", "response ", "output_"])
def test_a_strength_without_a_sign_is_no_number_of_an_answer(key: str, stem: str) -> None:
    records = [
        {"prompt": q, f"{stem}1": one, f"{stem}2": two, key: n % 2 + 1}
        for n, (q, one, two) in enumerate(zip(Q, GOOD, BAD, strict=True))
    ]
    message = asked_for(records, fields={"preference": key})
    assert "holds (1, 2)" in message and "{signed: first}" in message
    assert chosen_texts(records, fields={"preference": key}, values={"signed": "first"}) == GOOD


@pytest.mark.parametrize("ends", [(" 1", " 2"), (" A", " B"), ("-1", "-2"), ("_1", "_2"), (" 0", " 1"), ("A", "B")])
@pytest.mark.parametrize("stem", ["response", "answer", "output"])
def test_answers_are_numbered_in_many_ways(stem: str, ends: tuple[str, str]) -> None:
    records = [
        {"scenario": "x", "label": n % 2, "prompt": q, stem + ends[0]: one, stem + ends[1]: two}
        for n, (q, one, two) in enumerate(zip(Q, GOOD, BAD, strict=True))
    ]
    assert "for what label holds (0, 1)" in asked_for(records)
    assert len(read(records, values={"first": 0, "second": 1})) == 6


def test_words_that_are_not_understood_are_listed() -> None:
    records = rows(query=Q, ours_text=GOOD, reference_text=BAD, preferred=["ours", "reference"])
    fields = {"prompt": "query", "answer_a": "ours_text", "answer_b": "reference_text", "preference": "preferred"}
    assert "for what preferred holds (ours, reference)" in asked_for(records, fields=fields)
    assert len(read(records, fields=fields, values={"first": "ours", "second": "reference"})) == 6
    single = [
        {"prompt": q, "completion": text, "final_label": label}
        for q, *texts in zip(Q, GOOD, BAD, strict=True)
        for text, label in zip(texts, ("1_full", "2_refusal"), strict=True)
    ]
    for settings in ({}, {"format": "labelled"}):
        message = asked_for(single, fields={"label": "final_label"}, **settings)
        assert "values: {good: ..., bad: ...}, for what final_label holds (1_full, 2_refusal)" in message
    values = {"good": "1_full", "bad": "2_refusal"}
    assert chosen_texts(single, fields={"label": "final_label"}, values=values) == GOOD


@pytest.mark.parametrize("blank", ["", None, "nan", "N/A"])
def test_rows_without_a_label_do_not_hide_the_others(blank: object) -> None:
    records = rows(question=Q, answer_1=GOOD, answer_2=BAD, winner=["answer_1", blank])
    assert "`where: {winner: [answer_1]}`" in said(records)
    settings, _ = choose(records, FormatSettings())
    assert settings and [pair.chosen for pair in converter(settings)(records[0])] == GOOD[:1]
    with pytest.raises(Reject, match="no_preference"):
        converter(settings)(records[1])


# Numbers


@pytest.mark.parametrize("key", ["", "Unnamed: 0", "idx", "index", "row", "turn", "case"])
def test_numbers_of_rows_are_no_scores(key: str) -> None:
    records = [{key: n, "instruction": q, "answer": text} for n, (q, text) in enumerate(zip(Q, GOOD, strict=True))]
    assert "score" not in asked_for(records)
    if key != "":
        return
    compared = [
        {key: n, "question": q, "first_text": one, "second_text": two, "better": ("one", "two")[n % 2], "share": 0.9}
        for n, (q, one, two) in enumerate(zip(Q, GOOD, BAD, strict=True))
    ]
    fields = {"prompt": "question", "answer_a": "first_text", "answer_b": "second_text"}
    pairs = read(compared, fields={**fields, "preference": "better"}, values={"first": "one", "second": "two"})
    assert [(pair.chosen, pair.margin) for pair in pairs] == [((GOOD, BAD)[n % 2][n], None) for n in range(6)]
    compared = [{name: value for name, value in row.items() if name != "better"} for row in compared]
    shares = read(compared, format="preference", fields={**fields, "confidence": "share"})
    assert [(pair.chosen, pair.confidence) for pair in shares] == [(text, 0.9) for text in GOOD]


def test_lists_of_ratings_are_offered_as_scores() -> None:
    records = [{"prompt": "Q", "response": text, "marks": [n, n]} for n, text in enumerate(GOOD)]
    assert "fields: {score: marks}" in asked_for(records)
    assert len(read(records, fields={"score": "marks"})) == 15


# Rows without a prompt


@pytest.mark.parametrize(
    "columns",
    [
        {"answer_a": GOOD, "answer_b": BAD, "winner": ["a"]},
        {"answer_a": GOOD, "answer_b": BAD, "score_a": [2], "score_b": [1]},
        {"responses": [[one, two] for one, two in zip(GOOD, BAD, strict=True)], "scores": [[2, 1]]},
        {"chosen": GOOD, "rejected": BAD},
    ],
)
def test_rows_that_lack_only_a_prompt_ask_for_it(columns: dict[str, list[Any]]) -> None:
    assert 'fields: {prompt: "=..."}' in asked_for(rows(**columns))
    assert chosen_texts(rows(**columns), fields={"prompt": "=Which is true?"}) == GOOD
    both = rows(context=["A story."], question=Q, **columns)
    assert 'fields: {prompt: "={context}\\n{question}"}' in asked_for(both)


def test_a_prompt_and_a_code_are_asked_for_together() -> None:
    message = asked_for(rows(answer_a=GOOD, answer_b=BAD, winner=[0, 1]))
    assert "for what winner holds (0, 1) and fields: {prompt: ...}" in message


# Several rows of one pair


def test_votes_in_rows_of_their_own() -> None:
    votes = [
        {"question": q, "answer1": one, "answer2": two, "better": f"answer{vote}"}
        for (q, one, two), cast in zip(zip(Q, GOOD, BAD, strict=True), ["112", "111"] * 3, strict=True)
        for vote in cast
    ]
    pairs = read(votes, fields={"preference": "better"})
    assert [pair.chosen for pair in pairs] == GOOD
    assert {round(pair.confidence, 2) for pair in pairs} == {0.67, 1.0}
    once = [*votes[3:6:3], *votes[0:3:2], *votes[6::3]]  # a single disagreement among many pairs
    assert "`format: votes`" in said(once, fields={"preference": "better"})
    contradicting = [{"prompt": Q[0], "chosen": a, "rejected": b} for a, b in ((GOOD[0], BAD[0]), (BAD[0], GOOD[0]))]
    assert "`format: votes`" in said(contradicting)
    with_ties = [{**votes[0], "better": label} for label in ("answer1", "answer1", "tie")]
    assert [pair.confidence for pair in read(with_ties, fields={"preference": "better"})] == [pytest.approx(5 / 6)]


def test_raters_with_scales_of_their_own_are_not_averaged() -> None:
    def rated(good: tuple[int, int], bad: tuple[int, int]) -> list[Row]:
        return [
            {"prompt": q, "response": text, "annotator": name, "score": score}
            for q, one, two in zip(Q, GOOD, BAD, strict=True)
            for text, scores in ((one, good), (two, bad))
            for name, score in zip(("r1", "r2"), scores, strict=True)
        ]

    message = asked_for(rated((5, 60), (3, 90)), fields={"score": "score"})
    assert "annotator r1 gives scores from 3 to 5, r2 from 60 to 90" in message and "{group: annotator}" in message
    apart = read(rated((5, 60), (3, 90)), fields={"score": "score", "group": "annotator"})
    assert sorted(pair.chosen for pair in apart) == sorted(GOOD + BAD)
    assert len(read(rated((2, 5), (1, 4)), fields={"score": "score"})) == 6, "who is lenient is on the same scale"


def test_answers_that_differ_in_kind_are_pointed_out() -> None:
    records = [
        {"source": q, "lang": lang, "translation": f"{lang} {text}", "score": score}
        for q, text in zip(Q, GOOD, strict=True)
        for lang, score in (("de", 0.9), ("fr", 0.5))
    ]
    fields = {"prompt": "source", "answer": "translation", "score": "score"}
    assert "differ in lang (de, fr); `fields: {group: lang}`" in said(records, fields=fields)
    models = [{"model" if name == "lang" else name: value for name, value in row.items()} for row in records]
    assert "differ" not in said(models, fields=fields)


# What is not read


def test_a_question_beside_a_context_is_not_lost() -> None:
    passages = [f"Passage {n}." for n in range(6)]
    both = asked_for(rows(context=passages, prompt=Q, chosen=GOOD, rejected=BAD))
    assert 'fields: {prompt: "={context}\\n{prompt}"}' in both
    records = rows(context=passages, question_text=Q, chosen=GOOD, rejected=BAD)
    assert 'fields: {prompt: "={context}\\n{question_text}"}' in asked_for(records)
    pairs = read(records, fields={"prompt": "={context}\n{question_text}"})
    assert pairs[0].prompt[0]["content"] == "Passage 0.\nName a colour."


def test_columns_that_are_not_read_are_named() -> None:
    records = rows(prompt=Q, chosen=GOOD, rejected=BAD, passage=[f"Passage {n}." for n in range(6)], kind=["x"])
    settings, _ = choose(records, FormatSettings())
    assert settings and unread_texts(records, settings) == ["passage"]
    transcripts = rows(
        chosen=[f"\n\nHuman: {q}\n\nAssistant: Yes." for q in Q], rejected=["\n\nHuman: Hi\n\nAssistant: No."]
    )
    assert unread_texts(transcripts, FormatSettings(format="transcript")) == []
    media = rows(
        prompt=[f"<image>{q}" for q in Q], images=[["0.png"]], tools=['[{"name":"weather"}]'], chosen=GOOD, rejected=BAD
    )
    assert "images are not read" in said(media) and "tools" not in said(media)
    media = [{**record, "tools": "weather: tells it"} for record in media]
    assert "images and tools are not read" in said(media) and "{system: tools}" in said(media)
    assert "tools" not in said(media, fields={"system": "tools"})


def test_parts_of_messages_that_are_not_read_are_named() -> None:
    answers: list[Row] = [{"role": "assistant", "content": text, "name": "Bob", "x": None} for text in GOOD + BAD]
    records = rows(prompt=Q, chosen=answers[:6], rejected=answers[6:])
    assert "not read" not in said(records)
    for answer in answers:
        answer["reasoning_content"] = "Hm, let me see."
    assert "not read" not in said(records)
    for answer in answers:
        answer["notes"] = "Hm, let me see."
    assert "messages have notes, which is not read" in said(records)


def test_pairs_without_a_prompt_are_asked_for_one() -> None:
    for names in (("chosen", "rejected"), ("good", "bad")):
        records = [dict(zip(names, pair, strict=True)) for pair in zip(GOOD, BAD, strict=True)]
        assert 'fields: {prompt: "=..."}' in asked_for(records)


def test_each_candidate_says_what_makes_it_certain() -> None:
    talks = [[f"Human: {q}\n\nAssistant: {text}" for q, text in zip(Q, texts, strict=True)] for texts in (GOOD, BAD)]
    records = rows(prompt=["Which is better?"], chosen=talks[0], rejected=talks[1])
    assert "pairs (set format: pairs); transcript (set format: transcript)" in asked_for(records)


# Conversations


def test_conversations_that_rows_judge_in_part_are_led_to_the_judged_answers() -> None:
    records = [
        {
            "winner": "model_a",
            "turn": 1,
            "conversation_a": talk(q, one, "Sure?", "Yes."),
            "conversation_b": talk(q, two, "Sure?", "No."),
        }
        for q, one, two in zip(Q, GOOD, BAD, strict=True)
    ]
    message = asked_for(records)
    path = "conversation_a[0].content", "conversation_a[1].content", "conversation_b[1].content"
    assert all(f'"{each}"' in message for each in path) and "where: {turn: 1}" in message
    fields = dict(zip(("prompt", "answer_a", "answer_b"), path, strict=True))
    assert chosen_texts(records, format="preference", fields=fields) == GOOD
    whole = [{**row, "turn": 2} for row in records]
    expected = [f"{text}\n\nHuman: Sure?\n\nAssistant: Yes." for text in GOOD]
    assert [pair.chosen for pair in read(whole)] == expected
    sides = [{"turn": 1, "chosen": row["conversation_a"], "rejected": row["conversation_b"]} for row in records]
    assert 'chosen: "chosen[1].content"' in asked_for(sides)
    fields = {"prompt": "chosen[0].content", "chosen": "chosen[1].content", "rejected": "rejected[1].content"}
    assert chosen_texts(sides, format="pairs", fields=fields) == GOOD
    for row in sides:
        del row["turn"]
    assert [pair.chosen for pair in read(sides)] == expected


CHATML = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
LLAMA3 = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)
ZEPHYR = "<|system|>\nBe brief.</s>\n<|user|>\n{}</s>\n<|assistant|>\n"
PHI4 = CHATML.replace("<|im_end|>\n", "<|im_end|>").replace("\n", "<|im_sep|>")
LLAMA2 = "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n{} [/INST] "


@pytest.mark.parametrize(
    ("template", "end"),
    [(CHATML, "<|im_end|>\n"), (LLAMA3, "<|eot_id|>"), (ZEPHYR, "</s>"), (PHI4, "<|im_end|>"), (LLAMA2, " </s>")],
    ids=["ChatML", "Llama 3", "Zephyr", "Phi 4", "Llama 2"],
)
def test_rendered_templates_become_messages_again(template: str, end: str) -> None:
    prompts = [template.format(q) for q in Q]
    apart = rows(prompt=prompts, chosen=[text + end for text in GOOD], rejected=[text + end for text in BAD])
    whole = [{side: row["prompt"] + row[side] for side in ("chosen", "rejected")} for row in apart]
    with_prompt = [{"prompt": row["prompt"]} | both for row, both in zip(apart, whole, strict=True)]
    compared = [{"answer_a": row["rejected"], "answer_b": row["chosen"], "winner": "b"} for row in whole]
    named = [
        {"prompt": row["prompt"], "answer_a": row["chosen"], "answer_b": row["rejected"], "winner": "a"}
        for row in apart
    ]
    for records in (apart, whole, with_prompt, compared, named):
        pairs = read(records)
        assert [[turn["content"] for turn in pair.prompt] for pair in pairs] == [["Be brief.", q] for q in Q]
        assert [(pair.chosen, pair.rejected) for pair in pairs] == list(zip(GOOD, BAD, strict=True))
        assert "markers" not in said(records)


def test_a_rendered_prompt_may_leave_thinking_out() -> None:
    prompts = [f"{CHATML.format(q)}<think>\n\n</think>\n\n" for q in Q]
    pairs = read(rows(prompt=prompts, chosen=GOOD, rejected=BAD))
    assert [[turn["content"] for turn in pair.prompt] for pair in pairs] == [["Be brief.", q] for q in Q]


def test_markers_that_stay_are_pointed_out() -> None:
    for prompt in (
        "### Instruction:\n{}\n\n### Response:\n",
        "A chat. USER: {} ASSISTANT:",
        "<\uff5cUser\uff5c>{}<\uff5cAssistant\uff5c>",
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{}",
        "In ChatML, <|im_start|>user is? {}",
    ):
        assert "markers of a chat template" in said(
            rows(prompt=[prompt.format(q) for q in Q], chosen=GOOD, rejected=BAD)
        )
    long = read(
        rows(
            prompt=[
                "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n<start_of_turn>user\nQ?<end_of_turn>\n<start_of_turn>model\n"
            ],
            chosen=GOOD,
            rejected=BAD,
        )
    )
    assert [(turn["role"], turn["content"]) for turn in long[0].prompt] == [
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Q?"),
    ]


def test_tool_calls_are_part_of_the_turns() -> None:
    def call(city: str) -> Row:
        return {"id": "1", "type": "function", "function": {"name": "weather", "arguments": f'{{"city":"{city}"}}'}}

    asked: list[Row] = [{"role": "user", "content": "Weather in Bern?"}]
    asked += [
        {"role": "assistant", "content": None, "tool_calls": [call("Bern")]},
        {"role": "tool", "content": "clear"},
    ]
    sides = {
        side: [{"role": "assistant", "content": None, "tool_calls": [call(city)]}]
        for side, city in (("chosen", "Bern"), ("rejected", "Rome"))
    }
    (pair,) = read([{"messages": asked, **sides}])
    assert pair.prompt[1]["content"] == '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>'
    assert '"Bern"' in pair.chosen and '"Rome"' in pair.rejected
    old = {"role": "assistant", "content": "Let me look.", "function_call": {"name": "weather", "arguments": "no JSON"}}
    (pair,) = read([{"prompt": "Q", "chosen": [old], "rejected": [{"role": "assistant", "content": "No."}]}])
    assert pair.chosen == 'Let me look.\n<tool_call>\n{"name": "weather", "arguments": "no JSON"}\n</tool_call>'
    with pytest.raises(Reject, match="has no name"):
        converter(FormatSettings(format="messages"))(
            {"prompt": "Q", "chosen": [old | {"function_call": {"x": 1}}], "rejected": "B"}
        )


@pytest.mark.parametrize(("call", "result"), [("function_call", "observation"), ("tool_call", "tool_response")])
def test_roles_of_tools_in_sharegpts_form(call: str, result: str) -> None:
    records = [
        {
            "conversations": [
                {"from": "human", "value": "Weather?"},
                {"from": call, "value": "{}"},
                {"from": result, "value": f"{n}"},
            ],
            "chosen": {"from": "gpt", "value": f"Clear, {n} degrees."},
            "rejected": {"from": "gpt", "value": "I cannot know."},
        }
        for n in range(6)
    ]
    pairs = read(records)
    assert len(pairs) == 6 and [turn["role"] for turn in pairs[0].prompt] == ["user", "assistant", "tool"]


@pytest.mark.parametrize(
    ("high", "low", "margin"),
    [
        ("3,5", "1,25", 2.25),
        ("1.234,5", "1,233.5", 1.0),
        ("80%", "12,5 %", 0.675),
        ("4/5", "1 / 2", 0.3),
        ("4 out of 5", "1/5", 0.6),
        ("\N{BLACK STAR}" * 4 + "\N{WHITE STAR}", "\N{BLACK STAR}\xbd", 2.5),
        ("\N{WHITE MEDIUM STAR}\N{VARIATION SELECTOR-16}" * 2, "\N{WHITE MEDIUM STAR}", 1.0),
        (" 4 ", "1.0e0", 3.0),
        ("\N{FULLWIDTH DIGIT FOUR}", "\N{ARABIC-INDIC DIGIT TWO}", 2.0),
        ("+1", "\N{MINUS SIGN}1", 2.0),
    ],
)
def test_scores_are_read_as_people_write_them(high: str, low: str, margin: float) -> None:
    records = rows(prompt=Q, response_a=GOOD, response_b=BAD, score_a=[high], score_b=[low])
    chosen, explanation = choose(records, FormatSettings())
    assert chosen, explanation
    (pair,) = converter(chosen)(records[0])
    assert pair.chosen == GOOD[0]
    assert pair.margin == pytest.approx(margin)


@pytest.mark.parametrize("other", ["4", "80%", 4])
def test_a_column_that_writes_numbers_in_several_ways_asks(other: object) -> None:
    chosen, explanation = choose(
        rows(prompt=Q, response_a=GOOD, response_b=BAD, score_a=["4/5", other], score_b=["3/5"]), FormatSettings()
    )
    assert chosen is None
    assert f"score_a (4/5, {other})" in explanation


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        ({"answers": [["a b.", "c d."]], "scores": [["80%", "0.3"]]}, "scores[*] (80%, 0.3)"),
        (
            {"answers": [[{"text": "a b.", "score": "4/5"}, {"text": "c d.", "score": 2}]]},
            "answers[*].score (4/5, 2)",
        ),
        (
            {"response_a": GOOD, "response_b": BAD, "score_a": ["90%"], "score_b": [0.4]},
            "score_a and score_b (90%, 0.4)",
        ),
        (
            {"response_a": GOOD, "response_b": BAD, "score_a": [["\u2605\u2605", 1]], "score_b": [[1, 2]]},
            "score_a[*] (\u2605\u2605, 1)",
        ),
    ],
)
def test_numbers_that_are_compared_are_written_in_one_way(columns: dict[str, list[Any]], shown: str) -> None:
    chosen, explanation = choose(rows(prompt=Q, **columns), FormatSettings())
    assert chosen is None and shown in explanation


@pytest.mark.parametrize("value", ["1,234", "four", "5/0", "n/a", "2024/05/01"])
def test_a_score_that_is_no_number_or_might_be_two_is_quoted(value: str) -> None:
    record = {"prompt": Q[0], "response_a": GOOD[0], "response_b": BAD[0], "score_a": value, "score_b": 1}
    with pytest.raises(Reject, match=re.escape(repr(value))):
        list(converter(FormatSettings(format="preference"))(record))


def test_end_markers_that_are_left_out_are_counted() -> None:
    ended = [f"{text}<|im_end|>" if n % 2 else text for n, text in enumerate(GOOD)]
    text = said(rows(prompt=Q, chosen=ended, rejected=[f"{text} </s>" for text in BAD]))
    assert "6 of the first 6 rows have texts that end in </s>, <|im_end|>, left out" in text
    assert "3 of the first 6 rows have texts that end in <|im_end|>" in said(rows(prompt=Q, chosen=ended, rejected=BAD))
    assert "end in" not in said(rows(prompt=Q, chosen=GOOD, rejected=BAD))
