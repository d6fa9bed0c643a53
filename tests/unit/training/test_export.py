"""An exported folder gives TRL's trainers and plain transformers the scores of the pipeline."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
import torch
import trl
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)
from trl.data_utils import apply_chat_template
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

import evaluate
from rewardline.data.parquet import read_rows
from rewardline.scoring.rows import parse_row
from rewardline.scoring.text_scorer import Scorer

from support.data_stages import build, tokenize
from support.training_runs import train

Json = dict[str, Any]
CHATML = (Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja").read_text()


SIDES = ("chosen", "rejected")
ROWS = 150


class Exported(NamedTuple):
    """A trained model, its evaluation on held-out pairs, and these pairs."""

    folder: Path
    metrics: Json
    scores: dict[str, list[float]]
    pairs: list[Json]

    @property
    def conversations(self) -> list[Json]:
        """The pairs as TRL has them, with the white space of raw data."""

        def answer(text: str) -> list[Json]:
            return [{"role": "assistant", "content": f" {text}\n"}]

        return [
            {"prompt": one["prompt"], "chosen": answer(one["chosen"]), "rejected": answer(one["rejected"])}
            for one in self.pairs
        ]

    def load(self) -> tuple[torch.nn.Module, PreTrainedTokenizerFast]:
        model = AutoModelForSequenceClassification.from_pretrained(self.folder).eval()
        return model, AutoTokenizer.from_pretrained(self.folder)


def rows(count: int) -> Iterator[Json]:
    for k in range(count):
        system = [{"role": "developer", "content": f"Be brief, number {k % 7}. "}] if k % 3 == 0 else []
        history = [{"from": "human", "value": " Hello! "}, {"from": "gpt", "value": "\nHow do you do?"}]
        question = {"role": "user", "content": [{"type": "text", "text": f"How many are {k} and {k + 1}?\n"}]}
        good, bad = f"They are {2 * k + 1}. \n", f"\n They are {2 * k + 3}, I would say."
        yield {"prompt": [*system, *(history if k % 2 else []), question], "chosen": good, "rejected": bad}


@pytest.fixture(scope="module", params=["plain", "chatml"])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, base_models: Callable[..., Path]
) -> Exported:
    work = tmp_path_factory.mktemp(request.param)
    base = base_models("llama", eos_token="<|im_end|>") if request.param == "chatml" else base_models("llama")
    build(work, {"d": list(rows(ROWS))}, eval_fraction=0.3)
    template: Json = (
        {"template": "chat", "chat_template": CHATML} if request.param == "chatml" else {"template": "plain"}
    )
    tokenize(work, base, max_length=250, **template)
    train(work, work / "tokens", base, eval_every=0, tokens_per_micro_batch=2000, learning_rate=3e-4)
    settings = {"run": "r", "name": "r", "mixture": "m", "model": "x", "seed": 1, "benchmark": "eval"}
    places = ["--model", work / "out", "--tokens", work / "tokens", "--output", work / "eval"]
    assert evaluate.main(["--settings", json.dumps(settings), *map(str, places)]) == 0
    return Exported(
        work / "out",
        json.loads((work / "eval" / "metrics.json").read_text()),
        pq.read_table(work / "eval" / "scores.parquet").to_pydict(),
        list(read_rows(work / "pairs" / "m" / "eval")),
    )


def rendered(exported: Exported, end: str = "") -> list[Json]:
    """The pairs as complete texts; without the end token, which TRL's `RewardTrainer` appends, unless it is given."""
    tokenizer = exported.load()[1]
    results = []
    for one in exported.conversations:
        texts = {
            side: apply_chat_template({"messages": one["prompt"] + one[side]}, tokenizer)["text"] for side in SIDES
        }
        results.append({side: text.removesuffix(tokenizer.eos_token) + end for side, text in texts.items()})
    return results


@pytest.mark.parametrize("form", ["prompt and answers", "conversations", "texts"])
def test_trl_evaluates_as_the_pipeline_does(exported: Exported, tmp_path: Path, form: str) -> None:
    data = exported.conversations if form != "texts" else rendered(exported)
    if form == "conversations":
        data = [{side: one["prompt"] + one[side] for side in SIDES} for one in data]
    dataset = Dataset.from_list(data)
    options: Json = {"report_to": "none", "per_device_eval_batch_size": len(data), "use_cpu": True, "bf16": False}
    trainer = RewardTrainer(
        str(exported.folder),
        args=RewardConfig(str(tmp_path), **options),
        train_dataset=dataset.select(range(2)),
        eval_dataset=dataset,
    )
    found = trainer.evaluate()
    assert found["eval_accuracy"] == pytest.approx(exported.metrics["accuracy"], abs=1e-5)
    assert found["eval_loss"] == pytest.approx(exported.metrics["loss"], abs=1e-5)


