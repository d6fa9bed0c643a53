"""Single answers with ratings through all stages: rows, pairs beside them, tokens, training, export and evaluation."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import evaluate
from rewardline.core.errors import UserError
from rewardline.data.parquet import read_rows
from rewardline.model.loading import load_base
from rewardline.model.reward_model import RewardModel
from rewardline.report.evaluation_card import evaluation_card
from rewardline.report.summary import final_summary
from rewardline.scoring.prompts import score_table
from rewardline.scoring.rows import AnswerScores
from rewardline.scoring.server.app import Service
from rewardline.scoring.server.limits import Limits
from rewardline.scoring.text_scorer import Scorer
from rewardline.tokens.store import Comparison, TokenDataset
from rewardline.tokens.tokenizer import load_tokenizer

from support import data_stages
from support.training_runs import TWO, finish, largest_difference, losses, start, stop_at_step, train

Json = dict[str, Any]
WORDS = ["red", "blue", "green", "good", "bad", "long", "short", "warm", "cold", "new", "old"]
REGRESSION: Json = {
    "type": "regression",
    "attributes": ["helpfulness", "verbosity"],
    "weights": {"helpfulness": 1.0, "verbosity": -0.25},
}
ORDINAL: Json = {"type": "ordinal", "rating": "stars", "pair_weight": 0.5, "answer_weight": 2.0}
RATINGS = ["helpfulness", "verbosity", "stars"]


def text(rng: np.random.Generator, count: int) -> str:
    return " ".join(rng.choice(WORDS, count))


def rated_rows(rng: np.random.Generator, prompts: int, name: str = "question") -> list[Json]:
    """Two rated answers to each prompt, by planted rules; the verbosity of some is not known."""
    rows = []
    for number in range(prompts):
        prompt = f"{name} {number} {text(rng, 3)}"
        for second in (False, True):
            answer = text(rng, 6)
            helpfulness = answer.count("good") - answer.count("bad")
            verbosity = None if second and number % 3 == 0 else answer.count("long")
            stars = min(3, 1 + answer.count("warm") + answer.count("new"))
            ratings = {"helpfulness": helpfulness, "verbosity": verbosity, "stars": stars}
            rows.append({"prompt": prompt, "response": answer, **ratings})
    return rows


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, base_models: Callable[..., Path]) -> tuple[Path, Json, Path]:
    """Rated answers and pairs in one mixture, some prompts in both: its folder, `stats.json`, and the base model."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("built")
    rated = rated_rows(rng, 90)
    rated.append(rated[0])
    pairs = [
        {"prompt": rated[2 * k]["prompt"] if k < 10 else f"pair {k} {text(rng, 3)}"}
        | {"chosen": f"{text(rng, 5)} good", "rejected": f"{text(rng, 5)} bad"}
        for k in range(50)
    ]
    shapes = {"hs": {"ratings": RATINGS}}
    training = {"objective": REGRESSION}
    stats = data_stages.build(folder, {"hs": rated, "prefs": pairs}, shapes, training=training, eval_fraction=0.25)
    data_stages.tokenize(folder, base_models("llama"))
    return folder, stats, base_models("llama")


def test_answers_and_pairs_of_a_prompt_are_on_one_side_and_are_one_comparison(built: tuple[Path, Json, Path]) -> None:
    folder, stats, _ = built
    assert stats["rows_in"] == 181 + 50
    assert stats["rejects"]["duplicate"] == 1
    assert sum(stats["answers"].values()) == 180
    assert stats["pairs_out"] == stats["train"] + stats["eval"] == 230
    assert not data_stages.prompts(folder, "train") & data_stages.prompts(folder, "eval")
    data = TokenDataset(folder / "tokens", "train")
    rows = [data[index] for index in range(len(data))]
    both = [row for row in rows if row.pairs and row.answers]
    assert both
    assert all(len(row.tails) == 4 for row in both)
    assert data.answers == stats["answers"]["train"] == sum(len(row.answers) for row in rows)
    assert data.pairs == stats["train"] - stats["answers"]["train"]
    ratings = data.ratings()
    assert len(ratings["helpfulness"]) == data.answers > len(ratings["verbosity"])
    alone = data.without_pairs()
    assert alone.pairs == 0
    assert alone.example_counts.sum() == data.answers
    assert not any(alone[index].pairs for index in range(len(alone)))


