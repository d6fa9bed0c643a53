"""The same training on a GPU: skipped where there is none."""

import copy

import pytest
import torch

from rewardline.batches import collate
from rewardline.objective import pair_losses, pair_sums
from rewardline.reading import Reading, Score, Span
from rewardline.reward_model import RewardModel, scores_of

from models import comparisons, random_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def test_shared_prefixes_equal_padded_rows_on_a_gpu() -> None:
    device = torch.device("cuda")
    packed = random_model("llama").to(device)
    padded = RewardModel(copy.deepcopy(packed.model), "padded")
    padded.model.set_attn_implementation("sdpa")
    losses = []
    for model in (packed, padded):
        batch = collate(comparisons(), model.batching, 0).to(device)
        losses.append(pair_losses(model(batch), batch).mean().item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


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
