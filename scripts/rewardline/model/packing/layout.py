"""Where the tokens of packed rows stand for attention: comparisons in padded groups, and the way there and back.

A packed row is [prefix, tail, tail, ..., prefix, tail, tail, ...] without padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class Segment:
    """A comparison's place in a packed row: `start`, the prefix length and the length of each tail, in tokens.

    `pads`: how many tokens at the end of each tail are padding, () for none. As in a padded row with a mask, padding
    sees the prefix and what is real of its tail, but no padding, and nothing sees padding.
    """

    start: int
    prefix: int
    tails: tuple[int, ...]
    pads: tuple[int, ...] = ()

    @cached_property
    def length(self) -> int:
        """All tokens of the comparison."""
        return self.prefix + sum(self.tails)

    @cached_property
    def parts(self) -> tuple[Tensor, Tensor]:
        """For each token its part, and that as others see it: 0 the prefix, 1 the first tail and so on."""
        counts = torch.tensor([self.prefix, *self.tails])
        parts = torch.repeat_interleave(torch.arange(len(counts)), counts)
        ends = counts.cumsum(0).tolist()[1:]
        seen = parts.clone()
        for end, pads in zip(ends, self.pads, strict=bool(self.pads)):
            seen[end - pads : end] = FILLING
        return parts, seen

    @property
    def is_long(self) -> bool:
        """Whether it is computed by itself: with padding, it would need a mask all the same."""
        return self.length >= LONG and not any(self.pads)

    @property
    def stop(self) -> int:
        """The row after its last token."""
        return self.start + self.length

    @property
    def asked(self) -> int:
        """Places of its queries, where it is by itself."""
        return self.length

    @property
    def seen(self) -> int:
        """Places of its keys, where it is by itself."""
        return self.length


@dataclass(frozen=True)
class Spread:
    """Rows of the packed row, each once or not at all, on M places in groups.

    `rows`: int64 [M], the row at each place, 0 where padded; `places`: int64 [T], the place of each row, 0 where it has
    none; `padding` and `absent`: int64, the places without a row and the rows without a place.
    """

    rows: Tensor
    places: Tensor
    padding: Tensor
    absent: Tensor

    def to(self, device: torch.device) -> "Spread":
        """The same with its tensors on `device`."""
        return Spread(*(tensor.to(device) for tensor in (self.rows, self.places, self.padding, self.absent)))


class _Spreading(torch.autograd.Function):
    """Rows to places, or (`back`) places to rows; each is the other's gradient, as both only move rows.

    Plain indexing would add the gradients up one by one, since it cannot know that no row comes twice.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, spread: Spread, back: bool) -> Tensor:
        ctx.spread, ctx.back = spread, back
        return _moved_rows(states, spread, back)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _moved_rows(gradients[0], ctx.spread, not ctx.back), None, None


def _moved_rows(states: Tensor, spread: Spread, back: bool) -> Tensor:
    if back:
        return states.index_select(0, spread.places).index_fill_(0, spread.absent, 0)
    return states.index_select(0, spread.rows).index_fill_(0, spread.padding, 0)


def spread(states: Tensor, by: Spread) -> Tensor:
    """[T, ...] to [M, ...], zeros where padded."""
    result: Tensor = _Spreading.apply(states, by, False)  # type: ignore[no-untyped-call]
    return result


def collect(states: Tensor, by: Spread) -> Tensor:
    """[M, ...] to [T, ...], zeros where absent."""
    result: Tensor = _Spreading.apply(states, by, True)  # type: ignore[no-untyped-call]
    return result


@dataclass(frozen=True)
class Group:
    """Comparisons of similar length, whose attention is one padded call with a mask.

    `mask`: bool [n, 1, Q, L], which of the L keys each of the Q queries sees. Its queries and keys are the next n * Q
    and n * L places of the layout's.
    """

    mask: Tensor

    @property
    def asked(self) -> int:
        """Places of its queries."""
        return self.mask.shape[0] * self.mask.shape[2]

    @property
    def seen(self) -> int:
        """Places of its keys."""
        return self.mask.shape[0] * self.mask.shape[3]


@dataclass(frozen=True)
class Layout:
    """How the attention of a packed row of T tokens is computed.

    First the `groups` of comparisons, as many small calls would cost more than padding; then the `long` ones by
    themselves, as plain causal attention skips half of the work. `rows`: int64 [Q], the row of each query. `last`: the
    layout for the model's last layer, of those rows alone that are read; None where all are. `parts`: int64 [3, T], for
    each row a number of the part that it belongs to, the same as others see it, and that of its comparison's prefix.
    """

    queries: Spread
    keys: Spread
    groups: tuple[Group, ...]
    long: tuple[Segment, ...]
    rows: Tensor
    parts: Tensor
    last: "Layout | None" = None

    @property
    def is_real(self) -> Tensor:
        """Bool [T]: which rows are no padding."""
        return self.parts[1] >= 0

    def to(self, device: torch.device) -> "Layout":
        """The layout with its tensors on `device`."""
        keys = self.keys.to(device)
        return replace(
            self,
            keys=keys,
            queries=keys if self.queries is self.keys else self.queries.to(device),
            groups=tuple(Group(group.mask.to(device)) for group in self.groups),
            rows=self.rows.to(device),
            parts=self.parts.to(device),
            last=None if self.last is None else self.last.to(device),
        )


