"""The tensors of a micro batch, and what a comparison costs one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rewardline.model.packing.layout import Layout, Segment, layout
from rewardline.model.score_positions import Compared, Reading, Sequences, compared_places, score_places
from rewardline.tokens.store import Comparison, TokenDataset

Batching = Literal["shared_prefix", "padded"]
Indices = npt.NDArray[np.int64]


@dataclass
class Batch:
    """The tensors of a micro batch; S sequences (prefix + tail) and P pairs among them.

    Attributes:
        input_ids: int64 [rows, T]. Packed: one row; padded: a row a sequence.
        position_ids: int64 [rows, T].
        attention_mask: int64 [rows, T] for padded rows, None for packed ones.
        layout: how the attention of a packed row is computed, None for padded ones.
        ends: int64 [S], the place of each sequence's end token in the flattened rows.
        places: int64 [R], where scores are read in the flattened rows.
        reads: int64 [S], of how many of `places` each score is the mean, or None: of one each, and R = S.
        compared: the tokens that a per-token loss compares, if it is one.
        chosen, rejected: int64 [P], sequences of the pairs.
        margin, weight: float32 [P].
        confidence: float32 [P], the probability that the label is right.
        tokens: real tokens computed; full_tokens: those of chosen and rejected in full.
        pair_ids: the P pairs' ids.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor | None
    layout: Layout | None
    ends: Tensor
    places: Tensor
    reads: Tensor | None
    compared: Compared | None
    chosen: Tensor
    rejected: Tensor
    margin: Tensor
    weight: Tensor
    confidence: Tensor
    tokens: int
    full_tokens: int
    pair_ids: list[str]

    def to(self, device: torch.device) -> "Batch":
        """The batch with its tensors on `device`."""
        moved = {key: value.to(device) for key, value in vars(self).items() if isinstance(value, Tensor)}
        packing = None if self.layout is None else self.layout.to(device)
        compared = None if self.compared is None else self.compared.to(device)
        return Batch(**{**vars(self), **moved, "layout": packing, "compared": compared})


END = Reading()


def sizes_for(data: TokenDataset, batching: Batching, reading: Reading = END) -> Indices:
    """What each comparison costs a micro batch at most, in tokens, with the padding that is read: int64 [N]."""
    pads = data.tail_counts * (reading.score == "first_padding")
    published = reading.span == "per_token_published"
    if batching == "shared_prefix" and not published:
        return data.tokens + pads
    owner = np.repeat(np.arange(len(data)), data.tail_counts)
    longest = np.zeros(len(data), dtype=np.int64)
    np.maximum.at(longest, owner, data.tail_lengths)
    if batching == "shared_prefix":
        return data.prefix_lengths + longest * data.tail_counts + pads
    padded: Indices = (longest + data.prefix_lengths) * data.tail_counts + pads
    return padded


def collate(
    comparisons: Sequence[Comparison], batching: Batching, pad_id: int, reading: Reading = END, masks: bool = True
) -> Batch:
    """The tensors of a micro batch. Where a score is read follows from lengths alone, never from a token's id.

    `masks` as in `layout`.
    """
    packed = batching == "shared_prefix"
    rows, where, ends = (
        _packed(comparisons, pad_id, reading, masks) if packed else _padded(comparisons, pad_id, reading)
    )
    places, reads = score_places(comparisons, where, reading, ends)
    first = np.cumsum([0, *(len(c.tails) for c in comparisons)])
    pairs = [(base, pair) for base, c in zip(first, comparisons, strict=False) for pair in c.pairs]
    return Batch(
        **rows,
        ends=torch.tensor(ends, dtype=torch.long),
        places=places,
        reads=reads,
        compared=None if reading.span is None else compared_places(comparisons, where, reading.span),
        chosen=torch.tensor([base + pair["chosen"] for base, pair in pairs], dtype=torch.long),
        rejected=torch.tensor([base + pair["rejected"] for base, pair in pairs], dtype=torch.long),
        margin=torch.tensor([pair["margin"] or 0.0 for _, pair in pairs], dtype=torch.float32),
        weight=torch.tensor([pair["weight"] for _, pair in pairs], dtype=torch.float32),
        confidence=torch.tensor([_confidence(pair) for _, pair in pairs], dtype=torch.float32),
        tokens=sum(c.tokens for c in comparisons),
        full_tokens=sum(c.full_tokens for c in comparisons),
        pair_ids=[pair["pair_id"] for _, pair in pairs],
    )


def _confidence(pair: dict[str, Any]) -> float:
    value = pair.get("confidence")
    return 1.0 if value is None else float(value)


Rows = tuple[dict[str, Any], Sequences, list[int]]
"""The batch's rows by their names in `Batch`, where the sequences stand in them, and where they end."""


def _packed(comparisons: Sequence[Comparison], pad_id: int, reading: Reading, masks: bool) -> Rows:
    ids, positions, segments = [], [], []
    heads, starts, ends = [], [], []
    start = 0
    for comparison in comparisons:
        prefix, pads = len(comparison.prefix), reading.pads(comparison)
        ids.append(comparison.prefix)
        positions.append(np.arange(prefix))
        lengths = tuple(len(tail) + count for tail, count in zip(comparison.tails, pads, strict=True))
        segments.append(Segment(start, prefix, lengths, tuple(pads) if any(pads) else ()))
        place = start + prefix
        for tail, count in zip(comparison.tails, pads, strict=True):
            ids.append(tail)
            if count:
                ids.append(np.full(count, pad_id, dtype=np.int32))
            positions.append(_positions(prefix, len(tail), count, reading))
            heads.append(start)
            starts.append(place)
            ends.append(place + len(tail) - 1)
            place += len(tail) + count
        start = place
    flat = torch.from_numpy(np.concatenate(ids).astype(np.int64))
    places = torch.from_numpy(np.concatenate(positions).astype(np.int64))
    # Values of many tokens are read at all of them.
    every = reading.span is not None or reading.score == "mean"
    wanted = None if every else [end + (reading.score == "first_padding") for end in ends]
    rows = {"input_ids": flat[None], "position_ids": places[None], "attention_mask": None}
    return {**rows, "layout": layout(segments, wanted, masks)}, Sequences(heads, starts), ends


def _padded(comparisons: Sequence[Comparison], pad_id: int, reading: Reading) -> Rows:
    rows = [np.concatenate([comparison.prefix, tail]) for comparison in comparisons for tail in comparison.tails]
    width = max(map(len, rows)) + (reading.score == "first_padding")
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    positions = np.zeros((len(rows), width), dtype=np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
        positions[index] = _positions(0, len(row), width - len(row), reading)
    heads = [index * width for index in range(len(rows))]
    starts = [head + len(comparison.prefix) for head, comparison in zip(heads, _owners(comparisons), strict=True)]
    ends = [head + len(row) - 1 for head, row in zip(heads, rows, strict=True)]
    tensors = {name: torch.from_numpy(array) for name, array in (("input_ids", ids), ("position_ids", positions))}
    return (
        {**tensors, "attention_mask": torch.from_numpy(mask), "layout": None},
        Sequences(heads, starts),
        ends,
    )


def _owners(comparisons: Sequence[Comparison]) -> Iterator[Comparison]:
    """For each sequence its comparison."""
    return (comparison for comparison in comparisons for _ in comparison.tails)


def _positions(first: int, tokens: int, pads: int, reading: Reading) -> Indices:
    """Positions of `tokens` tokens from `first` on, and of the padding behind them."""
    positions = np.arange(first, first + tokens + pads)
    if reading.pad_position is not None:
        positions[tokens:] = reading.pad_position
    return positions
