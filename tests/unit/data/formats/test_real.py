import csv
import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

import pytest

from rewardline.data.conversation import Reject
from rewardline.data.formats.drafts import PreferencePair
from rewardline.data.formats.registry import converter
from rewardline.data.formats.settings import FormatSettings
from rewardline.data.turns import turns_of

from support.formats import detect
from support.paths import SHARED_DATA, load, load_all

MARKER = re.compile(r"\n\nHuman:|\n\nAssistant:")


def convert_all(
    rows: list[Any], shape: str, fields: dict[str, str] | None = None, **options: Any
) -> tuple[list[list[PreferencePair]], Counter[str], Counter[str]]:
    convert = converter(FormatSettings(format=shape, fields=fields or {}, **options))
    result: list[list[PreferencePair]] = []
    rejects: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for row in rows:
        try:
            pairs = convert(row)
            result.append(list(pairs))
            skipped.update(pairs.skipped)
        except Reject as reject:
            rejects[reject.reason] += 1
            result.append([])
    return result, rejects, skipped


def squeezed(text: str) -> str:
    return "".join(text.split())


def spoken(pair: PreferencePair) -> Iterator[str]:
    """The two transcripts of a pair, without white space."""
    names = {"user": "Human:", "assistant": "Assistant:"}
    start = "".join(names[turn["role"]] + turn["content"] for turn in pair.prompt)
    for answer in (pair.chosen, pair.rejected):
        yield squeezed(start + "Assistant:" + answer)


def test_real_hh_rlhf() -> None:
    rows = load_all("hh_rlhf_test/*/test.jsonl.gz")
    assert len(rows) == 8552
    assert all(detect(row) == "transcript" for row in rows)
    results, rejects, skipped = convert_all(rows, "transcript")
    assert not skipped
    assert rejects["identical"] == sum(row["chosen"] == row["rejected"] for row in rows) == 36
    both = [(row["chosen"], row["rejected"]) for row in rows]
    blank = [any(not turn.strip() for text in pair for turn in MARKER.split(text)[1:]) for pair in both]
    assert rejects["empty_answer"] + rejects["empty_prompt"] == sum(blank) == 12
    asking = [any(text.rfind("\n\nHuman:") > text.rfind("\n\nAssistant:") for text in pair) for pair in both]
    turns = [[len(turns_of(text)) for pair in pairs for text in (pair.chosen, pair.rejected)] for pairs in results]
    assert [max(each, default=1) > 1 for each in turns] == asking and sum(asking) == 2  # one side ends with a question
    assert sum(map(len, results)) == 8552 - rejects.total() == 8504
    astray = 0
    for row, pairs in zip(rows, results, strict=True):
        for pair in pairs:
            assert list(spoken(pair)) == [squeezed(row["chosen"]), squeezed(row["rejected"])]  # nothing lost or added
            assert pair.prompt[-1]["role"] == "user"
            cut = row["chosen"].rfind("\n\nAssistant:") + len("\n\nAssistant:")
            naive = row["chosen"][cut:].strip(), row["rejected"][cut:].strip()
            astray += naive != (pair.chosen, pair.rejected)
    assert astray == 8  # rows that a split at the last marker of `chosen` gets wrong
    assert sum("\n\nAssistant:" in pair.chosen + pair.rejected for pairs in results for pair in pairs) == 17


def test_real_hh_rlhf_in_the_form_of_rm_static() -> None:
    rows = load("hh_rlhf_test/helpful-base/test.jsonl.gz")
    expected, *_ = convert_all(rows, "transcript")
    names = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}
    again = [
        {
            "prompt": "".join(names[turn["role"]] + turn["content"] for turn in pair.prompt) + "\n\nAssistant:",
            "response": " " + pair.chosen,
            "chosen": " " + pair.chosen,
            "rejected": " " + pair.rejected,
        }
        for pairs in expected
        for pair in pairs
    ]
    assert all(detect(row) == "pairs" for row in again)
    results, rejects, _ = convert_all(again, "pairs")
    assert not rejects
    assert results == [pairs for pairs in expected if pairs]


def test_real_rmb() -> None:
    rows = load_all("rmb/Pairwise_set/**/*.json.gz")
    assert len(rows) == 14543
    assert all(detect(row) == "pairs" for row in rows)
    results, rejects, _ = convert_all(rows, "pairs", {"subset": "category_path"})
    expected: Counter[str] = Counter()
    for row, pairs in zip(rows, results, strict=True):
        turns = [(turn["role"], turn["content"].strip()) for turn in row["conversation_input"]]
        better, worse = row["chosen"]["answer"].strip(), row["reject"]["answer"].strip()
        if not all(content for _, content in turns):
            expected["empty_prompt"] += 1
        elif not better or not worse:
            expected["empty_answer"] += 1
        elif better == worse:
            expected["identical"] += 1
        else:
            (pair,) = pairs
            assert [(turn["role"], turn["content"].strip()) for turn in pair.prompt] == turns
            assert (pair.chosen.strip(), pair.rejected.strip(), pair.subset) == (better, worse, row["category_path"])
    assert rejects == expected
    assert sum(map(len, results)) == 14543 - rejects.total() == 14522