OPTIONS: Json = {"max_steps": 30, "epochs": 10, "learning_rate": 3e-3, "tokens_per_micro_batch": 400, "eval_every": 15}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, built: tuple[Path, Json, Path]) -> tuple[Path, list[Json]]:
    folder, _, base = built
    out = tmp_path_factory.mktemp("trained")
    options = {**OPTIONS, "objective": {**REGRESSION, "answer_weight": 2.0}, "normalize": True}
    return out, train(out, folder / "tokens", base, **options)[1]


def slow_losses(model: Any, row: Comparison, targets: Json) -> tuple[float, float]:
    """The sums of the losses of a comparison's pairs and answers, by plain transformers and one answer at a time."""

    def outputs(tail: int) -> Any:
        ids = torch.tensor([[*row.prefix.tolist(), *row.tails[tail].tolist()]])
        return model.score(model.base_model(ids).last_hidden_state)[0, -1].tolist()

    weights = [REGRESSION["weights"][name] for name in targets["names"]]
    scores = [sum(w * o for w, o in zip(weights, outputs(k), strict=True)) for k in range(len(row.tails))]
    pairs = sum(math.log1p(math.exp(scores[pair.rejected] - scores[pair.chosen])) for pair in row.pairs)
    answers = 0.0
    for answer in row.answers:
        known = {rating["name"]: rating["value"] for rating in answer.ratings}
        moments = zip(targets["names"], targets["mean"], targets["std"], outputs(answer.tail), strict=True)
        errors = [(o - (known[name] - mean) / std) ** 2 for name, mean, std, o in moments if name in known]
        answers += sum(errors) / len(errors)
    return pairs, answers


def test_the_first_loss_is_that_of_a_slow_loop(
    trained: tuple[Path, list[Json]], built: tuple[Path, Json, Path]
) -> None:
    folder, _, base = built
    out, lines = trained
    data = TokenDataset(folder / "tokens", "train")
    targets = json.loads((out / "out" / "run.json").read_text())["targets"]
    values = data.ratings()
    for name, mean, std in zip(targets["names"], targets["mean"], targets["std"], strict=True):
        assert (mean, std) == pytest.approx((values[name].mean(), values[name].std()))
    model = load_base(base, load_tokenizer(base), seed=1, dropout=0.0, outputs=2).eval()
    order = np.random.default_rng([1, 0]).permutation(len(data))
    rows, count = [], 0
    for index in order.tolist():
        if (count := count + int(data.example_counts[index])) > 8:
            break
        rows.append(data[index])
    with torch.no_grad():
        found = [slow_losses(model, row, targets) for row in rows]
    pairs, answers = (sum(column) for column in zip(*found, strict=True))
    examples = sum(len(row.pairs) + len(row.answers) for row in rows)
    assert lines[0]["answers"] == sum(len(row.answers) for row in rows)
    assert lines[0]["answer_loss"] == pytest.approx(answers / lines[0]["answers"], rel=1e-5)
    assert lines[0]["loss"] == pytest.approx((pairs + 2 * answers) / examples, rel=1e-5)


def test_the_loss_falls_and_evaluations_have_pairs_and_answers(trained: tuple[Path, list[Json]]) -> None:
    _, lines = trained
    assert np.mean(losses(lines)[-8:]) < 0.8 * np.mean(losses(lines)[:8])
    evaluations = [line for line in lines if "eval_loss" in line]
    assert evaluations[-1]["eval_loss"] < evaluations[0]["eval_loss"] or evaluations[-1]["eval_accuracy"] > 0.8


