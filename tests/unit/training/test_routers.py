"""The router loss in training steps."""

from typing import Any

import numpy as np
import pytest
import torch

from rewardline.model.reward_model import RewardModel
from rewardline.tokens.store import TokenDataset
from rewardline.training import engine
from rewardline.training.batching import MicroBatchLoader
from rewardline.training.loss import Sums
from rewardline.training.settings import TrainStageSettings
from rewardline.training.step import OptimizerStep

from support.models import random_model
from support.tokens import random_comparison, write_tokens
from support.training_runs import training_settings


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TokenDataset:
    rng = np.random.default_rng(0)
    rows = [random_comparison(rng, int(rng.integers(0, 20)), [5, int(rng.integers(1, 9))]) for _ in range(24)]
    folder = tmp_path_factory.mktemp("tokens") / "t"
    write_tokens(folder, rows, [])
    return TokenDataset(folder, "train")


def sums_of_steps(data: TokenDataset, coefficient: float, steps: int, **options: Any) -> list[Sums]:
    training = training_settings(
        **{"max_steps": steps, "epochs": steps, "pairs_per_step": 8, "learning_rate": 1e-2, "warmup": 0, **options},
        router_aux_loss_coef=coefficient,
    )
    settings = TrainStageSettings(run="r", mixture="m", model="x", seed=1, training=training)
    model = random_model("mixtral").model
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gate.weight"):
                parameter.mul_(100)  # so that few experts get most tokens
    wrapped = RewardModel(
        model, training.batching, "sdpa", raw=True, max_length=64, router_coefficient=training.router_aux_loss_coef
    )
    running = engine.create(wrapped, training, engine.deepspeed_config(training))
    loader = MicroBatchLoader(wrapped, training, data, 0, torch.device("cpu"), objective=True)
    step = OptimizerStep(running, settings, loader)
    return [step.take(number, planned, lambda _: None).sums for number, planned in enumerate(step.steps(0))]


@pytest.mark.usefixtures("one_process")
def test_the_router_loss_is_learned_and_logged_beside_that_of_the_pairs(data: TokenDataset) -> None:
    without, weak, strong = (sums_of_steps(data, coefficient, 12) for coefficient in (0.0, 1e-9, 3.0))
    assert all(sums.router_loss == 0 for sums in without)
    first, last = ([run[k].router_loss / run[k].weight for run in (weak, strong)] for k in (0, -1))
    assert first[0] == pytest.approx(first[1], rel=1e-5) and last[1] < last[0] - 0.1
    assert strong[0].loss == pytest.approx(without[0].loss, abs=1e-6), "the logged loss is that of the pairs"
    padded = sums_of_steps(data, 3.0, 2, batching="padded")
    for one, other in zip(strong, padded, strict=False):
        assert one.router_loss == pytest.approx(other.router_loss, rel=1e-4)
        assert one.loss == pytest.approx(other.loss, abs=1e-4)
