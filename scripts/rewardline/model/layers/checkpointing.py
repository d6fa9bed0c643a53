"""Activation checkpointing: what a layer keeps of its forward pass; the backward pass computes the rest again.

true        the input of each layer (Chen et al. 2016, arXiv 1604.06174)
selective   also the outputs of attention, and of matrix products that are no wider than their input: what costs
            most to compute for the memory that it takes (Korthikanti et al. 2022, arXiv 2205.05198)
offload     the input of each layer, in the memory of the host
"""

from functools import partial
from typing import Literal

import torch
from torch._ops import OpOverload
from torch.utils.checkpoint import CheckpointPolicy, SelectiveCheckpointContext, create_selective_checkpoint_contexts
from transformers import PreTrainedModel

Checkpointing = Literal[True, "selective", "offload"]
ATTENTION = (
    *("_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention"),
    *("_scaled_dot_product_cudnn_attention", "_scaled_dot_product_flash_attention_for_cpu", "_varlen_attn"),
)
"""Names of the operators that compute attention."""
PRODUCTS = {"mm": 1, "addmm": 2}
"""Names of the operators of a linear layer, and the position of its weight [inputs, outputs]."""


def enable(model: PreTrainedModel, kind: Checkpointing) -> None:
    """Have every layer of a model be checkpointed in training; the weights do not depend on `kind`."""
    options: dict[str, object] = {"use_reentrant": False}
    if kind == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    # Activations on a CPU are where they would be moved to.
    model.activation_checkpointing_enable(options, offload=kind == "offload" and torch.cuda.is_available())


def _policy(
    _context: SelectiveCheckpointContext, operator: OpOverload, *inputs: object, **_options: object
) -> CheckpointPolicy:
    name = operator._opname
    weight = inputs[PRODUCTS[name]] if name in PRODUCTS else None
    is_narrow = isinstance(weight, torch.Tensor) and weight.shape[1] <= weight.shape[0]
    return CheckpointPolicy.MUST_SAVE if name in ATTENTION or is_narrow else CheckpointPolicy.PREFER_RECOMPUTE
