"""Small random models and comparisons that look for trouble."""

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from rewardline.model.reward_model import RewardModel
from rewardline.tokens.store import Comparison

from support.families import FAMILIES
from support.tokens import random_comparison

LONGEST = 64
"""More tokens than any sequence has in `comparisons`."""


def random_model(family: str, **changes: float) -> RewardModel:
    torch.manual_seed(0)
    values = {**FAMILIES[family], **changes}
    config = AutoConfig.for_model(
        values.pop("model_type"), vocab_size=90, num_labels=1, pad_token_id=0, bos_token_id=1, eos_token_id=2, **values
    )
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        model.score.weight.normal_()
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
