"""Real training runs of a tiny model: equal for every ZeRO stage and number of processes, and not repeated."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from rewardline.core.files import read_json
from rewardline.model.loading import load_base
from rewardline.tokens.store import TokenDataset
from rewardline.tokens.tokenizer import load_tokenizer
from rewardline.training import batching

from support.paths import SCRIPTS
from support.processes import forks
from support.training_runs import (
    ENVIRONMENT,
    SIX_STEPS,
    Result,
    command,
    largest_difference,
    losses,
    result,
    train,
    training,
    write_small_tokens,
)

Json = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reference")


@pytest.fixture(scope="module")
def reference(folder: Path, tokens: Path, base: Path) -> Result:
    return train(folder, tokens, base)


def test_log_has_a_line_for_every_step_and_evaluation(reference: Result) -> None:
    _, lines = reference
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    expected = {"step", "epoch", "loss", "accuracy", "chosen_mean", "rejected_mean", "learning_rate", "grad_norm"}
    assert expected | {"pairs", "tokens", "tokens_per_second"} <= set(steps[0])
    assert all(0 < line["pairs"] <= 8 for line in steps)
    assert [line["step"] for line in lines if "eval_loss" in line] == [3, 6]
    assert all({"eval_accuracy", "eval_chosen_mean", "eval_rejected_mean"} <= set(x) for x in lines if "eval_loss" in x)
    assert losses(lines)[-1] < losses(lines)[0]
    assert all(line["grad_norm"] > 0 for line in steps)


def test_a_process_of_its_own_trains_as_a_fork(tmp_path: Path, tokens: Path, base: Path, reference: Result) -> None:
    subprocess.run(command(tmp_path, tokens, base, training(**SIX_STEPS)), env=ENVIRONMENT, check=True)
    weights, lines = result(tmp_path)
    assert largest_difference(weights, reference[0]) == 0.0
    assert losses(lines) == losses(reference[1])


def test_run_json_and_model_card_say_what_was_computed(folder: Path, reference: Result) -> None:
    _, lines = reference
    run = json.loads((folder / "out" / "run.json").read_text())
    full = sum(line["tokens"] for line in lines if "loss" in line)
    assert run["tokens"] == full > run["computed_tokens"] == sum(x["computed_tokens"] for x in lines if "loss" in x)
    assert run["shared_share"] == pytest.approx(1 - run["computed_tokens"] / full, abs=1e-4)
    assert run["padding_share"] == 0
    assert 0 < run["utilisation"] < 1
    assert run["utilisation"] == pytest.approx(
        run["model_flops"] / run["seconds"] / run["peak_flops_per_second"], rel=0.1
    )
    assert {"versions", "git", "hardware", "training", "data", "base", "weights_sha256", "peak_source"} <= set(run)
    assert [path.parent for path in folder.rglob("*tfevents*")] == [folder / "out" / "tensorboard"]  # each run once
    card = (folder / "out" / "README.md").read_text()
    stated = "fp32, 1 process with 1 CPU thread each"
    for part in (f"| weights | of step {run['steps']}", f"{run['shared_share']:.1%} less", run["peak_source"], stated):
        assert part in card


def test_first_loss_is_that_of_a_plain_loop(tokens: Path, base: Path, reference: Result) -> None:
    model = load_base(base, load_tokenizer(base), seed=1).eval()
    data = TokenDataset(tokens, "train")
    step = batching.steps(data.pair_counts, batching.order(data, 1, 0), 8)[0]
    values = []
    for piece in step:
        comparison = data[piece.index]
        for pair in comparison.pairs:
            scores = []
            for tail in (pair.chosen, pair.rejected):
                ids = torch.from_numpy(np.concatenate([comparison.prefix, comparison.tails[tail]]).astype(int))
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
        pytest.param({"compile": True, "gradient_checkpointing": True}, (), 1e-4, marks=pytest.mark.slow),
        ({"zero_stage": 2, "offload": "optimizer"}, (), 1e-5),
        ({"zero_stage": 3, "offload": "all"}, (), 1e-5),
        ({"zero_stage": 0}, ("--processes", "2"), 1e-4),
        ({"zero_stage": 2}, ("--processes", "2"), 1e-4),
        ({"zero_stage": 3}, ("--processes", "2"), 1e-4),
    ],
)
def test_how_training_is_distributed_does_not_change_it(
    tmp_path: Path,
    tokens: Path,
    base: Path,
    reference: Result,
    options: Json,
    more: tuple[str, ...],
    tolerance: float,
) -> None:
    weights, lines = train(tmp_path, tokens, base, *more, **options)
    assert losses(lines) == pytest.approx(losses(reference[1]), abs=1e-5)
    assert largest_difference(weights, reference[0]) <= tolerance
    norms = [[line["grad_norm"] for line in found if "grad_norm" in line] for found in (lines, reference[1])]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


def test_a_finished_run_is_repeated_if_it_is_damaged_or_its_settings_change(
    tmp_path: Path, folder: Path, tokens: Path, base: Path, reference: Result
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    kept = next((tmp_path / "checkpoints").glob("*/model/model.safetensors"))
    made = kept.stat().st_mtime_ns
    weights, _ = train(tmp_path, tokens, base)
    assert "already done" in (tmp_path / "log").read_text()
    assert largest_difference(weights, reference[0]) == 0.0
    assert kept.stat().st_mtime_ns == made
    kept.write_bytes(kept.read_bytes()[:-4] + b"oops")
    weights, _ = train(tmp_path, tokens, base)
    assert "is damaged" in (tmp_path / "log").read_text()
    assert largest_difference(weights, reference[0]) == 0.0
    other, _ = train(tmp_path, tokens, base, learning_rate=2e-2)
    assert largest_difference(other, weights) > 0
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


WITHOUT_EFFECT = [
    "training/records/templates/model_card.md.jinja",
    "training/records/loggers.py",
    "training/processes/launcher.py",
    "training/health.py",
    "training/records/throughput.py",
    "training/loop.py",
    "core/progress.py",
]
"""Files of the library that no weight depends on."""


def test_an_edit_trains_again_only_if_weights_depend_on_it(tmp_path: Path, tokens: Path, base: Path) -> None:
    scripts = tmp_path / "scripts"
    shutil.copytree(SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    # Nothing that finds its work done may import these.
    for name in ("torch", "deepspeed", "transformers"):
        (tmp_path / "refused" / f"{name}.py").parent.mkdir(exist_ok=True)
        (tmp_path / "refused" / f"{name}.py").write_text("raise ImportError('not needed')")

    def run(**environment: str) -> tuple[str, int, str]:
        options = training(max_steps=3, pairs_per_step=8, eval_every=0)
        program = command(tmp_path, tokens, base, options, scripts=scripts)
        if environment:  # read when Python starts
            code = subprocess.run(program, env={**ENVIRONMENT, **environment}, check=False).returncode
        else:
            code = forks.run(program, env=ENVIRONMENT).returncode
        log = (tmp_path / "log").read_text()
        assert code == 0, log
        made = next((tmp_path / "checkpoints").glob("*/model/model.safetensors")).stat().st_mtime_ns
        return log, made, (tmp_path / "out" / "README.md").read_text()

    def edit(name: str) -> None:
        comment = "edited" if name.endswith(".jinja") else "# edited"
        with (scripts / "rewardline" / name).open("a") as file:
            file.write(f"\n{comment}\n")

    _, made, card = run()
    for name in WITHOUT_EFFECT:
        edit(name)
    log, again, new_card = run(PYTHONPATH=str(tmp_path / "refused"))
    assert "already done" in log
    assert again == made
    assert new_card == card + "\nedited\n"
    edit("training/loss.py")
    log, again, _ = run()
    assert "already done" not in log
    assert again > made


def test_without_a_terminal_progress_is_a_few_plain_lines(tmp_path: Path, tokens: Path, base: Path) -> None:
    options = {"max_steps": 60, "epochs": 20, "pairs_per_step": 8, "tokens_per_micro_batch": 60}
    run = command(tmp_path, tokens, base, training(**options))
    done = forks.run(run, env=ENVIRONMENT)
    assert done.returncode == 0
    assert "\r" not in done.stdout
    assert len(done.stdout.splitlines()) < 12


def test_lora_trains_adapters_and_exports_a_plain_model(tmp_path: Path, tokens: Path, base: Path) -> None:
    weights, lines = train(tmp_path, tokens, base, zero_stage=2, lora={"rank": 4, "alpha": 8}, normalize="fold")
    assert not [name for name in weights if "lora" in name]
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["trained_parameters"] < run["parameters"] / 4
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert set(plain.state_dict()) == set(weights)
    before = load_file(base / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    assert (weights[name] - before[name]).abs().max() > 0
    assert torch.equal(weights["model.embed_tokens.weight"], before["model.embed_tokens.weight"])
    # The kept adapters give the raw score, and say how the merged model's follows from it.
    mean, std = (run["normalization"][name] for name in ("mean", "std"))
    assert f"(raw - {mean:.6g}) / {std:.6g}" in (tmp_path / "out" / "adapter" / "README.md").read_text()
    bare = load_base(base, load_tokenizer(base), seed=1)
    adapted = PeftModel.from_pretrained(bare, str(tmp_path / "out" / "adapter")).eval()
    ids = torch.tensor([[7, 8, 9, 10]])
    raw, folded = (model(ids).logits.item() for model in (adapted, plain.eval()))
    assert folded - run["normalization"]["mean_left"] == pytest.approx((raw - mean) / std, abs=1e-4)
    assert losses(lines)[-1] < losses(lines)[0]


@pytest.mark.parametrize("options", [{"zero_stage": 2}, {"zero_stage": 3, "lora": {"rank": 4}}])
def test_bf16_trains(tmp_path: Path, tokens: Path, base: Path, reference: Result, options: Json) -> None:
    weights, lines = train(tmp_path, tokens, base, precision="bf16", **options)
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    alike = slice(1) if "lora" in options else slice(None)
    assert losses(lines)[alike] == pytest.approx(losses(reference[1])[alike], abs=0.05)
    assert losses(lines)[-1] < losses(lines)[0]


def test_opt_with_its_peculiarities_trains_and_loads_in_plain_transformers(
    tmp_path: Path, base_models: Callable[..., Path]
) -> None:
    tokens = tmp_path / "tokens"
    write_small_tokens(tokens, end_token="</s>")
    base = base_models("opt", bos_token="</s>", eos_token="</s>", pad_token="<pad>")
    _, lines = train(tmp_path, tokens, base, learning_rate=3e-3, max_steps=12, epochs=3, zero_stage=2)
    assert losses(lines)[-1] < losses(lines)[0]
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").config
    assert (config.model_type, config.word_embed_proj_dim, config.num_labels) == ("opt", 16, 1)


@pytest.mark.parametrize(("family", "stage"), [("bloom", 3), ("bert", 2)])
def test_models_that_cannot_share_prefixes_train_in_padded_batches(
    tmp_path: Path, tokens: Path, base_models: Callable[..., Path], family: str, stage: int
) -> None:
    base = base_models(family)
    weights, lines = train(tmp_path, tokens, base, zero_stage=stage, learning_rate=3e-3, dropout=0.0)
    assert "padded batches, since shared prefixes are not exact" in (tmp_path / "log").read_text()
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["batching"] == "padded"
    assert 0 < run["padding_share"] < 1
    plain = load_base(base, load_tokenizer(base), seed=1).eval()
    data = TokenDataset(tokens, "train")
    values = []
    for row in (data[piece.index] for piece in batching.steps(data.pair_counts, batching.order(data, 1, 0), 8)[0]):
        ids = [torch.from_numpy(np.concatenate([row.prefix, tail]).astype(int))[None] for tail in row.tails]
        scores = [plain(input_ids=one).logits.item() for one in ids]
        values += [np.log1p(np.exp(scores[pair.rejected] - scores[pair.chosen])) for pair in row.pairs]
    assert losses(lines)[0] == pytest.approx(np.mean(values), abs=1e-6)
    assert losses(lines)[-1] < losses(lines)[0]
    assert set(AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").state_dict()) == set(weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 1e30, "warmup": 0, "clip": 0}, "the gradient is not finite at step"),
        ({"precision": "fp16", "zero_stage": 1}, "training.precision: fp16 needs a GPU"),
        ({"lora": {"target_modules": ["nothing"]}}, "training.lora"),
    ],
)
def test_mistakes_end_with_one_message(tmp_path: Path, tokens: Path, base: Path, options: Json, message: str) -> None:
    run = command(tmp_path, tokens, base, training(**{"max_steps": 20, "epochs": 5, **options}))
    assert forks.run(run, env=ENVIRONMENT).returncode == 1
    text = (tmp_path / "log").read_text()
    assert f"error: {message}" in text
    assert "Traceback" not in text
    assert not (tmp_path / "out").exists()


def test_a_base_model_that_is_no_number_is_named_as_the_cause(tmp_path: Path, tokens: Path, base: Path) -> None:
    broken = shutil.copytree(base, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][3] = torch.nan
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    manifest = json.loads((broken / "manifest.json").read_text())
    hashes = ("xxh3", "manifest_hash")
    (broken / "manifest.json").write_text(json.dumps({k: v for k, v in manifest.items() if k not in hashes}))
    assert forks.run(command(tmp_path, tokens, broken, training()), env=ENVIRONMENT).returncode == 1
    text = (tmp_path / "log").read_text()
    assert "error: the loss is not finite at step 1. Its pairs: " in text
    data = TokenDataset(tokens, "train")
    assert data[int(batching.order(data, 1, 0)[0])].pairs[0].pair_id in text
    assert "those of the base model" in text


@pytest.mark.slow
def test_weights_depend_on_the_threads_of_the_settings_and_not_on_the_cores(
    tmp_path: Path, tokens: Path, base: Path
) -> None:
    found = {}
    for cores in (os.sched_getaffinity(0), {min(os.sched_getaffinity(0))}):
        folder = tmp_path / str(len(cores))
        options = training(max_steps=2, pairs_per_step=8, eval_every=0, threads=2)
        settle = partial(os.sched_setaffinity, 0, cores)
        subprocess.run(command(folder, tokens, base, options), env=ENVIRONMENT, check=True, preexec_fn=settle)
        found[len(cores)] = (folder / "out" / "model.safetensors").read_bytes()
        assert read_json(folder / "out" / "run.json")["threads"] == 2
    assert len(set(found.values())) == 1
