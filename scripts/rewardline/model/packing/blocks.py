"""Which blocks of a packed row's attention matrix are computed, for flex_attention.

A query sees two runs of keys: the prefix of its comparison, and its own tail up to itself. So the keys that it sees in
each block of 128 are counted by their ends alone, without a comparison of every query with every key.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 128
"""Queries and keys of a block: flex_attention's default."""
INVISIBLE = -1
"""Part index of tokens that no other token sees."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of Q queries and T keys.

    Attributes:
        runs: int32 [4, Q], start and end of the first and of the second run of keys that each query sees.
        partial, full: of the blocks in which some and in which all queries see all keys, for each block of queries the
            number, int32 [1, 1, Q / 128], and the indices, int32 [1, 1, Q / 128, T / 128], of the blocks of keys.
    """

    runs: Tensor
    partial: tuple[Tensor, Tensor]
    full: tuple[Tensor, Tensor]


def filled(count: int) -> int:
    """The next number of rows that fills blocks, and at least two.

    Kernels that are compiled for rows of any such length are compiled for a handful of cases: one block of 128 would
    be another case, and so would be a block that is not full.
    """
    return max(2, -(-count // BLOCK)) * BLOCK


def fill_rows(rows: Sequence[int], total: int) -> list[int]:
    """`rows`, sorted, with the first others of `total` that fill the last block."""
    read = set(rows)
    others = (row for row in range(total) if row not in read)
    missing = filled(len(read)) - len(read)
    return sorted(read | {row for _, row in zip(range(missing), others, strict=False)})


def visible_runs(query_rows: Tensor, visibility: Tensor) -> Tensor:
    """The runs of keys that the queries at some rows see, given a layout's `visibility`: int32 [4, Q]."""
    own, visible, prefix = visibility
    parts = int(torch.maximum(own, prefix).max()) + 1
    starts = torch.searchsorted(own, torch.arange(parts))
    ends = starts + torch.bincount(own[visible != INVISIBLE], minlength=parts)
    own, prefix = own[query_rows], prefix[query_rows]
    # A token of a prefix sees one run.
    last = torch.where(own == prefix, 0, query_rows + 1)
    runs = [starts[prefix], torch.minimum(ends[prefix], query_rows + 1), starts[own], torch.minimum(ends[own], last)]
    runs[3] = torch.maximum(runs[2], runs[3])
    return torch.stack(runs).int()


def build_blocks(runs: Tensor, total: int) -> Blocks:
    """The blocks of queries that see `runs` of `total` keys."""
    rows, columns = -(-runs.shape[1] // BLOCK), -(-total // BLOCK)
    row = torch.arange(runs.shape[1]) // BLOCK
    # Keys from an index on fill all blocks after its own: differences along a row of blocks, added up once.
    steps = torch.zeros(rows * (columns + 2), dtype=torch.long)
    for ends, sign in zip(runs.long(), (1, -1, 1, -1), strict=True):
        first = row * (columns + 2) + ends // BLOCK
        steps.index_add_(0, first, sign * (BLOCK - ends % BLOCK))
        steps.index_add_(0, first + 1, sign * (ends % BLOCK))
    seen = steps.view(rows, columns + 2).cumsum(1)[:, :columns]
    is_full = seen == BLOCK * BLOCK
    return Blocks(runs, _ordered((seen > 0) & ~is_full), _ordered(is_full))


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """The number and the indices of the blocks in each row, those that are set first."""
    indices = torch.argsort(blocks.int(), dim=1, descending=True, stable=True)
    return blocks.sum(1).int()[None, None], indices.int()[None, None]
