"""The attention of packed rows in one call of flex_attention (Dong et al. 2024, arXiv 2412.05496), for GPUs.

Blocks of the score matrix in which no query sees a key are not computed.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from rewardline.model.packing.blocks import BLOCK, Blocks
from rewardline.model.packing.layout import Layout


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scale: float | None,
    window: int | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Query [1, heads, Q, d] to keys and values [1, key heads, T, d] by the layout: [1, heads, Q, d].

    `window`: the tokens that a query sees, itself included; `sinks` [heads]: logits of a key without a value.
    """
    options = {} if sinks is None else {"return_aux": AuxRequest(lse=True)}
    result: Any = _kernel(query.device.type)(
        query,
        key,
        value,
        block_mask=_block_mask(layout, layout.effective(window)),
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
        # Few queries, as in the last layer, would otherwise use a kernel that is compiled for their number.
        kernel_options={"FORCE_USE_FLEX_ATTENTION": True},
        **options,
    )
    if sinks is None:
        output: Tensor = result
        return output
    output, auxiliary = result
    share: Tensor = torch.sigmoid(auxiliary.lse - sinks.float()[None, :, None])
    return output * share[..., None].to(output.dtype)


@lru_cache(maxsize=1)
def _kernel(device: str) -> Callable[..., Any]:
    # That of the CPU has no gradient, and is for tests.
    if device == "cuda":
        return compiled()
    plain: Callable[..., Any] = flex_attention
    return plain


def compiled(backend: str = "inductor") -> Callable[..., Any]:
    """flex_attention, compiled by a backend of torch.compile."""
    # One compilation for rows of any length, but for each of a few cases: as many queries as keys or fewer, with a
    # gradient and without. Beyond PyTorch's limit of 8 it would compute the whole score matrix.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    return torch.compile(flex_attention, dynamic=True, backend=backend)


@lru_cache(maxsize=4)
def _block_mask(layout: Layout, window: int | None) -> BlockMask:
    """The visible blocks of a packed row, cached as layers share them."""
    if layout.blocks is None:
        raise RuntimeError("the layout of the packed row has no blocks")
    runs = layout.blocks.runs

    def mask(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        start, end, own_start, own_end = runs[0][query], runs[1][query], runs[2][query], runs[3][query]
        return ((key >= start) & (key < end)) | ((key >= own_start) & (key < own_end))

    rows, positions = layout.query_rows, layout.positions

    def windowed(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return mask(batch, head, query, key) & (positions[rows[query]] - positions[key] < (window or 0))

    blocks = layout.blocks
    counts, indices = _both(blocks) if window else blocks.partial
    return BlockMask.from_kv_blocks(
        counts,
        indices,
        None if window else blocks.full[0],
        None if window else blocks.full[1],
        BLOCK_SIZE=BLOCK,
        mask_mod=windowed if window else mask,
        seq_lengths=(len(rows), layout.visibility.shape[1]),
    )


def _both(blocks: Blocks) -> tuple[Tensor, Tensor]:
    """The visible blocks as partial ones: a window may cut those that are full without it."""
    visible = torch.zeros_like(blocks.partial[1])
    for count, indices in (blocks.partial, blocks.full):
        listed = torch.arange(indices.shape[-1], device=indices.device) < count[..., None]
        visible = visible.scatter_add(-1, indices.long(), listed.to(visible.dtype))
    return visible.sum(-1, dtype=torch.int32), visible.argsort(dim=-1, descending=True, stable=True).to(torch.int32)


def compilations() -> int:
    """How many graphs torch.compile has made in this process."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])
