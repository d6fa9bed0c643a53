"""The same training on a GPU: skipped where there is none."""

import copy

import pytest
import torch

from rewardline import attention, flex
from rewardline.batches import collate
from rewardline.objective import pair_losses, pair_sums
from rewardline.reading import Reading, Score, Span
from rewardline.reward_model import RewardModel, scores_of

from models import comparisons, random_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def test_flex_attention_works_here_and_is_chosen() -> None:
    assert flex.problem(torch.device("cuda"), torch.bfloat16) is None
    assert attention.choose("auto", torch.bfloat16) == "flex"


@pytest.mark.parametrize("kernel", ["sdpa", "flex"])
def test_shared_prefixes_equal_padded_rows_on_a_gpu(kernel: attention.Kernel) -> None:
    device = torch.device("cuda")
    packed = random_model("llama").to(device)
    attention.use_shared_prefix(packed.model, kernel)
    padded = RewardModel(copy.deepcopy(packed.model), "padded")
    padded.model.set_attn_implementation("sdpa")
    losses, gradients = [], []
    for model in (packed, padded):
        batch = collate(comparisons(), model.batching, 0).to(device)
        loss = pair_losses(model(batch), batch).mean()
        torch.autograd.backward(loss)
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert (gradients[0] - gradients[1]).norm() / gradients[1].norm() < 1e-3


@pytest.mark.parametrize("span", [None, "per_token", "per_token_published"])
@pytest.mark.parametrize("score", ["end", "first_padding", "mean"])
def test_losses_do_not_wait_for_the_gpu(score: Score, span: Span | None) -> None:
    model = RewardModel(random_model("llama").model, score=score).cuda()
    batch = collate(comparisons(), "shared_prefix", 0, Reading(score, span)).to(torch.device("cuda"))
    output = model(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = pair_losses(scores_of(output, batch), batch, values=output, margin=True, soft_labels=True)
        pair_sums(scores_of(output, batch), losses, batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(losses).all()


def test_rows_of_many_lengths_do_not_compile_anew() -> None:
    device = torch.device("cuda")
    model = random_model("llama").to(device)
    attention.use_shared_prefix(model.model, "flex")
    compiled = []
    for seed in range(6):
        batch = collate(comparisons(seed)[: 2 + seed % 4], model.batching, 0).to(device)
        torch.autograd.backward(pair_losses(model(batch), batch).mean())
        compiled.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert compiled[-1] == compiled[2]
