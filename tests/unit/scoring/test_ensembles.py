"""Ensembles and averages as they leave the pipeline: their folders, and the scores that people get of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

import average_weights
import export_ensemble
import score
from rewardline.core.artifacts import write_sealed
from rewardline.core.errors import UserError
from rewardline.data.schema import Message
from rewardline.scoring.rows import AnswerScores, PromptAnswers
from rewardline.scoring.server.batcher import FullText, Scored
from rewardline.scoring.server.protocols import openrlhf, rows
from rewardline.scoring.text_scorer import Scorer
from rewardline.tokens.templates import export_plain

from support.reward_models import reward_model
from support.training_runs import run_facts, training_settings

Json = dict[str, Any]
PROMPT, ANSWERS = "How many are 3 and 4?", ["They are 7.", "No", "They are 8, are they not?"]
MOMENTS = {"a": (0.5, 2.0), "b": (-3.0, 3.0)}


def member(folder: Path, start: Path, seed: int, **facts: Any) -> Path:
    """A model as training leaves it."""
    reward_model(start, folder, seed)
    tokenization: Json = {"template": "plain", "end_token": "<|end|>", "max_length": 64}
    tokenization["chat_template"] = export_plain("", "<|end|>")
    content = run_facts(folder / "model.safetensors", run=folder.name, tokenization=tokenization, **facts).as_json()
    write_sealed(folder / "run.json", content, ["model.safetensors", "config.json"])
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, base_models: Callable[..., Path]) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("members")
    return {name: member(root / name, base_models("llama"), seed) for seed, name in enumerate("ab")}


def averaged(members: list[Path], output: Path, *more: str) -> Path:
    names = [path.name for path in members]
    settings = {"run": output.name, "mixture": "m", "model": "x", "average": names}
    files = [str(path / "run.json") for path in members]
    assert (
        average_weights.main(["--settings", json.dumps(settings), "--models", *files, "--output", str(output), *more])
        == 0
    )
    return output


def exported(models: dict[str, Path], folder: Path, combine: str) -> Path:
    settings: Json = {"run": "committee", "name": "committee", "mixture": "m", "model": "x", "seed": None}
    settings |= {"benchmark": "eval", "ensemble": [*models], "combine": combine, "variance_weight": 0.3}
    standards = {name: {"mean": mean, "std": std} for name, (mean, std) in MOMENTS.items()}
    judged = {"run": "committee", "mixture": "m", "model": "x", "benchmark": "eval", "n": 9, "accuracy": 0.5}
    (folder / "metrics.json").write_text(json.dumps({**judged, "standards": standards}))
    files = [str(path / "run.json") for path in models.values()]
    options = ["--models", *files, "--metrics", str(folder / "metrics.json"), "--output", str(folder / "committee")]
    assert export_ensemble.main(["--settings", json.dumps(settings), *options]) == 0
    return folder / "committee"


def by_member(models: dict[str, Path]) -> "np.typing.NDArray[np.float64]":
    prompt = [Message(role="user", content=PROMPT)]
    return np.array([Scorer(str(path)).score([prompt], [ANSWERS])[0] for path in models.values()], dtype=np.float64)


def scored(tmp_path: Path, *options: str) -> list[Json]:
    row: Json = {"prompt": PROMPT, "answers": ANSWERS}
    lines = [row, {"prompt": PROMPT, "chosen": ANSWERS[0], "rejected": ANSWERS[1]}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    files = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    assert score.main(["--model", *options, *files]) == 0
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("combine", ["mean", "worst", "mean_minus_variance"])
def test_the_folder_of_an_ensemble_gives_what_a_plain_computation_gives(
    models: dict[str, Path], tmp_path: Path, combine: str
) -> None:
    folder = exported(models, tmp_path, combine)
    moments = np.array(list(MOMENTS.values()))
    standard = (by_member(models) - moments[:, :1]) / moments[:, 1:]
    mean, variance = standard.mean(axis=0), standard.var(axis=0)
    expected = {"mean": mean, "worst": standard.min(axis=0), "mean_minus_variance": mean - 0.3 * variance}[combine]
    first, second = scored(tmp_path, str(folder))
    assert first["scores"] == pytest.approx(expected, abs=1e-5)
    assert first["scores_mean"] == pytest.approx(mean, abs=1e-5)
    assert first["scores_std"] == pytest.approx(np.sqrt(variance), abs=1e-5)
    assert (second["chosen_score"], second["rejected_score"]) == pytest.approx(tuple(expected[:2]), abs=1e-5)
    assert second["rejected_score_std"] == pytest.approx(np.sqrt(variance)[1], abs=1e-5)
    if combine == "mean":
        table = pa.table({"prompt": [PROMPT], "answers": [ANSWERS]})
        pq.write_table(table, tmp_path / "in.parquet")
        files = ["--input", str(tmp_path / "in.parquet"), "--output", str(tmp_path / "out.parquet")]
        assert score.main(["--model", str(folder), *files, "--combine", "worst"]) == 0
        (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
        assert row["scores"] == pytest.approx(standard.min(axis=0), abs=1e-5)
        assert row["scores_std"] == pytest.approx(np.sqrt(variance), abs=1e-5)


def test_models_that_are_named_one_by_one_are_combined_as_they_are_normalized(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = [str(path) for path in models.values()]
    first, _ = scored(tmp_path, *both)
    assert first["scores"] == pytest.approx(by_member(models).mean(axis=0), abs=1e-5)
    assert capsys.readouterr().err.count(f"the scores of {both[0]}, {both[1]} are not normalized: the standard") == 1
    assert score.main(["--model", *both, "--prompt", PROMPT, "--answer", "7."]) == 0
    assert "±" in capsys.readouterr().out
    for combine in ("worst", "mean_minus_variance"):
        with pytest.raises(UserError, match=f"--combine {combine}: .* are not normalized, so that they have an origin"):
            score.main(["--model", *both, "--combine", combine, "--prompt", PROMPT, "--answer", "7."])
    with pytest.raises(UserError, match="--combine is for an ensemble"):
        score.main(["--model", both[0], "--combine", "worst", "--prompt", PROMPT, "--answer", "7."])


def test_normalized_models_come_without_a_warning(
    tmp_path: Path, base_models: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    both = []
    for seed, (name, (mean, std)) in enumerate(MOMENTS.items()):
        folder = member(tmp_path / name, base_models("llama"), seed)
        config = json.loads((folder / "config.json").read_text())
        entry = {"mean": mean, "std": std, "folded": False, "mean_left": 0.0}
        config["rewardline"] = {**config.get("rewardline", {}), "score": "last", "normalization": entry}
        (folder / "config.json").write_text(json.dumps(config))
        facts = json.loads((folder / "run.json").read_text())
        write_sealed(folder / "run.json", facts, ["model.safetensors", "config.json"])
        both.append(str(folder))
    assert len(scored(tmp_path, *both, "--combine", "mean_minus_variance")) == 2
    assert "not normalized" not in capsys.readouterr().err


def test_models_that_read_a_text_otherwise_are_refused(
    models: dict[str, Path], tmp_path: Path, base_models: Callable[..., Path]
) -> None:
    other = member(tmp_path / "other", base_models("llama", pad_token="<pad2>"), 3)
    folder = exported(models, tmp_path, "mean")
    for wrong, message in (
        ([str(models["a"]), str(other)], "have different tokenizers"),
        ([str(models["a"]), str(folder)], "is an ensemble itself"),
        ([str(folder / "members")], "no config.json"),
    ):
        with pytest.raises(UserError, match=message):
            score.main(["--model", *wrong, "--prompt", PROMPT, "--answer", "7."])
    with pytest.raises(UserError, match="is an ensemble of models, not a model"):
        Scorer(str(folder))
    (folder / "members" / "b" / "run.json").write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        score.main(["--model", str(folder), "--prompt", PROMPT, "--answer", "7."])


def test_an_average_is_a_plain_model_with_the_mean_of_the_weights(models: dict[str, Path], tmp_path: Path) -> None:
    output = averaged([*models.values()], tmp_path / "soup")
    first, second, mean = (load_file(path / "model.safetensors") for path in (*models.values(), output))
    assert mean.keys() == first.keys()
    assert all(torch.equal(mean[name], ((first[name].double() + second[name]) / 2).float()) for name in mean)
    loaded = AutoModelForSequenceClassification.from_pretrained(output).eval()
    scorer = Scorer(str(output))
    (found,) = scorer.score([[{"role": "user", "content": PROMPT}]], [ANSWERS[:1]])
    (comparison,) = scorer.encode([[{"role": "user", "content": PROMPT}]], [ANSWERS[:1]])
    ids = [*comparison.prefix, *comparison.tails[0]]  # type: ignore[union-attr]
    with torch.inference_mode():
        assert found == pytest.approx([loaded(torch.tensor([ids])).logits[0, 0].item()], abs=1e-5)
    card, facts = (output / "README.md").read_text(), json.loads((output / "run.json").read_text())
    assert "the mean of those of a, b" in card and facts["average"] == ["a", "b"] and facts["seed"] is None
    assert facts["exported_step"] is None, "its weights are of no step"


def test_an_average_is_normalized_by_its_own_scores(
    tmp_path: Path, base_models: Callable[..., Path], tokens: Path
) -> None:
    training = training_settings(normalize=True)
    members = [member(tmp_path / name, base_models("llama"), seed, training=training) for seed, name in enumerate("ab")]
    output = averaged(members, tmp_path / "warm", "--tokens", str(tokens))
    entry = json.loads((output / "config.json").read_text())["rewardline"]["normalization"]
    assert entry["std"] > 0 and not entry["folded"]
    raw, own = (Scorer(str(output), raw=raw) for raw in (True, False))
    prompt = [Message(role="user", content=PROMPT)]
    (plain,), (found,) = raw.score([prompt], [ANSWERS]), own.score([prompt], [ANSWERS])
    assert found == pytest.approx([(one - entry["mean"]) / entry["std"] for one in plain], abs=1e-5)  # type: ignore[union-attr]


def test_members_without_a_complete_training_are_not_averaged(
    models: dict[str, Path], tmp_path: Path, base_models: Callable[..., Path]
) -> None:
    early = member(tmp_path / "early", base_models("llama"), 2, eliminated_at=20)
    gone = member(tmp_path / "gone", base_models("llama"), 3, diverged="the loss is not finite at step 3")
    output = averaged([early, models["a"], gone], tmp_path / "soup")
    assert json.loads((output / "run.json").read_text())["average"] == ["a"]
    assert load_file(output / "model.safetensors").keys() == load_file(models["a"] / "model.safetensors").keys()
    with pytest.raises(UserError, match=r"runs.none.average: all members have diverged or are eliminated"):
        averaged([early, gone], tmp_path / "none")


def test_models_of_which_there_is_no_mean_are_refused(
    models: dict[str, Path], tmp_path: Path, base_models: Callable[..., Path]
) -> None:
    base, a = base_models("llama"), models["a"]
    for name, facts, message in (
        ("c", {"base": [{"file": "x", "sha256": "y"}]}, "base models"),
        ("d", {"training": training_settings(score="mean")}, "heads"),
        ("e", {"training": training_settings(normalize=True)}, "normalizations"),
    ):
        other = member(tmp_path / name, base, 1, **facts)
        with pytest.raises(UserError, match=f"have different {message}"):
            averaged([a, other], tmp_path / "wrong")
    other = member(tmp_path / "f", base_models("qwen2"), 1)
    with pytest.raises(UserError, match="weights of different names"):
        averaged([a, other], tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_a_server_says_how_much_the_members_differ() -> None:
    found = AnswerScores([1.0, 2.0], {"mean": [1.5, 2.5], "std": [0.1, 0.2]})
    row = PromptAnswers([], ["x", "y"], ("chosen_score", "rejected_score"))
    assert row.named(found) == {
        **{"chosen_score": 1.0, "rejected_score": 2.0, "chosen_score_mean": 1.5, "rejected_score_mean": 2.5},
        **{"chosen_score_std": 0.1, "rejected_score_std": 0.2},
    }
    parsed = rows({"prompt": "p", "answers": ["x", "y"]}, "model")
    assert parsed.reply([Scored(found, 4)]) == {
        "scores": [1.0, 2.0], "scores_mean": [1.5, 2.5], "scores_std": [0.1, 0.2],
    }  # fmt: skip
    asked = openrlhf({"query": ["a", "b"]}, "model")
    assert asked.items == [FullText("a", ended=True), FullText("b", ended=True)]
    reply = asked.reply([Scored(AnswerScores([1.0], {"mean": [2.0], "std": [0.5]}), 2)] * 2)
    assert reply == {
        "rewards": [1.0, 1.0],
        "scores": [1.0, 1.0],
        "extra_logs": {"reward_mean": [2.0, 2.0], "reward_std": [0.5, 0.5]},
    }
