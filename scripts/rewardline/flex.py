"""The attention of packed rows in one call of flex_attention (Dong et al. 2024, arXiv 2412.05496), for GPUs.

Blocks of the score matrix in which nobody sees anybody are not computed.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from rewardline.layout import Layout, Segment, layout


def attend(query: Tensor, key: Tensor, value: Tensor, current: Layout, scale: float | None) -> Tensor:
    """Query [1, heads, Q, d] to keys and values [1, key heads, T, d] by the layout: [1, heads, Q, d]."""
    result: Tensor = _kernel(query.device.type)(
        query, key, value, block_mask=_mask(current), scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    return result


@lru_cache(maxsize=1)
def _kernel(device: str) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    # One compilation for rows of any length; the CPU's own has no gradient, and serves tests.
    return torch.compile(flex_attention, dynamic=True) if device == "cuda" else flex_attention


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


def problem(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why flex_attention does not work on this device, forward and backward; None if it does."""
    try:
        for length in (70, 300):
            current = layout([Segment(0, length, (40, 30))], None).to(device)
            states = [torch.randn(1, 2, length + 70, 64, device=device, dtype=dtype) for _ in range(3)]
            query, key, value = (tensor.requires_grad_() for tensor in states)
            torch.autograd.backward(attend(query, key, value, current, None).float().sum())
            if not torch.isfinite(query.grad if query.grad is not None else torch.tensor(torch.nan)).all():
                return "its gradient is not finite"
    except Exception as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return None
