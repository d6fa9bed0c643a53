"""Normalization of scores to mean 0 and standard deviation 1 on the eval split, stored with the model."""

import logging
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rewardline.model.score_positions import Score

log = logging.getLogger(__name__)

KEY = "rewardline"
"""Key of config.json that holds a `ScoreConfig`."""


class NormalizationEntry(TypedDict):
    """A normalization as it is stored.

    `mean` and `std` of the raw scores; `folded`: whether it is part of the weights; `mean_left`: the mean that folding
    leaves in the scores, in standard deviations.
    """

    mean: float
    std: float
    folded: bool
    mean_left: float


class AttributeEntry(TypedDict):
    """An output of a model with several: the attribute that it predicts, standardized, and its weight in the score.

    In the unit of the ratings, the prediction is `mean + std * output`.
    """

    name: str
    mean: float
    std: float
    weight: float


class ScoreConfig(TypedDict, total=False):
    """The entry of a model's configuration about its scores; without `attributes`, its only output is the score."""

    score: Score
    normalization: NormalizationEntry | None
    attributes: list[AttributeEntry]


@dataclass(frozen=True)
class Normalization:
    """(score - mean) / std, with the moments of the raw scores of the eval split."""

    mean: float
    std: float

    def apply(self, scores: Tensor) -> Tensor:
        """The normalized scores."""
        return (scores - self.mean) / self.std


def score_config(model: PreTrainedModel) -> ScoreConfig:
    """The entry of a model's configuration about its scores; empty for models that the pipeline did not train."""
    config: ScoreConfig | None = getattr(model.config, KEY, None)
    return config or {}


def moments(count: float, total: float, squares: float) -> Normalization:
    """Mean and standard deviation from the number of scores, their sum, and the sum of their squares."""
    mean = total / count
    return Normalization(mean, max(0.0, squares / count - mean * mean) ** 0.5)


def normalize(
    model: PreTrainedModel, normalization: Normalization | None, into_weights: bool
) -> NormalizationEntry | None:
    """The entry of a normalization, which `into_weights` folds into the model first."""
    if normalization is None:
        return None
    if not normalization.std > 0:
        log.warning("all scores of the eval split are %g; there is no spread to normalize by", normalization.mean)
        normalization = Normalization(normalization.mean, 1.0)
    entry = NormalizationEntry(mean=normalization.mean, std=normalization.std, folded=into_weights, mean_left=0.0)
    if into_weights and not fold(model, normalization):
        entry["mean_left"] = normalization.mean / normalization.std
        log.warning(
            "the mean score is not folded, as a score head of %s has no bias: folded scores have standard deviation 1 "
            "around %.3f. Differences between answers are correct; `normalize: true` removes the mean as well",
            model.config.model_type, entry["mean_left"],
        )  # fmt: skip
    return entry


def fold(model: PreTrainedModel, normalization: Normalization) -> bool:
    """Change the weights so that the model gives normalized scores; returns whether the mean could be removed too.

    The head's weights are divided by the standard deviation. The mean is subtracted by the head's bias, or by the bias
    of the layer norm before a head without one (GPT-2, GPT-NeoX, OPT). With an RMS norm, which has no bias (Llama and
    similar), the mean, divided by the standard deviation, stays in all scores.
    """
    head = _head(model)
    shift = -normalization.mean / normalization.std
    with torch.no_grad():
        head.weight.div_(normalization.std)
        if head.bias is not None:
            head.bias.div_(normalization.std).add_(shift)
            return True
        norm, projection = _last_norm(model)
        if norm is None or norm.bias is None:
            return False
        direction = head.weight[0].float()
        if projection is not None:
            direction = direction @ projection.weight.float()
        norm.bias.add_((shift * direction / direction.square().sum()).to(norm.bias.dtype))
    return True


def _head(model: PreTrainedModel) -> nn.Linear:
    """The last linear layer of the score head."""
    heads = [getattr(model, name) for name in ("score", "classifier") if hasattr(model, name)]
    layers = [m for head in heads for m in head.modules() if isinstance(m, nn.Linear) and m.out_features == 1]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no linear layer with the score as its output")
    return layers[-1]


def _last_norm(model: PreTrainedModel) -> tuple[nn.LayerNorm | None, nn.Linear | None]:
    """The layer norm before the score head, and the projection between them if there is one."""
    base = model.base_model
    kind = model.config.model_type
    if kind == "gpt2":
        return base.ln_f, None
    if kind == "gpt_neox":
        return base.final_layer_norm, None
    if kind == "opt":
        last = None if model.config.do_layer_norm_before else base.decoder.layers[-1].final_layer_norm
        return base.decoder.final_layer_norm or last, base.decoder.project_out
    return None, None
