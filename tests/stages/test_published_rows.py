"""Files of published benchmarks, from rows as they are published to their own figures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import AutoModelForSequenceClassification

import build_pairs
import clean_pairs
import evaluate
import group_prompts
import join_tokens
import tokenize_pairs
from rewardline.core.errors import UserError
from rewardline.core.hashing import file_sha256
from rewardline.core.settings import Settings
from rewardline.data.pairs.candidates import CandidateReader
from rewardline.workflow import settings as stages
from rewardline.workflow.config import Config
from rewardline.workflow.resolve import load_public_datasets, resolve
from rewardline.workflow.runs import run_table

from support.data_stages import convert, write_rows
from support.paths import ROOT

Json = dict[str, Any]
PUBLIC = load_public_datasets(ROOT / "config" / "datasets.yaml")
V1: list[Json] = [
    {"prompt": "Who was it?", "chosen": "Ada.", "rejected": "Bob!", "subset": "alpacaeval-easy", "id": 1},
    {"prompt": "Who was it?", "chosen": "Ada.", "rejected": "Bob!", "subset": "alpacaeval-hard", "id": 2},
    {"prompt": "who was it", "chosen": "Bob!", "rejected": "Ada.", "subset": "mt-bench-hard", "id": 3},
    {"prompt": "Kill?", "chosen": "No.", "rejected": "Yes.", "subset": "donotanswer", "id": 4},
    {"prompt": "1 + 1", "chosen": "2", "rejected": "3", "subset": "math-prm", "id": 5},
]
V2: list[Json] = [
    {"id": "7", "prompt": "P", "chosen": ["a"], "rejected": ["b", "c", "b"], "num_correct": 1, "subset": "Math"},
    {"id": "ref:0", "prompt": "Red?", "chosen": ["red"], "rejected": ["x", "y"], "num_correct": 1, "subset": "Ties"},
    {
        "id": "tied:0",
        "prompt": "Hue?",
        "chosen": ["red", "blue"],
        "rejected": ["x"],
        "num_correct": 2,
        "subset": "Ties",
    },
]
STYLES: Json = {"chosen": ["A", "A b", "A b"], "rejected": ["C", "**C** d", "**C** d!"]}
RM: list[Json] = [
    {"id": 1, "prompt": "P", **STYLES, "domain": "chat"},
    {"id": 2, "prompt": "p", **STYLES, "domain": "math"},
]
JUDGE: list[Json] = [
    {"pair_id": "u", "source": "mmlu-pro-law", "question": "Q", "response_A": "a", "response_B": "b", "label": "A>B"},
    {"pair_id": "v", "source": "livecodebench", "question": "Q", "response_A": "a", "response_B": "b", "label": "B>A"},
]
TALK = [{"role": "user", "content": "Q", "language": "English"}]
RMB: list[Json] = [
    {
        "pair_uid": "1",
        "conversation_input": TALK,
        "chosen": {"llm_name": "x", "answer": "good"},
        "reject": {"llm_name": "y", "answer": "bad"},
        "category_path": "Pairwise_set/Helpfulness/Chat",
    },
    {
        "bon_uid": "2",
        "conversation_input": TALK,
        "bon_best": {"llm_name": "x", "answer": "good"},
        "loser_list": [{"llm_name": "y", "answer": "bad"}, {"llm_name": "z", "answer": "worse"}],
        "category_path": "BoN_set/Harmlessness/S1",
    },
]
MATH: list[Json] = [
    {
        "problem": f"{problem} + 1?",
        "eval_solution": ["We add.", f"It is {answer}."],
        "solution_type": "chosen" if answer == problem + 1 else "rejected",
        "subject": "Algebra",
        "problem_id": problem,
    }
    for problem in (1, 2)
    for answer in (0, problem + 1, 0)  # a wrong one twice
]
ARENA: list[Json] = [
    {"prompt": "Q", "response_1": "a", "response_2": "b", "model_a": "x", "model_b": "y", "winner": winner}
    | {"language": "English", "question_id": str(n)}
    for n, winner in enumerate(["model_a", "model_b", "tie", "tie (bothbad)"])
]
CHECKED: list[Json] = [
    {"prompt": prompt, "scores": right, **{f"response_{k}": f"answer {k}" for k in range(1, 5)}}
    | {"question": "q", "choices": ["A", "B"], "answer": "A", "parsed_outputs": ["A"] * 4, "model_name": "m"}
    for prompt, right in [("Q", [False, True, True, False]), ("R", [True] * 4)]
]
LANGUAGES: list[Json] = [
    {"language": language, "prompt": "Q", "chosen": "a", "rejected": "b", "source": source, "id": 1}
    for language, source in [("deu_Latn", "hep-go"), ("fra_Latn", "mt-bench-hard"), ("de", "translation-easy")]
]
GRAPH: list[Json] = [
    {
        "id": 1,
        "instruction_type": "Single_Turn",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Q"}],
        "responses": [{"response_id": 10 + k, "response": f"answer {k}"} for k in range(3)],
        "preference_graph": [
            {"chosen": {"response_id": 12}, "rejected": {"response_id": 10}},
            {"chosen": {"response_id": 10}, "rejected": {"response_id": 11}},
        ],
    },
    {
        "id": 2,
        "instruction_type": "Multi_Turn",
        "messages": [{"role": "user", "content": "Q"}],
        "responses": [{"response": f"answer {k}"} for k in range(4)],  # the last one is better or worse than none
        "preference_graph": [
            {"chosen": {"response_id": 1}, "rejected": {"response_id": 0}},
            {"chosen": {"response_id": 1}, "rejected": {"response_id": 2}},
        ],
    },
]
OUTPUTS: list[Json] = [
    {"input": "Q", "output_1": "a", "output_2": "b", "label": 2, "subset": "Natural"},
    {"input": "Q", "output_1": "a", "output_2": "b", "label": 1, "subset": "GPTOut"},
]
RATED: list[Json] = [
    {
        "prompt": "Q",
        "response": "a",
        "helpfulness": 4,
        "correctness": 2,
        "coherence": 4,
        "complexity": 1,
        "verbosity": 3,
    },
    {
        "prompt": "Q",
        "response": "b",
        "helpfulness": 1,
        "correctness": 3,
        "coherence": 4,
        "complexity": 0,
        "verbosity": 1,
    },
    {
        "prompt": "R",
        "response": "a",
        "helpfulness": 2,
        "correctness": 2,
        "coherence": 1,
        "complexity": 0,
        "verbosity": 1,
    },
    {
        "prompt": "R",
        "response": "b",
        "helpfulness": 2,
        "correctness": 1,
        "coherence": 3,
        "complexity": 0,
        "verbosity": 2,
    },
]
RANKED: list[Json] = [
    {"instruction": "Q", "completions": [{"response": f"{k}", "score": score} for k, score in enumerate([3, 5, 1, 5])]},
    {
        "source": "sharegpt",
        "instruction": "R",
        "models": ["x", "y"],
        "completions": [
            {"response": model, "model": model, "overall_score": 7.5, "fine-grained_score": score, "critique": "Hm."}
            for model, score in [("x", 4.25), ("y", 4.5)]
        ],
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
    },
]
ROWS = {
    "rewardbench": V1,
    "rewardbench2": V2,
    "rm_bench": RM,
    "judgebench": JUDGE,
    "rmb": RMB,
    "rewardmath": MATH,
    "ppe_human": ARENA,
    "ppe_correctness": CHECKED,
    "m_rewardbench": LANGUAGES,
    "if_rewardbench": GRAPH,
    "llmbar": OUTPUTS,
    "helpsteer": RATED,
    "ultrafeedback": RANKED,
}
PAIRS = {
    "rmb": [1, 2],
    "rewardmath": [2, 2],
    "ppe_human": [1, 1],
    "ppe_correctness": [4],
    "m_rewardbench": [1, 1, 1],
    "if_rewardbench": [2, 2],
    "llmbar": [1, 1],
    "helpsteer": [4, 3],
    "ultrafeedback": [5, 1],
}
"""How many pairs each row, or group of rows, gives that gives any."""
LEFT_OUT: dict[str, Json] = {
    "ppe_human": {"tie": 2},
    "ppe_correctness": {"tie": 3},
    "helpsteer": {"tie": 3},
    "ultrafeedback": {"tie": 1},
}


def settings_of(folder: Path, rows: list[Json], **shape: Any) -> Config:
    """A configuration whose benchmark `b` is a local file."""
    chosen: Json = {
        "datasets": {"d": {"demo": {}}},
        "benchmarks": {"b": {"files": [write_rows(folder / "b.jsonl", rows)], **shape}},
        "mixtures": {"m": {"datasets": {"d": 1}}},
        "models": {"x": {"path": "x"}},
        "runs": {"r": {"mixture": "m", "model": "x", "benchmarks": ["b"]}},
    }
    return resolve(chosen, PUBLIC)


def pairs(folder: Path, config: Config) -> Path:
    """Build the pairs of the benchmark; the folder of its only shard."""
    manifests = list(map(str, convert(folder, config, "b")))
    prompts, shard = folder / "prompts", folder / "shard"

    def run(main: Any, settings: Settings, *options: str | Path) -> None:
        assert main(["--settings", settings.canonical_json(), *map(str, options)]) == 0

    run(
        group_prompts.main, stages.group_settings(config, "b"), "--name", "b", "--data", *manifests, "--output", prompts
    )
    own = stages.clean_settings(config, "b", 0)
    compared: list[str | Path] = ["--candidates", *manifests, "--prompts", prompts / "manifest.json"]
    run(clean_pairs.main, own, *compared, "--output", shard)
    places: list[str | Path] = ["--data", folder / "data" / "b" / "manifest.json", *compared]
    places += ["--shards", shard / "manifest.json", "--output", folder / "pairs"]
    run(build_pairs.main, stages.pairs_settings(config, "b"), "--name", "b", *places)
    return shard


def judge(folder: Path, base: Path, config: Config) -> tuple[Json, pd.DataFrame]:
    """Score the benchmark with a random model; metrics and scores."""
    shard = pairs(folder, config)
    options = stages.tokenize_settings(config, "x").replace(max_length=64, template="plain")
    places = ["--pairs", str(shard), "--base", str(base), "--output", str(folder / "shard-tokens")]
    assert tokenize_pairs.main(["--settings", options.canonical_json(), *places]) == 0
    places = ["--shards", str(folder / "shard-tokens" / "manifest.json"), "--output", str(folder / "tokens")]
    places += ["--stats", str(folder / "pairs" / "stats.json")]
    assert join_tokens.main(["--settings", stages.join_settings(config, "b").canonical_json(), *places]) == 0
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    model.save_pretrained(folder / "model")
    made = {"weights_sha256": file_sha256(folder / "model" / "model.safetensors")}
    (folder / "model" / "run.json").write_text(json.dumps(made))
    run = run_table(config)[0]
    own = stages.evaluate_settings(config, run, "b").canonical_json()
    places = ["--model", str(folder / "model"), "--tokens", str(folder / "tokens"), "--output", str(folder / "out")]
    assert evaluate.main(["--settings", own, "--pairs", str(folder / "pairs"), *places]) == 0
    metrics = json.loads((folder / "out" / "metrics.json").read_text())
    return metrics, pd.read_parquet(folder / "out" / "scores.parquet")


@pytest.mark.parametrize("scoring", ROWS)
def test_every_published_row_counts_as_it_is(scoring: str, tmp_path: Path, base_models: Callable[..., Path]) -> None:
    """Also those that cleaning would take for equal, for nearly equal or for contradictory."""
    rows = ROWS[scoring]
    metrics, scores = judge(tmp_path, base_models(), settings_of(tmp_path, rows, scoring=scoring))
    found = metrics["sections"]
    assert (found["arithmetic"], found["incomplete"]) == (scoring, 0)
    assert found["left_out"] == LEFT_OUT.get(scoring, {})
    assert found["baselines"].keys() == {"longest", "shortest", "first"}
    if scoring in PAIRS:
        assert scores.groupby("row").size().tolist() == PAIRS[scoring]
        assert found["overall"] is not None and found["sections"]
        return
    listed = [isinstance(row.get("chosen"), list) for row in rows]
    cells = [len(row["chosen"]) * len(row["rejected"]) if many else 1 for row, many in zip(rows, listed, strict=True)]
    assert scores.groupby("row").size().tolist() == cells
    assert metrics["n"] == sum(cells)
    sizes = {"rewardbench": 5, "rewardbench2": 3, "judgebench": 2, "rm_bench": 2 + 3 * 2}
    assert sum(entry["n"] for entry in found["sections"].values()) == sizes[scoring]
    for number, place in zip(scores["row"], scores["place"], strict=True):
        if scoring == "judgebench":
            assert place["chosen"] == (rows[number - 1]["label"] == "B>A")
        elif scoring == "rewardbench2":
            assert place["item"] == rows[number - 1]["id"]
    if scoring == "rm_bench":  # equal answers have equal scores, at each of their places
        styles = scores["place"].map(lambda place: place["chosen"])
        for number in (1, 2):
            assert scores[(scores["row"] == number) & (styles > 0)]["chosen_score"].nunique() == 1


def test_another_schema_or_an_empty_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    config = settings_of(tmp_path / "a", V2, scoring="rm_bench")
    with pytest.raises(UserError, match="rows are unusable") as failure:
        pairs(tmp_path / "a", settings_of(tmp_path / "a", JUDGE, scoring="rm_bench"))
    assert "b.jsonl:1" in str(failure.value)
    with pytest.raises(UserError, match=r"b\.jsonl:1: .*is no subset of rm_bench"):
        pairs(tmp_path / "b", settings_of(tmp_path / "b", V2, scoring="rm_bench", fields={"subset": "subset"}))
    with pytest.raises(UserError, match=r"b\.jsonl:1: it has 4 answers"):
        rows = [{**V2[0], "domain": "chat"}]
        pairs(tmp_path / "c", settings_of(tmp_path / "c", rows, scoring="rm_bench"))
    with pytest.raises(UserError, match=r"b\.jsonl has no rows"):
        pairs(tmp_path / "d", settings_of(tmp_path / "d", [], scoring="rm_bench"))
    assert config.benchmarks["b"].format == "good_bad"


def test_the_folder_of_a_file_may_name_its_subset(tmp_path: Path) -> None:
    rows = [{key: value for key, value in OUTPUTS[0].items() if key != "subset"}]
    for name in ("Natural", "Adversarial/GPTOut"):
        write_rows(tmp_path / "LLMBar" / name / "dataset.jsonl", rows)
    config = settings_of(tmp_path, rows, scoring="llmbar")
    files = {"files": [str(tmp_path / "LLMBar" / "**" / "*.jsonl")]}
    config = config.replace(benchmarks={"b": config.benchmarks["b"].replace(**files)})
    readers = [CandidateReader(path.parent) for path in convert(tmp_path, config, "b")]
    assert sorted(one.subset for reader in readers for one in reader.between(0, 2**64)) == ["GPTOut", "Natural"]
    with pytest.raises(UserError, match="is no subset of llmbar"):
        convert(tmp_path / "other", settings_of(tmp_path / "other", rows, scoring="llmbar"), "b")


def test_an_answer_that_is_too_long_is_said_to_be_left_out(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    rows = [V2[0], {**V2[0], "rejected": ["b", "c", "word " * 400], "prompt": "Long?"}]
    metrics, _ = judge(tmp_path, base_models(), settings_of(tmp_path, rows, scoring="rewardbench2"))
    assert metrics["sections"]["sections"]["Math"]["n"] == 1
    assert metrics["sections"]["incomplete"] == 1
    assert metrics["sections"]["left_out"] == {"answer_too_long": 1}
