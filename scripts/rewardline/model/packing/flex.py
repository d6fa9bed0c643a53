"""The attention of packed rows in one call of flex_attention (Dong et al. 2024, arXiv 2412.05496), for GPUs.

Blocks of the score matrix in which no query sees a key are not computed.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from rewardline.model.packing.blocks import BLOCK
from rewardline.model.packing.layout import Layout


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float | None) -> Tensor:
    """Query [1, heads, Q, d] to keys and values [1, key heads, T, d] by the layout: [1, heads, Q, d]."""
    return _kernel(query.device.type)(
        query,
        key,
        value,
        block_mask=_block_mask(layout),
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
        # Few queries, as in the last layer, would otherwise use a kernel that is compiled for their number.
        kernel_options={"FORCE_USE_FLEX_ATTENTION": True},
    )


@lru_cache(maxsize=1)
def _kernel(device: str) -> Callable[..., Tensor]:
    # That of the CPU has no gradient, and is for tests.
    if device == "cuda":
        return compiled()
    plain: Callable[..., Tensor] = flex_attention
    return plain


def compiled(backend: str = "inductor") -> Callable[..., Tensor]:
    """flex_attention, compiled by a backend of torch.compile."""
    # One compilation for rows of any length, but for each of a few cases: as many queries as keys or fewer, with a
    # gradient and without. Beyond PyTorch's limit of 8 it would compute the whole score matrix.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    return torch.compile(flex_attention, dynamic=True, backend=backend)


@lru_cache(maxsize=2)
def _block_mask(layout: Layout) -> BlockMask:
    """The visible blocks of a packed row, cached as all layers but the last share them."""
    if layout.blocks is None:
        raise RuntimeError("the layout of the packed row has no blocks")
    runs = layout.blocks.runs

    def mask(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        start, end, own_start, own_end = runs[0][query], runs[1][query], runs[2][query], runs[3][query]
        return ((key >= start) & (key < end)) | ((key >= own_start) & (key < own_end))

    return BlockMask.from_kv_blocks(
        *layout.blocks.partial,
        *layout.blocks.full,
        BLOCK_SIZE=BLOCK,
        mask_mod=mask,
        seq_lengths=(len(layout.query_rows), layout.visibility.shape[1]),
    )


def compilations() -> int:
    """How many graphs torch.compile has made in this process."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])
