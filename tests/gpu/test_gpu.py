"""The same training on a GPU: skipped where there is none."""

import copy
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rewardline.model.batch import collate
from rewardline.model.packing import attention, kernels
from rewardline.model.packing.layout import Kernel, pinned
from rewardline.model.reward_model import RewardModel, scores_of
from rewardline.model.score_positions import Score, ScorePositions, Span
from rewardline.training.loss import batch_loss, batch_sums, pair_losses

from support.models import comparisons, random_model
from support.tokens import random_comparison
from support.training_runs import finish, largest_difference, losses, start, stop_at_step, train

WIDE = {"hidden_size": 128}
"""Four heads of 32; flex_attention on a GPU needs 16 or more."""

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def test_all_kernels_work_here() -> None:
    heads = kernels.Heads(9, 3, 64)
    for kernel in ("flex", "varlen"):
        assert kernels.unsupported_reason(kernel, torch.device("cuda"), torch.bfloat16, heads) is None
    assert kernels.candidates("auto", torch.bfloat16, heads) == ("flex", "varlen", "sdpa")


@pytest.mark.parametrize("kernel", ["sdpa", "flex"])
def test_shared_prefixes_equal_padded_rows_on_a_gpu(kernel: Kernel) -> None:
    device = torch.device("cuda")
    packed = random_model("llama", **WIDE).to(device)
    attention.use_shared_prefix(packed.model, kernel)
    padded = RewardModel(copy.deepcopy(packed.model), "padded")
    padded.model.set_attn_implementation("sdpa")
    losses, gradients = [], []
    for model in (packed, padded):
        batch = collate(comparisons(), model.batching, 0, kernel=model.kernel).to(device)
        loss = pair_losses(model(batch), batch).mean()
        torch.autograd.backward(loss)
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert (gradients[0] - gradients[1]).norm() / gradients[1].norm() < 1e-3


@pytest.mark.parametrize("span", [None, "per_token", "per_token_published"])
@pytest.mark.parametrize("score", ["end", "first_padding", "mean"])
def test_losses_do_not_wait_for_the_gpu(score: Score, span: Span | None) -> None:
    model = RewardModel(random_model("llama", **WIDE).model, score=score).cuda()
    batch = collate(comparisons(), "shared_prefix", 0, ScorePositions(score, span)).to(torch.device("cuda"))
    output = model(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = pair_losses(scores_of(output, batch), batch, values=output, margin=True, soft_labels=True)
        batch_sums(scores_of(output, batch), batch_loss(losses, output, batch, None), batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(losses).all()


@pytest.mark.parametrize("kernel", ["sdpa", "flex"])
def test_a_forward_and_a_backward_pass_do_not_wait_for_the_gpu(kernel: Kernel) -> None:
    device = torch.device("cuda")
    model = random_model("llama", **WIDE).to(device)
    attention.use_shared_prefix(model.model, kernel)
    batches = [pinned(collate(comparisons(seed), model.batching, 0, kernel=kernel)) for seed in (0, 0)]
    torch.autograd.backward(pair_losses(model(batch := batches[0].to(device)), batch).mean())  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.autograd.backward(pair_losses(model(batch := batches[1].to(device)), batch).mean())
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_rows_of_many_lengths_do_not_compile_anew() -> None:
    device, rng = torch.device("cuda"), np.random.default_rng(0)
    model = random_model("llama", **WIDE).to(device)
    attention.use_shared_prefix(model.model, "flex")
    compiled = []
    for seed in range(16):
        long = [random_comparison(rng, int(n), [40, 9]) for n in rng.integers(10, 300, seed % 8)]
        rows = [*comparisons(seed)[: 2 + seed % 4], *long]
        batch = collate(rows, model.batching, 0, kernel="flex").to(device)
        torch.autograd.backward(pair_losses(model(batch), batch).mean())
        compiled.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert compiled[-1] == compiled[8], "rows of the second half are like those of the first"


@pytest.mark.parametrize(
    "options",
    [
        {"attention": "sdpa"},
        {"attention": "flex", "gradient_checkpointing": "selective"},
        {"attention": "varlen", "precision": "bf16", "zero_stage": 1},
        {"attention": "auto", "precision": "bf16", "zero_stage": 2, "gradient_checkpointing": "offload"},
    ],
)
def test_a_deterministic_training_resumes_bit_for_bit(
    tmp_path: Path, tokens: Path, base: Path, options: dict[str, Any]
) -> None:
    gpu = ("--gpus", "1")
    options = {**options, "deterministic": True}
    whole, _ = finish(tmp_path / "whole", tokens, base, *gpu, **options)
    stopped = tmp_path / "stopped"
    assert stop_at_step(start(stopped, tokens, base, *gpu, **options), stopped, 6, signal.SIGKILL) == -signal.SIGKILL
    weights, _ = finish(stopped, tokens, base, *gpu, **options)
    assert largest_difference(weights, whole) == 0
    assert "bit for bit" in (stopped / "log").read_text()


def test_compiled_layers_train_as_plain_ones(tmp_path: Path, tokens: Path, base: Path) -> None:
    weights, lines = train(tmp_path / "compiled", tokens, base, "--gpus", "1", compile=True)
    expected, plain = train(tmp_path / "plain", tokens, base, "--gpus", "1", compile=False)
    assert losses(lines) == pytest.approx(losses(plain), abs=1e-4)
    assert largest_difference(weights, expected) < 1e-2
    assert "layers are compiled" in (tmp_path / "compiled" / "log").read_text()


@pytest.mark.parametrize("options", [{"zero_stage": 1}, {"zero_stage": 2, "offload": "optimizer"}, {"zero_stage": 3}])
def test_a_training_in_bf16_follows_that_in_fp32_and_resumes(
    tmp_path: Path, tokens: Path, base: Path, options: dict[str, Any]
) -> None:
    gpu = ("--gpus", "1")
    _, expected = train(tmp_path / "fp32", tokens, base, *gpu)
    _, lines = train(tmp_path / "bf16", tokens, base, *gpu, precision="bf16", **options)
    assert losses(lines) == pytest.approx(losses(expected), abs=0.05)
    assert json.loads((tmp_path / "bf16" / "out" / "run.json").read_text())["peak_flops_per_second"] > 1e13
    stopped = tmp_path / "stopped"
    assert stop_at_step(start(stopped, tokens, base, *gpu, **options), stopped, 6, signal.SIGTERM) == 75
    weights, _ = finish(stopped, tokens, base, *gpu, **options)
    whole, _ = finish(tmp_path / "whole", tokens, base, *gpu, **options)
    assert largest_difference(weights, whole) < 1e-4
