"""How comparisons are put into batches for scoring."""

from operator import attrgetter

import numpy as np
import pytest
import torch

from rewardline.model.batch import Batch
from rewardline.model.reward_model import RewardModel
from rewardline.scoring.batch_scorer import score_comparisons
from rewardline.scoring.parts import WINDOW, WINDOW_BATCHES, windows

from support.models import encoder, random_model
from support.tokens import random_comparison

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["shared_prefix", "padded", "first_padding", "encoder"])
def test_a_batch_keeps_its_budget_with_all_its_padding(kind: str) -> None:
    rng = np.random.default_rng(3)
    shapes = [(int(rng.integers(0, 30)), [int(n) for n in rng.integers(1, 30, rng.integers(2, 9))]) for _ in range(60)]
    rows = [random_comparison(rng, prefix, tails) for prefix, tails in shapes]
    if kind == "encoder":
        model = RewardModel(encoder("bert"))
    else:
        model = random_model("llama")
        model = RewardModel(model.model, score="first_padding" if kind == "first_padding" else "end")
        if kind == "padded":
            model.batching = "padded"
            model.model.set_attn_implementation("sdpa")
    sizes: list[int] = []

    def note(_module: object, arguments: tuple[Batch]) -> None:
        sizes.append(arguments[0].input_ids.numel())

    model.register_forward_pre_hook(note)
    expected = [s for _, s in score_comparisons(model, rows, device=CPU, pad_id=0, batch_tokens=10_000)]
    sizes.clear()
    budget = 120
    found = [s for _, s in score_comparisons(model, rows, device=CPU, pad_id=0, batch_tokens=budget)]
    assert max(sizes) <= budget
    assert np.mean(sizes) > 0.75 * budget
    for one, other in zip(found, expected, strict=True):
        assert np.allclose(one, other, atol=1e-5, rtol=0)


def test_windows_are_bounded_and_keep_the_order() -> None:
    rng = np.random.default_rng(0)
    rows = [random_comparison(rng, int(rng.integers(0, 9)), [1, 2]) for _ in range(WINDOW + 50)]
    rows.insert(7, random_comparison(rng, 900, [100, 100]))
    for batch_tokens in (16, 10_000):
        found = list(windows(iter(rows), attrgetter("tokens"), batch_tokens))
        assert [row for window in found for row in window] == rows
        for window in found:
            assert len(window) <= WINDOW
            assert len(window) == 1 or sum(row.tokens for row in window) <= WINDOW_BATCHES * batch_tokens