@pytest.mark.parametrize("form", ["conversations", "texts"])
def test_grpo_gets_the_rewards_of_the_pipeline(exported: Exported, form: str) -> None:
    """As `GRPOTrainer._calculate_rewards` calls a reward model."""
    model, tokenizer = exported.load()
    expected = {name: exported.scores[f"{name}_score"] for name in SIDES}
    ordered = {pair_id: k for k, pair_id in enumerate(exported.scores["pair_id"])}
    indices = [ordered[one["pair_id"]] for one in exported.pairs]
    complete = rendered(exported, tokenizer.eos_token)
    for side in SIDES:
        if form == "texts":
            texts = [one[side] for one in complete]
        else:
            messages = [{"messages": one["prompt"] + one[side]} for one in exported.conversations]
            texts = [apply_chat_template(one, tokenizer)["text"] for one in messages]
        inputs = tokenizer(
            text=texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False
        )
        with torch.inference_mode():
            rewards = model(**inputs).logits[:, 0]
        assert rewards.tolist() == pytest.approx([expected[side][k] for k in indices], abs=1e-5)
    assert len(set(expected["chosen"])) > 1


def test_rewardbench_reads_the_scores_of_the_pipeline(exported: Exported) -> None:
    """As rewardbench 0.1.4 renders conversations, in which user and assistant alternate, and pads batches of them."""
    model, tokenizer = exported.load()
    tokenizer.padding_side = "left"
    places = {pair_id: k for k, pair_id in enumerate(exported.scores["pair_id"])}
    pairs = [one for one in exported.pairs if one["prompt"][0]["role"] == "user"]
    for side in SIDES:
        turns = [[*one["prompt"], {"role": "assistant", "content": one[side]}] for one in pairs]
        texts = [tokenizer.apply_chat_template(one, tokenize=False) for one in turns]
        assert len({len(text) for text in texts}) > 1
        with torch.inference_mode():
            scores = model(**tokenizer(texts, truncation=False, padding=True, return_tensors="pt")).logits[:, 0]
        expected = [exported.scores[f"{side}_score"][places[one["pair_id"]]] for one in pairs]
        assert scores.tolist() == pytest.approx(expected, abs=1e-5)


def test_rewards_of_a_step_of_grpo_are_the_scores_of_the_pipeline(
    exported: Exported, tmp_path: Path, base_models: Callable[..., Path]
) -> None:
    model, tokenizer = exported.load()
    policy = AutoModelForCausalLM.from_pretrained(base_models("llama"))
    policy.resize_token_embeddings(len(tokenizer))
    calls: list[tuple[Any, Any, torch.Tensor]] = []

    class Recorded(GRPOTrainer):
        def _calculate_rewards(self, inputs: Json, prompts: Any, completions: Any, ids: Any) -> torch.Tensor:
            rewards: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, ids)
            calls.append((prompts, completions, rewards.clone()))
            return rewards

    options: Json = {"report_to": "none", "use_cpu": True, "bf16": False, "logging_strategy": "no"}
    options |= {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 12, "max_steps": 1}
    Recorded(
        policy,
        reward_funcs=model,
        args=GRPOConfig(str(tmp_path), **options),
        train_dataset=Dataset.from_list([{"prompt": one["prompt"]} for one in exported.pairs]),
        processing_class=tokenizer,
        reward_processing_classes=exported.load()[1],
    ).train()
    ((prompts, completions, rewards),) = calls
    answers = [[turn["content"] for turn in completion] for completion in completions]
    assert len({answer for (answer,) in answers}) > 1
    scored = Scorer(str(exported.folder)).score(prompts, answers)
    expected = [score for scores in scored if isinstance(scores, list) for score in scores]
    assert rewards[:, 0].tolist() == pytest.approx(expected, abs=1e-5)


def test_raw_rows_are_scored_as_their_pairs(exported: Exported) -> None:
    scorer = Scorer(str(exported.folder))
    items = [item for item in map(parse_row, rows(ROWS)) if item.prompt in [one["prompt"] for one in exported.pairs]]
    scored = scorer.score([item.prompt for item in items], [item.answers for item in items])
    expected = zip(*(exported.scores[f"{side}_score"] for side in SIDES), strict=True)
    found = sorted(tuple(scores) for scores in scored if isinstance(scores, list))
    assert found == [pytest.approx(pair, abs=1e-5) for pair in sorted(expected)]


def test_the_files_say_what_transformers_need(exported: Exported) -> None:
    names = {path.name for path in exported.folder.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "README.md"} <= names
    config = json.loads((exported.folder / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    tokenizer = json.loads((exported.folder / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"backend", "is_local", "local_files_only", "chat_template"} & tokenizer.keys()
    assert tokenizer.get("model_max_length", 0) < 1e9
    assert tokenizer["eos_token"] != tokenizer["pad_token"]
