"""Which tokens of a packed row see each other, and how they are grouped for attention.

A packed row is [prefix, tail, tail, ..., prefix, tail, tail, ...] without padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn.utils.rnn import pad_sequence

LONG = 512
"""From this many tokens on, the attention of a comparison is computed by itself."""
MAX_PADDING_RATIO = 1.3
"""Most tokens of a group, padding included, relative to its real tokens."""
INVISIBLE = -1
"""Part index of tokens that no other token sees."""


@dataclass(frozen=True)
class Segment:
    """A comparison in a packed row: `start`, the length of the prefix and of each tail, in tokens.

    `pads`: the number of padding tokens at the end of each tail, () for none. As in a padded row with a mask, padding
    sees the prefix and the real tokens of its tail, but no padding, and nothing sees padding.
    """

    start: int
    prefix: int
    tails: tuple[int, ...]
    pads: tuple[int, ...] = ()

    @cached_property
    def length(self) -> int:
        """Tokens of the comparison."""
        return self.prefix + sum(self.tails)

    @cached_property
    def parts(self) -> tuple[Tensor, Tensor]:
        """The part index of each token, and the same as other tokens see it: 0 the prefix, 1 the first tail, etc."""
        counts = torch.tensor([self.prefix, *self.tails])
        parts = torch.repeat_interleave(torch.arange(len(counts)), counts)
        ends = counts.cumsum(0).tolist()[1:]
        visible = parts.clone()
        for end, pads in zip(ends, self.pads, strict=bool(self.pads)):
            visible[end - pads : end] = INVISIBLE
        return parts, visible

    @property
    def is_long(self) -> bool:
        """Whether its attention is computed by itself. Padding needs a mask, which only groups have."""
        return self.length >= LONG and not any(self.pads)

    @property
    def stop(self) -> int:
        """The row after its last token."""
        return self.start + self.length


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

    def to(self, device: torch.device) -> "GroupIndices":
        """The same with its tensors on `device`."""
        return GroupIndices(*(tensor.to(device) for tensor in (self.rows, self.positions, self.padding, self.absent)))


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
    than padding; then the `long` ones by themselves, as plain causal attention skips half of the work. `masks`: bool
    [n, 1, Q, L] of each group, True where a query sees a key; a group takes the next n * Q positions of `queries` and
    n * L of `keys`. `query_rows`: int64 [Q], the row of each query. `visibility`: int64 [3, T], for each row its part
    index in the packed row, the same as other tokens see it, and that of its comparison's prefix. `last_layer`: the
    layout for the model's last layer, with queries only at the rows that are read; None where all are.

    Compared by identity, since it holds tensors.
    """

    queries: GroupIndices
    keys: GroupIndices
    masks: tuple[Tensor, ...]
    long: tuple[Segment, ...]
    query_rows: Tensor
    visibility: Tensor
    last_layer: "Layout | None" = None

    @property
    def is_real(self) -> Tensor:
        """Bool [T]: which rows are not padding."""
        return self.visibility[1] != INVISIBLE

    def to(self, device: torch.device) -> "Layout":
        """The layout with its tensors on `device`."""
        keys = self.keys.to(device)
        return replace(
            self,
            queries=keys if self.queries is self.keys else self.queries.to(device),
            keys=keys,
            masks=tuple(mask.to(device) for mask in self.masks),
            query_rows=self.query_rows.to(device),
            visibility=self.visibility.to(device),
            last_layer=None if self.last_layer is None else self.last_layer.to(device),
        )


@dataclass(frozen=True)
class _Member:
    """A comparison in a group: `queries`, int64 [q], which of its tokens are queries; `rows`, their query indices."""

    segment: Segment
    queries: Tensor
    rows: Tensor


