"""Small random models and comparisons that look for trouble."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from rewardline.model.packing.layout import Segment
from rewardline.model.reward_model import RewardModel
from rewardline.tokens.store import Comparison

from support.families import FAMILIES
from support.tokens import random_comparison

LONGEST = 64
"""More tokens than any sequence has in `comparisons`."""


def random_model(family: str, **changes: Any) -> RewardModel:
    torch.manual_seed(0)
    values = {**FAMILIES[family], **changes}
    config = AutoConfig.for_model(
        values.pop("model_type"), vocab_size=90, num_labels=1, pad_token_id=0, bos_token_id=1, eos_token_id=2, **values
    )
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        model.score.weight.normal_()
        for name, parameter in model.named_parameters():
            if name.endswith("sinks"):
                parameter.normal_()
    return RewardModel(model, max_length=LONGEST)


def encoder(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = AutoConfig.for_model(kind, vocab_size=90, num_labels=1, pad_token_id=0, **sizes)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config).eval()
    return model


def comparisons(seed: int = 0) -> list[Comparison]:
    """Tails of one token, empty prefixes, several tails, equal tails but for the last token."""
    rng = np.random.default_rng(seed)
    shapes = [(10, [5, 7]), (0, [3, 4]), (12, [1, 1]), (5, [9, 2, 6, 1]), (1, [20, 3])]
    return [random_comparison(rng, prefix, tails) for prefix, tails in shapes]


def random_segments(rng: np.random.Generator, scales: Sequence[int] = (3, 40, 300)) -> list[Segment]:
    """Comparisons of any shape: no prefix, tails of one token or of several blocks, padding at some tails' ends."""
    segments, start = [], 0
    for _ in range(rng.integers(1, 7)):
        scale = int(rng.choice(scales))
        tails = tuple(rng.integers(1, 1 + scale, rng.integers(1, 5)).tolist())
        pads = tuple(int(rng.integers(0, length)) for length in tails) if rng.random() < 0.3 else ()
        segments.append(Segment(start, int(rng.integers(0, scale)), tails, pads))
        start = segments[-1].stop
    return segments
