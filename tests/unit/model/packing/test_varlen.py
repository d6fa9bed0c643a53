"""The sequences of the variable-length kernel, with an emulation of it, against the definition of what is seen."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from rewardline.core import cli
from rewardline.model.batch import collate
from rewardline.model.packing import attention, kernels, varlen
from rewardline.model.packing.layout import Layout, Segment, build_layout, sees
from rewardline.model.reward_model import RewardModel
from rewardline.model.score_positions import ScorePositions
from rewardline.tokens.store import TokenDataset
from rewardline.training import engine
from rewardline.training.batching import MicroBatchLoader
from rewardline.training.loop import LoopState, TrainingLoop
from rewardline.training.records.loggers import TrackedRun
from rewardline.training.settings import TrainStageSettings
from rewardline.training.step import OptimizerStep

from support.models import LONGEST, comparisons, random_model, random_segments
from support.training_runs import training_settings


def emulated_kernel(
    query: Tensor, key: Tensor, value: Tensor, query_starts: Tensor, key_starts: Tensor,
    longest_query: int, longest_key: int, *, scale: float | None, window_size: tuple[int, int], enable_gqa: bool,
) -> Tensor:  # fmt: skip
    """As torch documents varlen_attn: [queries, heads, d], causal masks that are aligned at the ends of sequences."""
    assert window_size == (-1, 0) and query_starts.dtype == key_starts.dtype == torch.int32
    assert query_starts[-1] == len(query) and key_starts[-1] == len(key) == len(value)
    query_lengths, key_lengths = query_starts.diff().tolist(), key_starts.diff().tolist()
    assert max(query_lengths) == longest_query and max(key_lengths) == longest_key
    outputs = []
    parts = (torch.split(query, query_lengths), torch.split(key, key_lengths), torch.split(value, key_lengths))
    for q, k, v in zip(*([x.transpose(0, 1) for x in part] for part in parts), strict=True):
        mask = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril(k.shape[1] - q.shape[1])
        output = F.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=enable_gqa)
        outputs.append(output.transpose(0, 1))
    return torch.cat(outputs)


@pytest.fixture(autouse=True)
def _kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", emulated_kernel)


@pytest.mark.parametrize("seed", range(3))
def test_every_query_sees_what_it_should(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(12):
        segments = random_segments(rng, scales=[3, 40])
        total = segments[-1].stop
        read = rng.choice(total, int(rng.integers(1, total + 1)), replace=False).tolist()
        layout = build_layout(segments, read, "varlen")
        assert layout.last_layer is not None
        for current in (layout, layout.last_layer):
            rows = current.query_rows
            expected = sees(rows[:, None], torch.arange(total)[None], *layout.visibility)
            # Values that identify the keys, and equal logits: the output shows which keys were seen.
            query, key = torch.zeros(1, 2, len(rows), 8), torch.zeros(1, 1, total, 8)
            assert current.sequences is not None
            output = varlen.attend(query, key, torch.eye(total)[None, None], current.sequences, None)
            assert torch.equal(output[0, 1] > 0, expected)


@pytest.mark.parametrize("score", ["end", "first_padding", "mean"])
@pytest.mark.parametrize("family", ["llama", "opt"])
def test_scores_and_gradients_are_those_of_segments(family: str, score: str) -> None:
    found = []
    for kernel in ("sdpa", "varlen"):
        model = random_model(family)
        attention.use_shared_prefix(model.model, kernel)
        positions = ScorePositions(score, pad_position=model.score_positions.pad_position)  # type: ignore[arg-type]
        scores = model(collate(comparisons(), "shared_prefix", 0, positions, kernel=kernel))
        torch.autograd.backward(scores.square().sum())
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append((scores.detach(), torch.cat(gradients)))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
    assert (found[0][1] - found[1][1]).norm() / found[0][1].norm() < 1e-5


@pytest.mark.usefixtures("one_process")
def test_a_training_keeps_the_fastest_kernel_and_a_resumed_one_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, tokens: Path
) -> None:
    monkeypatch.setattr(cli.log, "propagate", True)
    caplog.set_level("INFO", logger=cli.log.name)
    data, training = TokenDataset(tokens, "train"), training_settings(pairs_per_step=4)
    settings = TrainStageSettings(run="r", mixture="m", model="x", seed=1, training=training)
    model = RewardModel(random_model("llama").model, kernel="auto", max_length=LONGEST)
    assert model.kernels == ("sdpa",), "nothing is measured where there is no choice"
    model.kernels = ("varlen", "sdpa")
    running = engine.create(model, training, engine.deepspeed_config(training))
    loader = MicroBatchLoader(model, training, data, 0, torch.device("cpu"), objective=True)
    measured = iter([0.002, 0.001])
    rows: list[int] = []

    def seconds(layouts: list[Layout], *_: object) -> float:
        rows.append(sum(layout.visibility.shape[1] for layout in layouts))
        return next(measured)

    monkeypatch.setattr(kernels, "seconds", seconds)
    tracked = TrackedRun("r", 1, "id", {}, tmp_path, tmp_path)

    def new_loop() -> TrainingLoop:
        return TrainingLoop(
            settings, model, running, OptimizerStep(running, settings, loader), {"eval": loader}, tmp_path, tracked
        )

    loop = new_loop()
    loop._choose_kernel()
    assert (loop.state.kernel, model.kernel, loader.kernel) == ("sdpa", "sdpa", "sdpa")
    assert "varlen 2.0 ms, sdpa 1.0 ms; sdpa is used" in caplog.text
    assert rows[0] == rows[1] > 0, "on the first real batches"
    saved = loop.state.model_dump(mode="json")
    model.use_kernel("varlen")
    resumed = new_loop()
    resumed.state = LoopState.model_validate(saved)
    resumed._choose_kernel()  # without a measurement: there is no third time
    assert model.kernel == "sdpa"


def test_a_kernel_is_timed_forward_and_backward() -> None:
    layouts = [build_layout([Segment(0, 10, (5, 7))], [21, 14], kernel) for kernel in ("sdpa", "varlen")]
    for layout in layouts:
        assert kernels.seconds([layout], torch.float32, kernels.Heads(4, 2, 8)) > 0
    assert kernels.unsupported_reason("varlen", torch.device("cpu"), torch.float32, kernels.Heads(4, 2, 8)) is None
