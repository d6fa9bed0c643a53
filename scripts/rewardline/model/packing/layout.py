"""Which tokens of a packed row see each other, and how they are grouped for attention.

A packed row is [prefix, tail, tail, ..., prefix, tail, tail, ...] without padding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import lru_cache
from typing import Literal, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn.utils.rnn import pad_sequence

from rewardline.model.packing.blocks import INVISIBLE, Blocks, build_blocks, fill_rows, visible_runs
from rewardline.model.packing.varlen import Sequences, causal_sequences, single_queries

T = TypeVar("T")
LONG = 512
"""The attention of a comparison with at least this many tokens is computed separately."""
MAX_PADDING_RATIO = 1.3
"""Most tokens of a group, padding included, relative to its real tokens."""
Kernel = Literal["sdpa", "flex", "varlen"]
"""How the attention of packed rows is computed, see `attention`."""


def to_device(value: T, device: torch.device) -> T:
    """A copy of a tensor, tuple or dataclass with all tensors in it on `device`; of pinned ones, without a wait."""
    return _mapped(value, lambda tensor: tensor.to(device, non_blocking=True))


def pinned(value: T) -> T:
    """A copy of a tensor, tuple or dataclass with all tensors in it in memory that a GPU can read by itself."""
    return _mapped(value, Tensor.pin_memory)


def _mapped(value: T, function: Callable[[Tensor], Tensor]) -> T:
    result: object = value
    if isinstance(value, Tensor):
        result = function(value)
    elif isinstance(value, tuple):
        result = tuple(_mapped(item, function) for item in value)
    elif is_dataclass(value) and not isinstance(value, type):
        result = replace(value, **{f.name: _mapped(getattr(value, f.name), function) for f in fields(value)})
    return result  # type: ignore[return-value]


@dataclass(frozen=True)
class Segment:
    """A comparison in a packed row: `start`, the length of the prefix and of each tail, in tokens.

    `pads`: the number of padding tokens at the end of each tail, () for none. As in a padded row with a mask, padding
    sees the prefix and the real tokens of its tail, and no token sees padding.
    """

    start: int
    prefix: int
    tails: tuple[int, ...]
    pads: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        """Tokens of the comparison."""
        return self.prefix + sum(self.tails)

    @property
    def stop(self) -> int:
        """The row after its last token."""
        return self.start + self.length

    @property
    def is_long(self) -> bool:
        """Whether its attention is computed separately. Padding needs a mask, which only groups have."""
        return self.length >= LONG and not any(self.pads)


@dataclass(frozen=True)
class GroupIndices:
    """Maps T rows to M positions of padded groups, each row to one position or none.

    `rows`: int64 [M], the row at each position, 0 at padding; `positions`: int64 [T], the position of each row, 0 where
    it has none; `padding` and `absent`: int64, the positions without a row and the rows without a position.
    """

    rows: Tensor
    positions: Tensor
    padding: Tensor
    absent: Tensor


class _Context(FunctionCtx):
    indices: GroupIndices
    inverse: bool


class _MoveRows(torch.autograd.Function):
    """Rows to positions, or (`inverse`) positions to rows; each is the other's gradient, as both only move rows.

    The gradient of plain indexing adds up row by row, since it cannot know that no row occurs twice.
    """

    @staticmethod
    def forward(ctx: _Context, states: Tensor, indices: GroupIndices, inverse: bool) -> Tensor:
        ctx.indices, ctx.inverse = indices, inverse
        return _moved(states, indices, inverse)

    @staticmethod
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _moved(gradients[0], ctx.indices, not ctx.inverse), None, None


def _moved(states: Tensor, indices: GroupIndices, inverse: bool) -> Tensor:
    if inverse:
        return states.index_select(0, indices.positions).index_fill_(0, indices.absent, 0)
    return states.index_select(0, indices.rows).index_fill_(0, indices.padding, 0)


def scatter(states: Tensor, indices: GroupIndices) -> Tensor:
    """Rows [T, ...] to positions [M, ...], zeros at padding."""
    result: Tensor = _MoveRows.apply(states, indices, False)  # type: ignore[no-untyped-call]
    return result


def gather(states: Tensor, indices: GroupIndices) -> Tensor:
    """Positions [M, ...] back to rows [T, ...], zeros where a row has no position."""
    result: Tensor = _MoveRows.apply(states, indices, True)  # type: ignore[no-untyped-call]
    return result


@dataclass(frozen=True, eq=False)
class Layout:
    """How the attention of a packed row of T tokens is computed.

    First in groups of n comparisons of similar length, each in one padded call, as many small calls would cost more
    than padding; then the `long` ones separately, as plain causal attention skips half of the work. `masks`: bool
    [n, 1, Q, L] of each group, True where a query sees a key; a group takes the next n * Q positions of `queries` and
    n * L of `keys`. `query_rows`: int64 [Q], the row of each query. `visibility`: int64 [3, T], for each row its part
    index in the packed row, the same as other tokens see it, and that of its comparison's prefix. `positions`: int64
    [T], the position of each row in its sequence, of which the longest has `longest` tokens. `blocks`: for
    flex_attention, and `sequences`: for the variable-length kernel, which need no groups; else None. `last_layer`: the
    layout for the model's last layer, with queries only at the rows that are read; None where all are.

    Compared by identity, since it holds tensors.
    """

    queries: GroupIndices
    keys: GroupIndices
    masks: tuple[Tensor, ...]
    long: tuple[Segment, ...]
    query_rows: Tensor
    visibility: Tensor
    positions: Tensor
    longest: int
    blocks: Blocks | None = None
    sequences: Sequences | None = None
    last_layer: "Layout | None" = None

    @property
    def is_real(self) -> Tensor:
        """Bool [T]: which rows are not padding."""
        return self.visibility[1] != INVISIBLE

    @property
    def multiplicity(self) -> Tensor:
        """Int64 [T]: in how many sequences each row stands, a prefix in one for each tail; 0 for padding."""
        own, _, prefix = self.visibility
        last = torch.zeros_like(own).scatter_reduce(0, prefix, own, "amax")  # the last part of each comparison
        return torch.where(own == prefix, last[prefix] - prefix, 1) * self.is_real

    def effective(self, window: int | None) -> int | None:
        """The size of a sliding window in tokens; None where no sequence is longer."""
        return window if window is not None and window < self.longest else None


def sees(query: Tensor, key: Tensor, own: Tensor, visible: Tensor, prefix: Tensor) -> Tensor:
    """Whether row `query` sees row `key`: bool, of their broadcast shape. The rest are the rows of `visibility`."""
    return (key <= query) & ((visible[key] == own[query]) | (visible[key] == prefix[query]))


@lru_cache(maxsize=4)
def windowed_masks(layout: Layout, window: int) -> tuple[Tensor, ...]:
    """The masks of the groups where a query sees no key that is `window` or more tokens before it."""
    # Padded queries repeat the first one of their comparison, whose keys they keep.
    queries = layout.positions[layout.query_rows][layout.queries.rows].index_fill(0, layout.queries.padding, -1)
    keys = layout.positions[layout.keys.rows]
    masks, query, key = [], 0, 0
    for mask in layout.masks:
        count, _, rows, columns = mask.shape
        q = queries[query : query + count * rows].view(count, 1, rows, 1)
        k = keys[key : key + count * columns].view(count, 1, 1, columns)
        masks.append(mask & (q - k < window))
        query, key = query + count * rows, key + count * columns
    return tuple(masks)


def build_layout(segments: Sequence[Segment], read_rows: Sequence[int] | None, kernel: Kernel = "sdpa") -> Layout:
    """The layout of a packed row that these comparisons fill from its first to its last token.

    `read_rows`: the rows whose last hidden states are read, in any order; None for all. Whether it is None must not
    depend on the data: ZeRO assumes that gradients become ready in the same order in all processes. The layout has what
    `kernel` needs. For flex_attention, rows that nothing reads fill the last block of those that are read.
    """
    visibility, positions = _visibility(segments), _positions(segments)
    total = visibility.shape[1]
    layout = _layout(segments, torch.arange(total), visibility, positions, kernel)
    if read_rows is None:
        return layout
    rows = fill_rows(read_rows, total) if kernel == "flex" else sorted(set(read_rows))
    return replace(layout, last_layer=_layout(segments, torch.tensor(rows), visibility, positions, kernel))


def _positions(segments: Sequence[Segment]) -> Tensor:
    parts = [
        torch.arange(start, start + length)
        for segment in segments
        for start, length in [(0, segment.prefix), *((segment.prefix, tail) for tail in segment.tails)]
    ]
    return torch.cat(parts)


def _visibility(segments: Sequence[Segment]) -> Tensor:
    lengths = torch.tensor([length for segment in segments for length in (segment.prefix, *segment.tails)])
    own = torch.arange(len(lengths)).repeat_interleave(lengths)
    visible = own.clone()
    pads = [count for segment in segments for count in (0, *(segment.pads or [0] * len(segment.tails)))]
    for end, count in zip(lengths.cumsum(0).tolist(), pads, strict=True):
        visible[end - count : end] = INVISIBLE
    parts = torch.tensor([1 + len(segment.tails) for segment in segments])
    first = parts.cumsum(0) - parts
    return torch.stack([own, visible, first.repeat_interleave(torch.tensor([s.length for s in segments]))])


def _parts(segment: Segment) -> list[tuple[int, int, int]]:
    """Start, end, and end without padding of the prefix and of each tail, in rows."""
    bounds, start = [], segment.start
    for length, pads in zip(
        (segment.prefix, *segment.tails), (0, *(segment.pads or [0] * len(segment.tails))), strict=True
    ):
        bounds.append((start, start + length, start + length - pads))
        start += length
    return bounds


_Member = tuple[Segment, Tensor]
"""A comparison in a group, and the indices of its queries: int64 [q]."""


def _layout(
    segments: Sequence[Segment], query_rows: Tensor, visibility: Tensor, positions: Tensor, kernel: Kernel
) -> Layout:
    total = visibility.shape[1]
    longest = max(segment.prefix + max(segment.tails, default=0) for segment in segments)
    if kernel != "sdpa":
        none = torch.zeros(0, dtype=torch.long)
        empty = GroupIndices(none, none, none, none)
        layout = Layout(empty, empty, (), (), query_rows, visibility, positions, longest)
        runs = visible_runs(query_rows, visibility)
        if kernel == "flex":
            return replace(layout, blocks=build_blocks(runs, total))
        if len(query_rows) < total:
            return replace(layout, sequences=single_queries(runs))
        return replace(layout, sequences=causal_sequences(map(_parts, segments), runs))
    bounds = torch.searchsorted(query_rows, torch.tensor([(s.start, s.stop) for s in segments])).tolist()
    members = [(s, torch.arange(*bound)) for s, bound in zip(segments, bounds, strict=True) if bound[0] < bound[1]]
    is_complete = len(query_rows) == total
    long = [member for member in members if is_complete and member[0].is_long]
    groups = _groups([member for member in members if not (is_complete and member[0].is_long)])
    batches = [*groups, *([member] for member in long)]
    queries = [_pad([rows for _, rows in batch]) for batch in batches]
    keys = [_pad([torch.arange(s.start, s.stop) for s, _ in batch]) for batch in batches]
    return Layout(
        queries=_group_indices(queries, len(query_rows)),
        keys=_group_indices(keys, total),
        masks=tuple(_mask(query_rows, *both, visibility) for both in zip(queries[: len(groups)], keys, strict=False)),
        long=tuple(segment for segment, _ in long),
        query_rows=query_rows,
        visibility=visibility,
        positions=positions,
        longest=longest,
    )


def _groups(members: list[_Member]) -> list[list[_Member]]:
    """Comparisons of similar length together, longest first."""
    groups: list[list[_Member]] = []
    real = 0  # tokens of the last group
    for member in sorted(members, key=lambda m: (-m[0].length, m[0].start)):
        length = member[0].length
        if not groups or groups[-1][0][0].length * (len(groups[-1]) + 1) > MAX_PADDING_RATIO * (real + length):
            groups.append([])
            real = 0
        groups[-1].append(member)
        real += length
    return groups


def _pad(rows: list[Tensor]) -> Tensor:
    """The rows of a group's comparisons: int64 [n, longest], -1 for padding."""
    return pad_sequence(rows, batch_first=True, padding_value=-1)


def _group_indices(groups: Sequence[Tensor], total: int) -> GroupIndices:
    """The map of `total` rows to the positions of padded groups."""
    rows = torch.cat([group.flatten() for group in groups])
    real = (rows >= 0).nonzero()[:, 0]
    positions = torch.full((total,), -1)
    positions[rows[real]] = real
    padding, absent = (rows < 0).nonzero()[:, 0], (positions < 0).nonzero()[:, 0]
    return GroupIndices(rows.clamp(min=0), positions.clamp(min=0), padding, absent)


def _mask(query_rows: Tensor, queries: Tensor, keys: Tensor, visibility: Tensor) -> Tensor:
    """The mask of a group: bool [n, 1, Q, L]."""
    # A padded query repeats the first one of its comparison; its output is dropped.
    queries = query_rows[queries.where(queries >= 0, queries[:, :1])]
    mask = sees(queries[:, :, None], keys[:, None].clamp(min=0), *visibility)
    mask &= (keys >= 0)[:, None]
    return mask[:, None]
