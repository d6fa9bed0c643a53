"""Which comparisons make up a step, how they are packed into micro batches, and their tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rewardline.attention import Layout, Segment, layout
from rewardline.shards import Comparison, TokenDataset

Batching = Literal["shared_prefix", "padded"]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Piece:
    """Pairs `begin` to `end` of comparison `index`: usually all of them."""

    index: int
    begin: int
    end: int

    @property
    def pairs(self) -> int:
        """How many pairs it has."""
        return self.end - self.begin


@dataclass
class Batch:
    """The tensors of a micro batch; S sequences (prefix + tail) and P pairs among them.

    Attributes:
        input_ids: int64 [rows, T]. Packed: one row; padded: a row a sequence.
        position_ids: int64 [rows, T].
        attention_mask: int64 [rows, T] for padded rows, None for packed ones.
        layout: how the attention of a packed row is computed, None for padded ones.
        ends: int64 [S], the place of each sequence's end token in the flattened rows.
        chosen, rejected: int64 [P], sequences of the pairs.
        margin, weight: float32 [P].
        tokens: real tokens computed; full_tokens: those of chosen and rejected in full.
        pair_ids: the P pairs' ids.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor | None
    layout: Layout | None
    ends: Tensor
    chosen: Tensor
    rejected: Tensor
    margin: Tensor
    weight: Tensor
    tokens: int
    full_tokens: int
    pair_ids: list[str]

    def to(self, device: torch.device) -> "Batch":
        """The batch with its tensors on `device`."""
        moved = {key: value.to(device) for key, value in vars(self).items() if isinstance(value, Tensor)}
        packing = None if self.layout is None else self.layout.to(device)
        return Batch(**{**vars(self), **moved, "layout": packing})


def order(data: TokenDataset, seed: int, epoch: int) -> Indices:
    """The order in which an epoch visits the comparisons: a permutation that (seed, epoch) alone decide."""
    return np.random.default_rng([seed, epoch]).permutation(len(data))


def steps(pair_counts: Indices, visit: Indices, pairs_per_step: int) -> list[list[Piece]]:
    """The pieces of each step: in `visit`'s order, as many as hold at most `pairs_per_step` pairs.

    A comparison stays whole unless it alone has more pairs than that.
    """
    result: list[list[Piece]] = []
    room = 0
    for index in visit.tolist():
        count = int(pair_counts[index])
        for begin in range(0, count, pairs_per_step):
            piece = Piece(index, begin, min(count, begin + pairs_per_step))
            if not result or piece.pairs > room:
                result.append([])
                room = pairs_per_step
            result[-1].append(piece)
            room -= piece.pairs
    return result


def micro_batches(sizes: Indices, pieces: Sequence[Piece], budget: int) -> list[list[Piece]]:
    """Pack pieces, of comparisons of `sizes` tokens, into micro batches of at most `budget` tokens.

    A larger one stands alone. Longest first, so that micro batches are even and rows of a batch have similar lengths.
    """
    result: list[list[Piece]] = []
    room: list[int] = []
    for piece in sorted(pieces, key=lambda piece: -int(sizes[piece.index])):
        size = int(sizes[piece.index])
        fit = next((k for k, left in enumerate(room) if left >= size), None)
        if fit is None:
            result.append([piece])
            room.append(budget - size)
        else:
            result[fit].append(piece)
            room[fit] -= size
    return result


def cut(comparison: Comparison, piece: Piece) -> Comparison:
    """The part of a comparison that a piece asks for: some of its pairs, and only the tails that these use."""
    if piece.begin == 0 and piece.end == len(comparison.pairs):
        return comparison
    pairs = comparison.pairs[piece.begin : piece.end]
    used = sorted({pair[side] for pair in pairs for side in ("chosen", "rejected")})
    place = {old: new for new, old in enumerate(used)}
    moved = [{**pair, "chosen": place[pair["chosen"]], "rejected": place[pair["rejected"]]} for pair in pairs]
    return Comparison(comparison.prompt_id, comparison.prefix, [comparison.tails[old] for old in used], moved)


def sizes_for(data: TokenDataset, batching: Batching) -> Indices:
    """What each comparison costs a micro batch, in tokens: int64 [N]."""
    if batching == "shared_prefix":
        return data.tokens
    owner = np.repeat(np.arange(len(data)), data.tail_counts)
    longest = np.zeros(len(data), dtype=np.int64)
    np.maximum.at(longest, owner, data.tail_lengths)
    padded: Indices = (longest + data.prefix_lengths) * data.tail_counts
    return padded


def collate(comparisons: Sequence[Comparison], batching: Batching, pad_id: int) -> Batch:
    """The tensors of a micro batch. Where a score is read follows from lengths alone, never from a token's id."""
    if batching == "shared_prefix":
        ids, positions, mask, packing, ends = _packed(comparisons)
    else:
        ids, positions, mask, packing, ends = _padded(comparisons, pad_id)
    first = np.cumsum([0, *(len(c.tails) for c in comparisons)])
    pairs = [(base, pair) for base, c in zip(first, comparisons, strict=False) for pair in c.pairs]
    return Batch(
        input_ids=ids,
        position_ids=positions,
        attention_mask=mask,
        layout=packing,
        ends=torch.tensor(ends, dtype=torch.long),
        chosen=torch.tensor([base + pair["chosen"] for base, pair in pairs], dtype=torch.long),
        rejected=torch.tensor([base + pair["rejected"] for base, pair in pairs], dtype=torch.long),
        margin=torch.tensor([pair["margin"] or 0.0 for _, pair in pairs], dtype=torch.float32),
        weight=torch.tensor([pair["weight"] for _, pair in pairs], dtype=torch.float32),
        tokens=sum(c.tokens for c in comparisons),
        full_tokens=sum(c.full_tokens for c in comparisons),
        pair_ids=[pair["pair_id"] for _, pair in pairs],
    )


Rows = tuple[Tensor, Tensor, Tensor | None, Layout | None, list[int]]


def _packed(comparisons: Sequence[Comparison]) -> Rows:
    ids, positions, segments, ends = [], [], [], []
    start = 0
    for comparison in comparisons:
        prefix = len(comparison.prefix)
        ids.append(comparison.prefix)
        positions.append(np.arange(prefix))
        segments.append(Segment(start, prefix, tuple(map(len, comparison.tails))))
        start += prefix
        for tail in comparison.tails:
            ids.append(tail)
            positions.append(np.arange(prefix, prefix + len(tail)))
            start += len(tail)
            ends.append(start - 1)
    flat = torch.from_numpy(np.concatenate(ids).astype(np.int64))
    places = torch.from_numpy(np.concatenate(positions).astype(np.int64))
    return flat[None], places[None], None, layout(segments), ends


def _padded(comparisons: Sequence[Comparison], pad_id: int) -> Rows:
    rows = [np.concatenate([comparison.prefix, tail]) for comparison in comparisons for tail in comparison.tails]
    width = max(map(len, rows))
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    positions = np.broadcast_to(np.arange(width), ids.shape).copy()
    ends = [index * width + len(row) - 1 for index, row in enumerate(rows)]
    return torch.from_numpy(ids), torch.from_numpy(positions), torch.from_numpy(mask), None, ends