def test_real_rmb_best_of_n() -> None:
    rows = load_all("rmb/BoN_set/**/*.json.gz")
    results, rejects, _ = convert_all(rows, "good_bad", {"good": "bon_best", "bad": "loser_list"})
    for row, pairs in zip(rows, results, strict=True):
        best = row["bon_best"]["answer"].strip()
        losers = {item["answer"].strip() for item in row["loser_list"]} - {best}
        found = {(pair.chosen.strip(), pair.rejected.strip()) for pair in pairs}
        assert found == {(best, loser) for loser in losers}
        assert len(pairs) == len(losers)
    assert rejects == {"identical": sum(not pairs for pairs in results)}


@pytest.mark.parametrize(("name", "count"), [("dpo_en_demo.json", 300), ("dpo_zh_demo.json", 300)])
def test_real_sharegpt(name: str, count: int) -> None:
    rows = load(f"llamafactory_demo/data/{name}")
    results, rejects, _ = convert_all(rows, "messages")
    assert not rejects and len(results) == count
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    for row, (pair,) in zip(rows, results, strict=True):
        assert detect(row) == "messages"
        turns = [(roles[turn["from"]], turn["value"].strip()) for turn in row["conversations"]]
        assert [(turn["role"], turn["content"]) for turn in pair.prompt] == turns
        assert (pair.chosen, pair.rejected) == (row["chosen"]["value"].strip(), row["rejected"]["value"].strip())


def test_real_content_parts() -> None:
    rows = load("llamafactory_demo/data/v1_dpo_demo.jsonl")
    results, rejects, _ = convert_all(rows, "messages")
    assert not rejects and len(results) == 10
    for row, (pair,) in zip(rows, results, strict=True):
        assert detect(row) == "messages"
        sides = [
            [turn["content"][0]["value"].strip() for turn in row[f"{side}_messages"]] for side in ("chosen", "rejected")
        ]
        assert [turn["content"] for turn in pair.prompt] == sides[0][:-1] == sides[1][:-1]
        assert (pair.chosen, pair.rejected) == (sides[0][-1], sides[1][-1])


def test_real_rankings_of_alpacas_form() -> None:
    rows = load("llamafactory_demo/data/oaast_rm_zh.json")
    results, rejects, _ = convert_all(rows, "ranked")
    for row, pairs in zip(rows, results, strict=True):
        assert detect(row) == ["ranked"]
        order = [text.strip() for text in row["output"]]
        every = {(a, b) for a, b in combinations(order, 2) if a != b}
        assert {(pair.chosen, pair.rejected) for pair in pairs} == {pair for pair in every if pair[::-1] not in every}
        said = [text.strip() for turn in row["history"] for text in turn] + [row["instruction"].strip()]
        assert all([turn["content"] for turn in pair.prompt] == said for pair in pairs)
    assert len(rows) == 775 and rejects == {"identical": sum(not pairs for pairs in results)}
    pairs_of_ends, *_ = convert_all(rows, "ranked", pairing="best_worst")
    assert sum(map(len, pairs_of_ends)) == sum(row["output"][0].strip() != row["output"][-1].strip() for row in rows)


def test_real_torchtune_rows() -> None:
    stack = load("torchtune_tiny/tests/assets/stack_exchange_paired_tiny.json")
    assert all(detect(row) == "pairs" for row in stack)
    results, rejects, _ = convert_all(stack, "pairs")
    assert not rejects and len(results) == 25
    assert [pair.chosen for (pair,) in results] == [row["response_j"].strip() for row in stack]
    (row,) = load("torchtune_tiny/tests/assets/hh_rlhf_tiny.json")
    assert detect(row) == "messages"
    (pair,) = converter(FormatSettings(format="messages"))(row)
    assert (pair.chosen, pair.rejected) == ("Fix the hole.", "Take them off.")


def test_real_margins() -> None:
    rows = load("helpsteer2_gold/experimental/data/helpsteer2_gold/train.json")
    rows += load("helpsteer2_gold/experimental/data/helpsteer2_gold/test.json")
    results, rejects, _ = convert_all(rows, "messages", {"margin": "preference_strength"})
    assert not rejects
    assert [pair.margin for (pair,) in results] == [row["preference_strength"] for row in rows]
    assert [pair.chosen for (pair,) in results] == [row["chosen"][-1]["content"].strip() for row in rows]
    _, rejects, _ = convert_all(rows, "messages", {"margin": "preference_strength"}, min_margin=1)
    assert rejects == {"small_margin": sum(row["preference_strength"] == 0 for row in rows)} == {"small_margin": 29}
    scores = {"chosen_score": "chosen_reward", "rejected_score": "rejected_reward"}
    results, *_ = convert_all(rows, "messages", scores)
    assert [pair.margin for (pair,) in results] == [row["chosen_reward"] - row["rejected_reward"] for row in rows]