def test_plain_transformers_give_the_same_attributes_and_the_sum_is_the_score(trained: tuple[Path, list[Json]]) -> None:
    model_folder = trained[0] / "out"
    config = json.loads((model_folder / "config.json").read_text())
    assert config["id2label"] == {"0": "helpfulness", "1": "verbosity"}
    assert config["problem_type"] == "regression"
    own = config["rewardline"]
    assert [entry["weight"] for entry in own["attributes"]] == [1.0, -0.25]
    plain = AutoModelForSequenceClassification.from_pretrained(model_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    answers = ["red good good", "bad long old blue"]
    scorer = Scorer(str(model_folder))
    (scores,) = scorer.score([[{"role": "user", "content": "question 1"}]], [answers])
    assert isinstance(scores, AnswerScores)
    assert list(scores.beside) == ["helpfulness", "verbosity"]
    for k, answer in enumerate(answers):
        talk = [{"role": "user", "content": "question 1"}, {"role": "assistant", "content": answer}]
        with torch.no_grad():
            logits = plain(**tokenizer.apply_chat_template(talk, return_tensors="pt", return_dict=True)).logits[0]
        assert [values[k] for values in scores.beside.values()] == pytest.approx(logits.tolist(), abs=1e-5)
        raw = logits[0] - 0.25 * logits[1]
        moments = own["normalization"]
        assert scores[k] == pytest.approx((float(raw) - moments["mean"]) / moments["std"], abs=1e-4)
    table = score_table(scorer, [("question 1", answers)])
    assert f"{scores.beside['verbosity'][0]:.4f} verbosity" in table
    card = (model_folder / "README.md").read_text()
    assert "| 1 | verbosity | -0.25 |" in card
    assert "mean squared error of helpfulness, verbosity" in card


def test_the_server_gives_the_attributes_of_the_command_line(trained: tuple[Path, list[Json]]) -> None:
    scorer, answers = Scorer(str(trained[0] / "out")), ["red good good", "bad long old blue"]
    (expected,) = scorer.score([[{"role": "user", "content": "question 1"}]], [answers])
    assert isinstance(expected, AnswerScores)
    talk = [f"Human: question 1\n\nAssistant: {answer}" for answer in answers]
    with TestClient(Service(scorer, Limits()).app()) as client:
        found = client.post("/score", json={"prompt": "question 1", "answers": answers}).json()
        pair = {"prompt": "question 1", "chosen": answers[0], "rejected": answers[1]}
        compared = client.post("/score", json=pair).json()
        rewards = client.post("/get_reward", json={"query": talk}).json()
    assert found.pop("scores") == pytest.approx(list(expected), abs=1e-5)
    assert found == {f"scores_{name}": pytest.approx(values, abs=1e-5) for name, values in expected.beside.items()}
    for name, values in expected.beside.items():
        assert [compared[f"{side}_score_{name}"] for side in ("chosen", "rejected")] == pytest.approx(values, abs=1e-5)
        assert rewards["extra_logs"][f"reward_{name}"] == pytest.approx(values, abs=1e-5)


def test_metrics_are_those_of_the_outputs(
    trained: tuple[Path, list[Json]], built: tuple[Path, Json, Path], tmp_path: Path
) -> None:
    folder, stats, _ = built
    result = evaluated(trained[0] / "out", folder, tmp_path / "ev" / "r" / "eval")
    rows: list[Any] = list(read_rows(tmp_path / "ev" / "r" / "eval" / "answers.parquet"))
    assert len(rows) == stats["answers"]["eval"]
    assert result["n"] == stats["eval"] - len(rows)
    entries = json.loads((trained[0] / "out" / "config.json").read_text())["rewardline"]["attributes"]
    for k, entry in enumerate(entries):
        known = [
            (rating["value"], entry["mean"] + entry["std"] * row["outputs"][k])
            for row in rows
            for rating in row["ratings"]
            if rating["name"] == entry["name"]
        ]
        metrics = result["ratings"][entry["name"]]
        assert metrics["n"] == len(known)
        assert metrics["mse"] == pytest.approx(np.mean([(value - found) ** 2 for value, found in known]), rel=1e-5)
    assert result["ratings"]["helpfulness"]["spearman"] > 0.3
    assert result["rating_sum"]["accuracy"] > 0.6
    paths = [tmp_path / "ev" / "r" / "eval" / "metrics.json"]
    assert "(weighted sum)" in final_summary(paths)
    assert "| eval | helpfulness |" in evaluation_card(paths)


def evaluated(model: Path, folder: Path, out: Path) -> Json:
    settings = {"run": "r", "name": "r", "mixture": "m", "model": "x", "seed": 1, "benchmark": "eval"}
    options = {"--model": model, "--tokens": folder / "tokens", "--pairs": folder / "pairs" / "m", "--output": out}
    given = json.dumps({**settings, "trust_remote_code": False, "threads": 1})
    assert evaluate.main(["--settings", given, *(str(part) for item in options.items() for part in item)]) == 0
    result: Json = json.loads((out / "metrics.json").read_text())
    return result


def test_weights_fitted_on_pairs_tell_chosen_from_rejected(built: tuple[Path, Json, Path], tmp_path: Path) -> None:
    folder, _, base = built
    _, lines = train(tmp_path, folder / "tokens", base, **{**OPTIONS, "objective": {**REGRESSION, "weights": "fit"}})
    assert {line["pairs"] for line in lines if "answers" in line} == {0}
    assert {line["accuracy"] for line in lines if "answers" in line} == {None}
    data = TokenDataset(folder / "tokens", "train")
    out = tmp_path / "out"
    weights = [one["weight"] for one in json.loads((out / "config.json").read_text())["rewardline"]["attributes"]]
    plain = AutoModelForSequenceClassification.from_pretrained(out).eval()
    differences = []
    for row in (data[index] for index in range(len(data))):
        ids = [torch.tensor([[*row.prefix.tolist(), *tail.tolist()]]) for tail in row.tails]
        with torch.no_grad():
            outputs = [plain.score(plain.base_model(one).last_hidden_state)[0, -1].double() for one in ids]
        differences += [outputs[pair.chosen] - outputs[pair.rejected] for pair in row.pairs]
    x = torch.stack(differences)
    fitted = torch.tensor(weights, dtype=torch.float64, requires_grad=True)
    penalty = 1e-4 * len(x)
    loss = torch.nn.functional.softplus(-(x @ fitted)).sum() + penalty / 2 * fitted.square().sum()
    (gradient,) = torch.autograd.grad(loss, fitted)
    assert gradient.tolist() == pytest.approx([0.0, 0.0], abs=1e-4 * len(x))
    assert weights[0] > 0


def test_ordinal_labels_and_pairs_train_one_score_and_a_killed_run_resumes_exactly(
    built: tuple[Path, Json, Path], tmp_path: Path
) -> None:
    folder, _, base = built
    whole, lines = finish(tmp_path / "whole", folder / "tokens", base, objective=ORDINAL)
    assert np.mean(losses(lines)[-5:]) < np.mean(losses(lines)[:5])
    stop_at_step(start(tmp_path / "killed", folder / "tokens", base, objective=ORDINAL), tmp_path / "killed", 10, 9)
    resumed, again = finish(tmp_path / "killed", folder / "tokens", base, objective=ORDINAL)
    assert largest_difference(whole, resumed) == 0
    assert losses(again) == losses(lines)
    assert whole["score.weight"].shape[0] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "options"),
    [(TWO, {"zero_stage": 3}), ((), {"zero_stage": 2, "lora": {"rank": 4}}), ((), {"batching": "padded"})],
    ids=["zero 3, two processes", "zero 2, lora", "padded"],
)
def test_other_ways_to_compute_it_give_the_same_losses(
    trained: tuple[Path, list[Json]], built: tuple[Path, Json, Path], tmp_path: Path, more: Any, options: Json
) -> None:
    folder, _, base = built
    objective = {**REGRESSION, "answer_weight": 2.0}
    common = {**OPTIONS, "max_steps": 4, "warmup": 1, "eval_every": 0, "objective": objective}
    weights, lines = train(tmp_path / "this", folder / "tokens", base, *more, **{**common, **options})
    assert losses(lines)[0] == pytest.approx(losses(trained[1])[0], rel=1e-5)
    assert weights["score.weight"].shape[0] == 2
    assert json.loads((tmp_path / "this" / "out" / "config.json").read_text())["id2label"]["1"] == "verbosity"


