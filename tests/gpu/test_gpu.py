"""The same training on a GPU: skipped where there is none."""

import copy

import pytest
import torch

from rewardline.batches import collate
from rewardline.objective import pair_losses
from rewardline.reward_model import RewardModel

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