def test_real_nested_answers() -> None:
    rows = load("themis_tarm/data/webgpt/agent_webgpt_test_case.json")
    rows += load("themis_tarm/data/hh_rlhf/hh_rlhf_train.json") + load("themis_tarm/data/hh_rlhf/hh_rlhf_test.json")
    fields = {
        "chosen": "pos_answer.answer",
        "rejected": "neg_answer.answer",
        "chosen_score": "pos_answer.score",
        "rejected_score": "neg_answer.score",
    }
    results, rejects, _ = convert_all(rows, "pairs", fields)
    silent = sum(not (row["pos_answer"]["answer"].strip() and row["neg_answer"]["answer"].strip()) for row in rows)
    assert len(rows) == 754 and rejects == {"empty_answer": silent} and silent == 13
    for row, pairs in zip(rows, results, strict=True):
        for pair in pairs:
            assert pair.chosen == row["pos_answer"]["answer"].strip()
            assert pair.margin == row["pos_answer"]["score"] - row["neg_answer"]["score"]
    assert all(detect(row, fields=fields) == "pairs" for row in rows)


def test_real_preferences_among_four() -> None:
    rows = load("finegrained_rlhf/tasks/qa_feedback/data/dev_feedback.json")
    values = {"first": 1, "second": 2, "tie": 0}
    results, rejects, skipped = convert_all(rows, "preference", {"answers": "prediction *"}, values=values)
    for row, pairs in zip(rows, results, strict=True):
        twos = list(combinations([row[f"prediction {n}"].strip() for n in (1, 2, 3, 4)], 2))
        won = [two[:: 1 if label == 1 else -1] for two, label in zip(twos, row["preference"], strict=True) if label]
        assert [(pair.chosen, pair.rejected) for pair in pairs] == won
    assert sum(map(len, results)) == 2616
    assert rejects == {"tie": sum(not any(row["preference"]) for row in rows)} == {"tie": 12}
    assert skipped["tie"] + 12 * 6 == sum(row["preference"].count(0) for row in rows) == 384


def test_real_judge_prompts() -> None:
    rows = load("prometheus_hhh/eval/benchmark/data/hhh_alignment_eval.json")
    fields = {"chosen": "chosen_instruction", "rejected": "rejected_instruction", "subset": "source"}
    assert all(detect(row, fields=fields) == "judge" for row in rows)
    results, rejects, _ = convert_all(rows, "judge", fields)
    assert len(rows) == 221 and not rejects
    for row, (pair,) in zip(rows, results, strict=True):
        for side, text in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            assert f"\n\n###Response to evaluate:\n{text}" in row[f"{side}_instruction"]
            assert f"###The instruction to evaluate:\n{pair.prompt[0]['content']}" in row[f"{side}_instruction"]
            assert pair.prompt[-1]["content"] + "\n\n###Response" in row[f"{side}_instruction"]
    assert sum(len(pair.prompt) > 1 for (pair,) in results) == 41


def test_real_right_and_wrong_answers() -> None:
    path = SHARED_DATA / "truthfulqa" / "TruthfulQA.csv"
    if not path.exists():
        pytest.skip("truthfulqa is not here")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    fields = {"prompt": "Question", "good": "Correct Answers", "bad": "Incorrect Answers", "subset": "Category"}
    results, rejects, _ = convert_all(rows, "good_bad", fields, separator=";")
    assert not rejects
    for row, pairs in zip(rows, results, strict=True):
        right, wrong = ({text.strip() for text in row[fields[side]].split(";")} - {""} for side in ("good", "bad"))
        every = {(a, b) for a, b in product(right, wrong) if a != b}
        assert {(pair.chosen, pair.rejected) for pair in pairs} == {pair for pair in every if pair[::-1] not in every}
        assert len({(pair.chosen, pair.rejected) for pair in pairs}) == len(pairs)
    capped, *_ = convert_all(rows, "good_bad", fields, separator=";", max_pairs=4)
    assert [len(pairs) for pairs in capped] == [min(4, len(pairs)) for pairs in results]
    tasks = load("truthfulqa/data/mc_task.json")
    results, rejects, _ = convert_all(tasks, "ranked", {"answers": "mc2_targets"})
    assert not rejects
    for task, pairs in zip(tasks, results, strict=True):
        labels = {text.strip(): label for text, label in task["mc2_targets"].items() if text.strip()}
        assert len(pairs) == sum(labels.values()) * (len(labels) - sum(labels.values()))


def test_real_ranked_texts_without_a_prompt() -> None:
    path = SHARED_DATA / "zh_ranking_tsv/RLHF/data/reward_datasets/sentiment_analysis/dev.tsv"
    if not path.exists():
        pytest.skip("zh_ranking_tsv is not here")
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n") if line]
    rows = [{f"text {n}": text for n, text in enumerate(line)} for line in lines]
    results, rejects, skipped = convert_all(rows, "ranked", {"prompt": "=Review", "answers": "text *"})
    assert len(rows) == 3082 and not rejects and not skipped
    for line, pairs in zip(lines, results, strict=True):
        assert [(pair.chosen, pair.rejected) for pair in pairs] == list(combinations(map(str.strip, line), 2))
