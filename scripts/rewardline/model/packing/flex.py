"""The attention of packed rows in one call of flex_attention (Dong et al. 2024, arXiv 2412.05496), for GPUs.

Blocks of the score matrix in which nobody sees anybody are not computed.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rewardline.model.packing.layout import Layout, Segment, layout


def attend(query: Tensor, key: Tensor, value: Tensor, current: Layout, scale: float | None) -> Tensor:
    """Query [1, heads, Q, d] to keys and values [1, key heads, T, d] by the layout: [1, heads, Q, d]."""
    result: Tensor = _kernel(query.device.type)(
        query,
        key,
        value,
        block_mask=_mask(current),
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
        # Few queries, as in the last layer, would take a kernel of their own, compiled for their number.
        kernel_options={"FORCE_USE_FLEX_ATTENTION": True},
    )
    return result


@lru_cache(maxsize=1)
def _kernel(device: str) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    if device != "cuda":
        return flex_attention  # has no gradient, and serves tests
    # One compilation for rows of any length, but for each of a few cases: one block of 128 or several, of queries and
    # of keys, with a gradient and without. Beyond PyTorch's limit of 8 it would compute the whole score matrix.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    return torch.compile(flex_attention, dynamic=True)


@lru_cache(maxsize=2)
def _cached_mask(key: "_ById") -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    rows, (own, seen, head) = key.layout.rows, key.layout.parts

    def visible(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        row = rows[q]
        sees: Tensor = (k <= row) & ((seen[k] == own[row]) | (seen[k] == head[row]))
        return sees

    return create_block_mask(visible, None, None, len(rows), len(own), device=rows.device.type)


class _ById:
    """A layout as a key: the one object, whatever it holds."""

    def __init__(self, of: Layout) -> None:
        self.layout = of

    def __hash__(self) -> int:
        return id(self.layout)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and other.layout is self.layout


def _mask(current: Layout) -> Any:
    return _cached_mask(_ById(current))  # all layers share it


class Heads(NamedTuple):
    """How many heads queries have, how many keys and values have, and how wide each is."""

    queries: int
    keys: int
    width: int


def problem(device: torch.device, dtype: torch.dtype, heads: Heads) -> str | None:
    """Why flex_attention does not work on this device for such heads, forward and backward; None if it does."""
    try:
        for length in (70, 300):
            current = layout([Segment(0, length, (40, 30))], None).to(device)
            query, key, value = (
                torch.randn(1, count, length + 70, heads.width, device=device, dtype=dtype, requires_grad=True)
                for count in (heads.queries, heads.keys, heads.keys)
            )
            torch.autograd.backward(attend(query, key, value, current, None).float().sum())
            for state in (query, key, value):
                if state.grad is None or not torch.isfinite(state.grad).all():
                    return "its gradient is not finite"
    except Exception as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return None