def test_an_encoder_has_attributes_too(base_models: Callable[..., Path]) -> None:
    base = base_models("bert")
    tokenizer = load_tokenizer(base)
    model = load_base(base, tokenizer, seed=0, outputs=3).eval()
    entries: Any = [
        {"name": name, "mean": 0.0, "std": 1.0, "weight": weight}
        for name, weight in zip("abc", (1, 2, -1), strict=False)
    ]
    wrapped = RewardModel(model, raw=True, attributes=entries)
    ids = torch.tensor([[5, 6, 7, 8]])
    from rewardline.model.batch import collate

    batch = collate([Comparison("", np.array([5, 6, 7], np.int32), [np.array([8], np.int32)], [])], wrapped.batching, 0)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        (row,) = wrapped(batch, with_attributes=True)
        (score,) = wrapped(batch)
    assert row[1:].tolist() == pytest.approx(logits.tolist(), abs=1e-6)
    assert float(score) == float(row[0]) == pytest.approx(float(logits[0] + 2 * logits[1] - logits[2]), abs=1e-6)


def test_answers_without_an_objective_and_constants_stop_before_training(
    built: tuple[Path, Json, Path], tmp_path: Path
) -> None:
    folder, _, base = built
    for name, objective, message in (
        ("none", None, "single answers with ratings, which only an objective trains on"),
        ("unknown", {"type": "binary"}, "has a rating label; it has helpfulness, stars, verbosity"),
        ("type", {"type": "binary", "rating": "stars"}, "stars is from 1 to 3"),
    ):
        with pytest.raises(AssertionError, match=message):
            train(tmp_path / name, folder / "tokens", base, objective=objective)


