"""The load-balancing loss of mixture-of-experts models (Fedus et al. 2021, arXiv 2101.03961)."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from rewardline.core.errors import UserError
from rewardline.model.batch import Batch

log = logging.getLogger(__name__)


def coefficient(model: PreTrainedModel, given: float | None) -> float:
    """The coefficient of the router loss: the one that is `given`, else that of a configuration that asks for the loss.

    Raises:
        UserError: one is given, and the model has no routers whose logits transformers record.
    """
    config = model.config
    is_recorded = "router_logits" in (getattr(model, "_can_record_outputs", None) or {}) and experts(config) > 0
    if given is None and getattr(config, "output_router_logits", False):
        given = getattr(config, "router_aux_loss_coef", None)
        if given and not is_recorded:
            log.warning("trained without the router loss of its configuration, which %s lacks here", config.model_type)
            given = None
    if given and not is_recorded:
        raise UserError(f"training.router_aux_loss_coef: {config.model_type} has no router with such a loss; remove it")
    return given or 0.0


def balance_loss(logits: Sequence[Tensor], config: PreTrainedConfig, batch: Batch) -> Tensor:
    """The loss over all layers; `logits`: [rows * T, experts] of each.

    A token counts as often as it occurs in the sequences of a padded batch, padding not at all, so that the loss is the
    same for packed rows.
    """
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func  # which takes time

    weights = batch.attention_mask if batch.layout is None else batch.layout.multiplicity
    loss: Tensor = load_balancing_loss_func(tuple(logits), experts(config), config.num_experts_per_tok, weights)
    return torch.as_tensor(loss)


def experts(config: PreTrainedConfig) -> int:
    """The number of experts of a layer; 0 for a model without."""
    return getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None) or 0