def build_layout(segments: Sequence[Segment], read_rows: Sequence[int] | None, masks: bool = True) -> Layout:
    """The layout of a packed row that these comparisons fill from its first to its last token.

    `read_rows`: the rows whose last hidden states are read, in any order; None for all. Whether it is None must not
    depend on the data: ZeRO assumes that gradients become ready in the same order in all processes. Without `masks`,
    for flex_attention, there are no groups.
    """
    total = sum(segment.length for segment in segments)
    visibility = _visibility(segments)
    if not masks:
        none = torch.zeros(0, dtype=torch.long)
        empty = GroupIndices(none, none, none, none)
        bare = Layout(empty, empty, (), (), torch.arange(total), visibility)
        if read_rows is None:
            return bare
        return replace(bare, last_layer=replace(bare, query_rows=torch.tensor(sorted(set(read_rows)))))
    members = [_Member(s, torch.arange(s.length), torch.arange(s.start, s.stop)) for s in segments]
    long = [member for member in members if member.segment.is_long]
    groups = _groups([member for member in members if not member.segment.is_long])
    indices = _group_indices([[m.rows for m in group] for group in [*groups, *([member] for member in long)]], total)
    full = Layout(
        queries=indices,
        keys=indices,
        masks=tuple(map(_mask, groups)),
        long=tuple(member.segment for member in long),
        query_rows=torch.arange(total),
        visibility=visibility,
    )
    if read_rows is None:
        return full
    query_rows = torch.tensor(sorted(set(read_rows)))
    read = []
    for segment in segments:
        begin, end = torch.searchsorted(query_rows, torch.tensor([segment.start, segment.stop])).tolist()
        if begin < end:
            read.append(_Member(segment, query_rows[begin:end] - segment.start, torch.arange(begin, end)))
    groups = _groups(read)
    keys = [[torch.arange(m.segment.start, m.segment.stop) for m in group] for group in groups]
    last_layer = Layout(
        queries=_group_indices([[m.rows for m in group] for group in groups], len(query_rows)),
        keys=_group_indices(keys, total),
        masks=tuple(map(_mask, groups)),
        long=(),
        query_rows=query_rows,
        visibility=visibility,
    )
    return replace(full, last_layer=last_layer)


def _groups(members: list[_Member]) -> list[list[_Member]]:
    """Comparisons of similar length together, longest first."""
    groups: list[list[_Member]] = []
    real = 0  # tokens of the last group
    for member in sorted(members, key=lambda m: (-m.segment.length, m.segment.start)):
        length = member.segment.length
        group = groups[-1] if groups else []
        if not group or group[0].segment.length * (len(group) + 1) > MAX_PADDING_RATIO * (real + length):
            groups.append([])
            real = 0
        groups[-1].append(member)
        real += length
    return groups


def _group_indices(groups: Sequence[list[Tensor]], total: int) -> GroupIndices:
    """Rows of `total`, listed by group and comparison, each comparison padded to the longest of its group."""
    padded = [pad_sequence(group, batch_first=True, padding_value=-1).flatten() for group in groups]
    rows = torch.cat(padded)
    real = (rows >= 0).nonzero()[:, 0]
    positions = torch.full((total,), -1)
    positions[rows[real]] = real
    padding, absent = (rows < 0).nonzero()[:, 0], (positions < 0).nonzero()[:, 0]
    return GroupIndices(rows.clamp(min=0), positions.clamp(min=0), padding, absent)


def _mask(members: Sequence[_Member]) -> Tensor:
    """The mask of a group: bool [n, 1, Q, L]."""
    keys = torch.arange(max(member.segment.length for member in members))
    # A padded query repeats the first token; its output is dropped.
    queries = pad_sequence([member.queries for member in members], batch_first=True)
    parts = [member.segment.parts for member in members]
    visible = pad_sequence([part for _, part in parts], batch_first=True, padding_value=INVISIBLE)[:, None, :]
    own = pad_sequence([part for part, _ in parts], batch_first=True).gather(1, queries)[:, :, None]
    # The masks are large: integers of few bytes, and no copies.
    small = torch.int16 if len(keys) < 2**15 else torch.int32
    visible, own = visible.to(small), own.to(small)
    mask = visible == own
    mask |= visible == 0
    mask &= keys.to(small) <= queries.to(small)[:, :, None]
    return mask[:, None]


def _visibility(segments: Sequence[Segment]) -> Tensor:
    """`Layout.visibility`: int64 [3, T]."""
    columns, first = [], 0
    for segment in segments:
        own, visible = segment.parts
        shifted = visible.where(visible == INVISIBLE, visible + first)
        columns.append(torch.stack([own + first, shifted, torch.full_like(own, first)]))
        first += 1 + len(segment.tails)
    return torch.cat(columns, dim=1)
