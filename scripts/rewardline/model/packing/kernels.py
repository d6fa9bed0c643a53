"""Which kernel computes the attention of packed rows: what works on a device, and what is the fastest there."""

import logging
import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from rewardline.core.errors import UserError, first_line
from rewardline.model.packing.attention import shared_prefix_attention
from rewardline.model.packing.layout import Kernel, Layout, Segment, build_layout, to_device

log = logging.getLogger(__name__)
Choice = Literal["auto", "sdpa", "flex", "varlen"]
REPEATS = 3
"""How often a kernel is timed on each row."""


class Heads(NamedTuple):
    """Number of query heads, number of key and value heads, the size of each, whether there are attention sinks, and
    whether a sliding window is shorter than sequences."""

    queries: int
    keys: int
    size: int
    sinks: bool = False
    windows: bool = False


def heads_of(model: PreTrainedModel, max_length: int | None = None) -> Heads:
    """The heads of a model's attention; `max_length`: tokens of the longest sequence, None if that is not known."""
    config = model.config
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    windows = window is not None and (max_length is None or max_length > window)
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Heads(heads, groups, size, sinks=config.model_type == "gpt_oss", windows=windows)


def candidates(choice: Choice, dtype: torch.dtype, heads: Heads) -> tuple[Kernel, ...]:
    """The kernels that `choice` leaves: with `auto`, all that work on this machine's GPU, else sdpa.

    Raises:
        UserError: the kernel that is chosen lacks what the model's attention has.
    """
    is_plain = not (heads.sinks or heads.windows)
    if choice == "varlen" and not is_plain:
        raise UserError(
            "training.attention: varlen has no sliding windows and no attention sinks, which this model has; use auto, "
            "flex or sdpa"
        )
    if choice != "auto":
        return (choice,)
    if not torch.cuda.is_available():
        return ("sdpa",)
    found: list[Kernel] = []
    fast: tuple[Kernel, ...] = ("flex", "varlen") if is_plain else ("flex",)
    for kernel in fast:
        reason = unsupported_reason(kernel, torch.device("cuda"), dtype, heads)
        if reason is None:
            found.append(kernel)
        else:
            log.warning("attention: %s does not work here: %s", kernel, reason)
    return (*found, "sdpa")


def unsupported_reason(kernel: Kernel, device: torch.device, dtype: torch.dtype, heads: Heads) -> str | None:
    """Why a kernel does not work on this device for such heads, forward and backward; None if it does."""
    try:
        for length in (70, 300):
            layout = build_layout([Segment(0, length, (40, 30))], None, kernel)
            if not all(gradient.isfinite().all() for gradient in _run(to_device(layout, device), dtype, heads)):
                return "its gradient is not finite"
    except Exception as error:
        return first_line(error)
    return None


def seconds(layouts: Sequence[Layout], dtype: torch.dtype, heads: Heads) -> float:
    """The time of a forward and a backward pass of one layer's attention over some rows, the best of `REPEATS`."""
    total = 0.0
    for layout in layouts:
        times = []
        for _ in range(1 + REPEATS):  # the first one may compile
            begin = time.perf_counter()
            _run(layout, dtype, heads)
            if layout.query_rows.is_cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
        total += min(times[1:])
    return total


def _run(layout: Layout, dtype: torch.dtype, heads: Heads) -> list[torch.Tensor]:
    """The gradients of random queries, keys and values of a row."""
    rows, total = len(layout.query_rows), layout.visibility.shape[1]
    query, key, value = (
        torch.randn(1, count, length, heads.size, device=layout.query_rows.device, dtype=dtype, requires_grad=True)
        for count, length in ((heads.queries, rows), (heads.keys, total), (heads.keys, total))
    )
    sinks = torch.zeros(heads.queries, device=query.device, dtype=dtype) if heads.sinks else None
    output, _ = shared_prefix_attention(nn.Module().eval(), query, key, value, None, layout=layout, s_aux=sinks)
    return list(torch.autograd.grad(output.float().sum(), (query, key, value)))