def test_only_rated_answers_can_be_trained_on_and_evaluated(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    rows = rated_rows(np.random.default_rng(3), 40)
    for row in rows:
        row["label"] = row.pop("helpfulness") > 0
    shapes = {"t": {"format": "rated"}}
    stats = data_stages.build(
        tmp_path, {"t": rows}, shapes, training={"objective": {"type": "binary"}}, eval_fraction=0.3
    )
    assert stats["answers"] == {"eval": stats["eval"], "train": stats["train"]}
    data_stages.tokenize(tmp_path, base_models("llama"))
    _, lines = train(tmp_path / "run", tmp_path / "tokens", base_models("llama"), objective={"type": "binary"})
    assert lines[0]["loss"] == pytest.approx(lines[0]["answer_loss"])
    result = evaluated(tmp_path / "run" / "out", tmp_path, tmp_path / "evals" / "r" / "eval")
    assert (result["n"], result["accuracy"]) == (0, None)
    assert result["ratings"]["label"]["n"] == stats["eval"]
    summary = final_summary([tmp_path / "evals" / "r" / "eval" / "metrics.json"])
    assert summary.startswith("Ratings of single answers")
    with pytest.raises(UserError, match="other"):
        data_stages.build(
            tmp_path / "again",
            {"t": rows},
            {"t": {"ratings": ["other"]}},
            training={"objective": {"type": "binary", "rating": "other"}},
        )
