"""Real trainings of a tiny model: equal for every ZeRO stage and number of processes, resumable bit for bit."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from conftest import random_comparison, write_tokens
from trainings import ENVIRONMENT, command, losses, train, training

Json = dict[str, Any]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    shapes = [(int(rng.integers(0, 20)), [int(n) for n in rng.integers(1, 12, rng.integers(2, 4))]) for _ in range(60)]
    rows = [random_comparison(rng, prefix, tails, vocabulary=250) for prefix, tails in shapes]
    for row in rows:  # something to learn: good answers end in one token, bad ones in another
        for index, tail in enumerate(row.tails):
            tail[-1] = 10 + (index > 0)
    folder = tmp_path_factory.mktemp("data") / "m" / "x"
    write_tokens(folder, rows[:48], rows[48:])
    return folder


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys()
    return max((first[name].float() - second[name].float()).abs().max().item() for name in first)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, tokens: Path, base_models: Callable[..., Path]) -> Any:
    return train(tmp_path_factory.mktemp("reference"), tokens, base_models("llama"))


def test_log_has_a_line_for_every_step_and_evaluation(reference: Any) -> None:
    _, lines = reference
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    expected = {"step", "epoch", "loss", "accuracy", "chosen_mean", "rejected_mean", "learning_rate", "grad_norm"}
    assert expected | {"pairs", "tokens", "tokens_per_second"} <= set(steps[0])
    assert all(0 < line["pairs"] <= 8 for line in steps)
    assert [line["step"] for line in lines if "eval_loss" in line] == [3, 6]
    assert all({"eval_accuracy", "eval_chosen_mean", "eval_rejected_mean"} <= set(x) for x in lines if "eval_loss" in x)
    assert losses(lines)[-1] < losses(lines)[0]


def test_first_loss_is_that_of_a_plain_loop(tokens: Path, base_models: Callable[..., Path], reference: Any) -> None:
    from rewardline import batches
    from rewardline.reward_model import load_base
    from rewardline.shards import TokenDataset
    from rewardline.tokenization import load_tokenizer

    base = base_models("llama")
    model = load_base(base, load_tokenizer(base), seed=1).eval()
    data = TokenDataset(tokens, "train")
    step = batches.steps(data.pair_counts, batches.order(data, 1, 0), 8)[0]
    values = []
    for piece in step:
        comparison = data[piece.index]
        for pair in comparison.pairs:
            scores = []
            for side in ("chosen", "rejected"):
                ids = torch.from_numpy(np.concatenate([comparison.prefix, comparison.tails[pair[side]]]).astype(int))
                scores.append(model(input_ids=ids[None]).logits.item())
            values.append(np.log1p(np.exp(scores[1] - scores[0])))
    assert losses(reference[1])[0] == pytest.approx(np.mean(values), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "more", "tolerance"),
    [
        ({"zero_stage": 1}, (), 1e-5),
        ({"zero_stage": 2}, (), 1e-5),
        ({"zero_stage": 3}, (), 1e-5),
        ({"batching": "padded"}, (), 1e-4),
        ({"tokens_per_micro_batch": 10_000}, (), 1e-4),
        ({"gradient_checkpointing": True}, (), 0.0),
        ({"zero_stage": 2, "offload": "optimizer"}, (), 1e-5),
        ({"zero_stage": 3, "offload": "all"}, (), 1e-5),
        ({"zero_stage": 0}, ("--processes", "2", "--threads", "2"), 1e-4),
        ({"zero_stage": 2}, ("--processes", "2", "--threads", "2"), 1e-4),
        ({"zero_stage": 3}, ("--processes", "2", "--threads", "2"), 1e-4),
    ],
)
def test_how_a_training_is_shared_out_does_not_change_it(
    tmp_path: Path,
    tokens: Path,
    base_models: Callable[..., Path],
    reference: Any,
    options: Json,
    more: tuple[str, ...],
    tolerance: float,
) -> None:
    weights, lines = train(tmp_path, tokens, base_models("llama"), *more, **options)
    assert losses(lines) == pytest.approx(losses(reference[1]), abs=1e-5)
    assert largest_difference(weights, reference[0]) <= tolerance


def kill_at_step(process: subprocess.Popen[bytes], folder: Path, step: int, number: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        logs = list((folder / "checkpoints").glob("*/log.jsonl"))
        if logs and f'"step": {step},' in logs[0].read_text():
            break
        time.sleep(0.005)
    process.send_signal(number)
    process.wait()


@pytest.mark.parametrize(
    ("number", "options", "more"),
    [
        (signal.SIGKILL, {}, ()),
        (signal.SIGKILL, {"zero_stage": 2}, ("--processes", "2", "--threads", "2")),
        (signal.SIGTERM, {"zero_stage": 3}, ()),
    ],
)
def test_killed_training_goes_on_to_bit_equal_weights(
    tmp_path: Path, tokens: Path, base_models: Callable[..., Path], number: int, options: Json, more: tuple[str, ...]
) -> None:
    base = base_models("llama")
    options = {"max_steps": 40, "epochs": 10, "eval_every": 0, "checkpoint_every": 4, **options}
    expected, expected_lines = train(tmp_path / "undisturbed", tokens, base, *more, **options)
    folder = tmp_path / "killed"
    folder.mkdir()
    defaults = {"pairs_per_step": 8, "tokens_per_micro_batch": 60, "learning_rate": 1e-2}
    run = command(folder, tokens, base, training(**{**defaults, **options}), *more)
    for step in (6, 13):
        kill_at_step(subprocess.Popen(run, env=ENVIRONMENT), folder, step, number)
        assert not (folder / "out").exists()
    weights, lines = train(folder, tokens, base, *more, **options)
    assert "continuing after step" in (folder / "log").read_text()
    assert largest_difference(weights, expected) == 0.0
    assert [(x["step"], x["loss"]) for x in lines] == [(x["step"], x["loss"]) for x in expected_lines]
    assert [path.name for path in (folder / "checkpoints").glob("*/*")] == ["model"]


def test_finished_training_is_not_repeated_under_the_same_key(
    tmp_path: Path, tokens: Path, base_models: Callable[..., Path]
) -> None:
    base = base_models("llama")
    first, _ = train(tmp_path, tokens, base)
    inode = (tmp_path / "out" / "model.safetensors").stat().st_ino
    again, _ = train(tmp_path, tokens, base)
    assert "already done" in (tmp_path / "log").read_text()
    assert (tmp_path / "out" / "model.safetensors").stat().st_ino == inode
    other, _ = train(tmp_path, tokens, base, learning_rate=2e-2)
    assert largest_difference(first, again) == 0.0
    assert largest_difference(first, other) > 0
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_damaged_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, tokens: Path, base_models: Callable[..., Path]
) -> None:
    base = base_models("llama")
    options = {"max_steps": 40, "epochs": 10, "eval_every": 0, "checkpoint_every": 4}
    expected, _ = train(tmp_path / "undisturbed", tokens, base, **options)
    folder = tmp_path / "damaged"
    folder.mkdir()
    defaults = {"pairs_per_step": 8, "tokens_per_micro_batch": 60, "learning_rate": 1e-2}
    run = command(folder, tokens, base, training(**{**defaults, **options}))
    kill_at_step(subprocess.Popen(run, env=ENVIRONMENT), folder, 14, signal.SIGKILL)
    saved = sorted((folder / "checkpoints").glob("*/step-*"))
    assert len(saved) == 2
    for path in saved[-1].rglob("*.pt"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    weights, _ = train(folder, tokens, base, **options)  # and passes the step of the damaged one
    assert "cannot be read" in (folder / "log").read_text()
    assert largest_difference(weights, expected) == 0.0


def test_checkpoint_of_other_processes_is_kept_and_named(
    tmp_path: Path, tokens: Path, base_models: Callable[..., Path]
) -> None:
    base = base_models("llama")
    options = {"max_steps": 400, "epochs": 100, "eval_every": 0, "checkpoint_every": 4, "zero_stage": 1}
    options |= {"pairs_per_step": 8, "tokens_per_micro_batch": 60}
    run = command(tmp_path, tokens, base, training(**options))
    kill_at_step(subprocess.Popen([*run, "--processes", "2"], env=ENVIRONMENT), tmp_path, 6, signal.SIGKILL)
    saved = sorted((tmp_path / "checkpoints").glob("*/step-*"))
    assert saved
    assert subprocess.run(run, env=ENVIRONMENT, check=False).returncode == 1
    assert "saved by 2 processes" in (tmp_path / "log").read_text()
    assert sorted((tmp_path / "checkpoints").glob("*/step-*")) == saved


def test_without_a_terminal_progress_is_a_few_plain_lines(
    tmp_path: Path, tokens: Path, base_models: Callable[..., Path]
) -> None:
    options = {"max_steps": 60, "epochs": 20, "pairs_per_step": 8, "tokens_per_micro_batch": 60}
    run = command(tmp_path, tokens, base_models("llama"), training(**options))
    done = subprocess.run(run, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert "\r" not in done.stderr
    assert len(done.stderr.splitlines()) < 12


def test_damaged_finished_model_is_trained_again(
    tmp_path: Path, tokens: Path, base_models: Callable[..., Path]
) -> None:
    base = base_models("llama")
    first, _ = train(tmp_path, tokens, base)
    path = next((tmp_path / "checkpoints").glob("*/model/model.safetensors"))
    path.write_bytes(path.read_bytes()[:-4] + b"oops")
    again, _ = train(tmp_path, tokens, base)
    assert "is damaged" in (tmp_path / "log").read_text()
    assert largest_difference(first, again) == 0.0


def test_lora_trains_adapters_and_exports_a_plain_model(
    tmp_path: Path, tokens: Path, base_models: Callable[..., Path]
) -> None:
    base = base_models("llama")
    weights, lines = train(tmp_path, tokens, base, zero_stage=2, lora={"rank": 4, "alpha": 8})
    assert not [name for name in weights if "lora" in name]
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["trained_parameters"] < run["parameters"] / 4
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert set(plain.state_dict()) == set(weights)
    before = load_file(base / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    assert (weights[name] - before[name]).abs().max() > 0
    assert torch.equal(weights["model.embed_tokens.weight"], before["model.embed_tokens.weight"])
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()
    assert losses(lines)[-1] < losses(lines)[0]


def test_bf16_trains(tmp_path: Path, tokens: Path, base_models: Callable[..., Path], reference: Any) -> None:
    weights, lines = train(tmp_path, tokens, base_models("llama"), precision="bf16", zero_stage=2)
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert losses(lines) == pytest.approx(losses(reference[1]), abs=0.05)


def test_opt_with_its_peculiarities_trains_and_loads_in_plain_transformers(
    tmp_path: Path, tokens: Path, base_models: Callable[..., Path]
) -> None:
    base = base_models("opt", bos_token="</s>", eos_token="</s>", pad_token="<pad>")
    _, lines = train(tmp_path, tokens, base, learning_rate=3e-3, max_steps=12, epochs=3, zero_stage=2)
    assert losses(lines)[-1] < losses(lines)[0]
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").config
    assert (config.model_type, config.word_embed_proj_dim, config.num_labels) == ("opt", 16, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 1e30, "warmup": 0, "clip": 0}, "the loss is not finite at step"),
        ({"precision": "fp16", "zero_stage": 1}, "training.precision: fp16 needs a GPU"),
        ({"lora": {"target_modules": ["nothing"]}}, "training.lora"),
    ],
)
def test_mistakes_end_with_one_message(
    tmp_path: Path, tokens: Path, base_models: Callable[..., Path], options: Json, message: str
) -> None:
    run = command(tmp_path, tokens, base_models("llama"), training(**{"max_steps": 20, "epochs": 5, **options}))
    assert subprocess.run(run, env=ENVIRONMENT, check=False).returncode == 1
    text = (tmp_path / "log").read_text()
    assert f"error: {message}" in text
    assert "Traceback" not in text
    assert not (tmp_path / "out").exists()
