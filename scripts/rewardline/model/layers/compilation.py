"""torch.compile of a model's layers: norms, positions, activations and residuals in few kernels, all else as before.

Lengths are dynamic, so that what is compiled for one layer serves all layers and rows. The attention of packed
rows is left out, as it has kernels of its own, and so is a last layer that computes only some rows.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from rewardline.core.errors import first_line
from rewardline.model.batch import Batch
from rewardline.model.packing.attention import NAMES, layers_of, shared_prefix_attention
from rewardline.model.reward_model import RewardModel
from rewardline.model.routers import experts

log = logging.getLogger(__name__)
WORTHWHILE = 1e17
"""Floating-point operations of a training run from which on compilation, a minute, is made up for on a GPU."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}
"""How much scores and gradients may differ from those of plain layers, relative to their norm."""


def unsupported_reason(model: PreTrainedModel) -> str | None:
    """Why a model's layers are not compiled; None if they are."""
    if experts(model.config):
        return "which experts a token takes is decided while a layer is computed"
    if not layers_of(model):
        return f"the layers of {model.config.model_type} are not known"
    return None


def compile_layers(model: PreTrainedModel, backend: str = "inductor") -> None:
    """Have a model's layers be compiled when they are first computed. Names of weights stay as they are."""
    for name in NAMES.values():
        AttentionInterface.register(name, torch.compiler.disable(shared_prefix_attention))  # type: ignore[no-untyped-call]
    for layer in layers_of(model):
        if "forward" in vars(layer):  # a last layer that computes only some rows
            continue
        # The layer itself, within the activation checkpoint of transformers: it is recomputed as it was computed.
        forward = getattr(type(layer).forward, "__wrapped__", type(layer).forward)
        compiled = torch.compile(MethodType(forward, layer), dynamic=True, backend=backend)
        layer.forward = partial(_forward, layer, compiled)


def _forward(layer: nn.Module, compiled: Callable[..., Any], *args: object, **kwargs: object) -> object:
    if layer.training and getattr(layer, "gradient_checkpointing", False):
        checkpoint: Any = layer._gradient_checkpointing_func
        return checkpoint(partial(compiled, **kwargs), *args)
    return compiled(*args, **kwargs)


def _compiled(model: PreTrainedModel) -> list[nn.Module]:
    return [layer for layer in layers_of(model) if getattr(vars(layer).get("forward"), "func", None) is _forward]


def is_compiled(model: PreTrainedModel) -> bool:
    """Whether layers of the model are compiled."""
    return bool(_compiled(model))


def undo(model: PreTrainedModel) -> None:
    """Compute the layers as they were computed before."""
    for layer in _compiled(model):
        del layer.forward


@contextmanager
def _plain(model: PreTrainedModel) -> Iterator[None]:
    kept = [(layer, layer.forward) for layer in _compiled(model)]
    undo(model)
    try:
        yield
    finally:
        for layer, forward in kept:
            layer.forward = forward


def problem(model: RewardModel, batch: Batch) -> str | None:
    """Why compiled layers cannot be used: they fail, or give other scores or gradients of a batch; None if they can."""
    first = [parameter for layer in layers_of(model.model) for parameter in layer.parameters()]
    parameters = [parameter for parameter in first if parameter.requires_grad][:8]

    def computed() -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        scores = model(batch)
        gradients = torch.autograd.grad(scores.sum(), parameters, allow_unused=True)
        return scores.detach(), torch.cat([part.flatten().float() for part in gradients if part is not None])

    with _plain(model.model):
        expected = computed()
    try:
        found = computed()
    except Exception as error:
        return first_line(error)
    if any(isinstance(module, nn.Dropout) and module.p for module in model.modules()):
        return None  # it draws other numbers
    limit = TOLERANCE[parameters[0].dtype]
    for name, one, other in zip(("scores", "gradients"), found, expected, strict=True):
        difference = float((one - other).norm() / other.norm().clamp(min=1e-12))
        if not difference < limit:
            return f"{name} differ by {difference:.1g} of their norm, more than {limit:g}"
    return None