@dataclass(frozen=True)
class Member:
    """A comparison in a group: `queries`, int64 [q], which of its tokens ask; `rows`, their numbers among all asked."""

    segment: Segment
    queries: Tensor
    rows: Tensor


LONG = 512
"""From this many tokens on a comparison is computed by itself."""
WASTE = 1.3
"""Most tokens of a group, padding included, relative to those that are needed."""
FILLING = -1
"""In place of the part of a comparison, for what no other token sees."""


def layout(segments: Sequence[Segment], wanted: Sequence[int] | None, masks: bool = True) -> Layout:
    """The layout of a packed row that these comparisons fill from its first to its last token.

    `wanted`: the rows whose last hidden states are read, in any order; None for all. That must not follow from the
    data: ZeRO takes for granted that gradients become ready in the same order in all processes. Without `masks`, for
    flex_attention, there are no groups.
    """
    total = sum(segment.length for segment in segments)
    if not masks:
        none = torch.zeros(0, dtype=torch.long)
        nowhere = Spread(none, none, none, none)
        bare = Layout(nowhere, nowhere, (), (), torch.arange(total), _sight(segments))
        return bare if wanted is None else replace(bare, last=replace(bare, rows=torch.tensor(sorted(set(wanted)))))
    every = [Member(s, torch.arange(s.length), torch.arange(s.start, s.stop)) for s in segments]
    long = [member for member in every if member.segment.is_long]
    groups = _groups([member for member in every if not member.segment.is_long])
    spread = _spread([[m.rows for m in group] for group in [*groups, *([member] for member in long)]], total)
    sight = _sight(segments)
    built = tuple(map(_group, groups))
    full = Layout(spread, spread, built, tuple(member.segment for member in long), torch.arange(total), sight)
    if wanted is None:
        return full
    chosen = torch.tensor(sorted(set(wanted)))
    few = []
    for segment in segments:
        begin, end = torch.searchsorted(chosen, torch.tensor([segment.start, segment.stop])).tolist()
        if begin < end:
            few.append(Member(segment, chosen[begin:end] - segment.start, torch.arange(begin, end)))
    groups = _groups(few)
    keys = [[torch.arange(m.segment.start, m.segment.stop) for m in group] for group in groups]
    last = Layout(
        queries=_spread([[m.rows for m in group] for group in groups], len(chosen)),
        keys=_spread(keys, total),
        groups=tuple(map(_group, groups)),
        long=(),
        rows=chosen,
        parts=sight,
    )
    return replace(full, last=last)


def _groups(members: list[Member]) -> list[list[Member]]:
    """Comparisons of similar length together, longest first."""
    groups: list[list[Member]] = []
    needed = 0  # by the last group
    for member in sorted(members, key=lambda m: (-m.segment.length, m.segment.start)):
        length = member.segment.length
        group = groups[-1] if groups else []
        if not group or group[0].segment.length * (len(group) + 1) > WASTE * (needed + length):
            groups.append([])
            needed = 0
        groups[-1].append(member)
        needed += length
    return groups


def _spread(groups: Sequence[list[Tensor]], total: int) -> Spread:
    """Rows of `total`, listed by group and comparison, each comparison filled up to the longest of its group."""
    padded = [pad_sequence(group, batch_first=True, padding_value=-1).flatten() for group in groups]
    rows = torch.cat(padded)
    real = (rows >= 0).nonzero()[:, 0]
    places = torch.full((total,), -1)
    places[rows[real]] = real
    return Spread(rows.clamp(min=0), places.clamp(min=0), (rows < 0).nonzero()[:, 0], (places < 0).nonzero()[:, 0])


def _group(members: Sequence[Member]) -> Group:
    keys = torch.arange(max(member.segment.length for member in members))
    # A padded query stands for the first token; what it gives goes nowhere.
    queries = pad_sequence([member.queries for member in members], batch_first=True)
    parts = [member.segment.parts for member in members]
    # A number of its own for what fills the group up.
    seen = pad_sequence([part for _, part in parts], batch_first=True, padding_value=FILLING)[:, None, :]
    own = pad_sequence([part for part, _ in parts], batch_first=True).gather(1, queries)[:, :, None]
    # The masks are large: numbers of few bytes, and no copies.
    small = torch.int16 if len(keys) < 2**15 else torch.int32
    seen, own = seen.to(small), own.to(small)
    mask = seen == own
    mask |= seen == 0
    mask &= keys.to(small) <= queries.to(small)[:, :, None]
    return Group(mask[:, None])


def _sight(segments: Sequence[Segment]) -> Tensor:
    """`Layout.parts`: int64 [3, T]."""
    columns, first = [], 0
    for segment in segments:
        own, seen = segment.parts
        columns.append(torch.stack([own + first, seen.where(seen < 0, seen + first), torch.full_like(own, first)]))
        first += 1 + len(segment.tails)
    return torch.cat(columns, dim=1)
