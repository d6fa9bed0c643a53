"""Scores in units of their spread, stored with a model or folded into its weights; and when the mean has drifted."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from rewardline.model.loading import load_reward_model, save_reward_model
from rewardline.model.normalization import Normalization, moments, normalize
from rewardline.model.reward_model import RewardModel
from rewardline.scoring.batch_scorer import score_comparisons
from rewardline.tokens.tokenizer import load_tokenizer

from support.families import FAMILIES
from support.models import LONGEST, comparisons, encoder, random_model

NORMALIZATION = Normalization(3.25, 0.4)
BIASED = {"gpt2", "gpt_neox", "opt"}


def scores(model: PreTrainedModel, raw: bool = False) -> Any:
    wrapped = RewardModel(model, raw=raw, max_length=LONGEST)
    found = score_comparisons(wrapped, iter(comparisons()), device=torch.device("cpu"), pad_id=0)
    return np.concatenate([s for _, s in found])


def opt(layer_norm_first: bool, projected: bool) -> PreTrainedModel:
    values = {**FAMILIES["opt"], "do_layer_norm_before": layer_norm_first, "vocab_size": 90, "num_labels": 1}
    values |= {"word_embed_proj_dim": 16 if projected else 32, "pad_token_id": 0}
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config).eval()
    return model


def family(name: str) -> PreTrainedModel:
    return random_model(name).model


MODELS: dict[str, tuple[Callable[[], PreTrainedModel], bool]] = {
    **{name: (partial(family, name), name in BIASED) for name in FAMILIES},
    "opt, norm first": (lambda: opt(True, False), True),
    "opt, norm first, projected": (lambda: opt(True, True), True),
    "opt, norm last": (lambda: opt(False, False), True),
    "bert": (lambda: encoder("bert"), True),
    "roberta": (lambda: encoder("roberta"), True),
}
"""Models, and whether the mean can be folded into them."""


@pytest.mark.parametrize("name", MODELS)
def test_folding_changes_scores_as_the_normalization_does_or_says_what_is_left(name: str) -> None:
    make, can_shift = MODELS[name]
    model = make()
    raw = scores(model)
    entry = normalize(model, NORMALIZATION, into_weights=True)
    assert entry is not None
    left = 0.0 if can_shift else NORMALIZATION.mean / NORMALIZATION.std
    assert entry["mean_left"] == pytest.approx(left)
    assert scores(model) == pytest.approx((raw - NORMALIZATION.mean) / NORMALIZATION.std + left, abs=2e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("into_weights", [False, True])
def test_saved_normalization_is_applied_when_loaded_once(
    tmp_path: Path, base_models: Any, kind: str, into_weights: bool
) -> None:
    tokenizer = load_tokenizer(base_models(kind))
    model = random_model(kind).model
    raw = scores(model)
    stored = copy.deepcopy(model)
    entry = normalize(stored, NORMALIZATION, into_weights)
    assert entry is not None
    save_reward_model(stored, tokenizer, tmp_path / "m", score="mean", normalization=entry)
    loaded = load_reward_model(tmp_path / "m")
    assert RewardModel(loaded).score_positions.score == "mean"
    loaded.config.rewardline["score"] = "end"
    assert scores(loaded) == pytest.approx((raw - 3.25) / 0.4 + entry["mean_left"], abs=2e-5)
    assert np.array_equal(scores(loaded, raw=True), raw) == (not into_weights)


def test_equal_scores_are_not_divided_by_a_spread_of_nothing() -> None:
    entry = normalize(random_model("llama").model, moments(4, 8.0, 16.0), into_weights=False)
    assert entry == {"mean": 2.0, "std": 1.0, "folded": False, "mean_left": 0.0}


def test_moments_are_those_of_all_scores() -> None:
    values = np.random.default_rng(0).normal(50, 2, 1000)
    found = moments(len(values), values.sum(), (values**2).sum())
    assert [found.mean, found.std] == pytest.approx([values.mean(), values.std()])
