"""The tensors of a micro batch, and the number of tokens that a comparison adds to one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rewardline.model.packing.blocks import filled
from rewardline.model.packing.layout import Kernel, Layout, Segment, build_layout, to_device
from rewardline.model.score_positions import (
    ComparedTokens,
    Indices,
    ScorePositions,
    SequenceBounds,
    compared_tokens,
    score_indices,
)
from rewardline.tokens.store import Comparison, ComparisonPair, TokenDataset

Batching = Literal["shared_prefix", "padded"]
END = ScorePositions()


@dataclass
class Batch:
    """The tensors of a micro batch; S sequences (prefix + tail) and P pairs among them.

    Attributes:
        input_ids: int64 [rows, T]; one packed row, or a padded row for each sequence.
        position_ids: int64 [rows, T].
        attention_mask: int64 [rows, T] for padded rows, None for packed ones.
        layout: how the attention of a packed row is computed, None for padded ones.
        ends: int64 [S], the index of each sequence's end token in the flattened rows.
        score_indices: int64 [R], indices of the values that scores are read from in the flattened rows.
        values_per_score: int64 [S], the number of values that each score is the mean of; None for one each, with R = S.
        compared: the tokens that a per-token loss compares, None for other losses.
        chosen, rejected: int64 [P], indices of the sequences of the pairs.
        margin, weight: float32 [P]; a margin is 0 where the data has none.
        strength: float32 [P], the margin as a factor: 1 where the data has none, 0 where it is negative.
        confidence: float32 [P], the probability that the label is correct.
        length_lead: float32 [P], log(tokens of the chosen answer / tokens of the rejected one).
        rated: int64 [N], indices of the sequences of single answers with ratings.
        ratings: float32 [N, number of names], NaN where a rating is missing.
        rated_weight: float32 [N].
        tokens: tokens computed, without padding.
        full_tokens: tokens of the chosen and rejected sequences in full.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor | None
    layout: Layout | None
    ends: Tensor
    score_indices: Tensor
    values_per_score: Tensor | None
    compared: ComparedTokens | None
    chosen: Tensor
    rejected: Tensor
    margin: Tensor
    strength: Tensor
    weight: Tensor
    confidence: Tensor
    length_lead: Tensor
    rated: Tensor
    ratings: Tensor
    rated_weight: Tensor
    tokens: int
    full_tokens: int

    def to(self, device: torch.device) -> "Batch":
        """The batch with its tensors on `device`."""
        return to_device(self, device)


def sizes_for(data: TokenDataset, batching: Batching, positions: ScorePositions = END) -> Indices:
    """The most tokens that each comparison adds to a micro batch, including padding that is read: int64 [N]."""
    padding = data.tail_counts * (positions.score == "first_padding")
    published = positions.span == "per_token_published"
    if batching == "shared_prefix" and not published:
        return data.tokens + padding
    owner = np.repeat(np.arange(len(data)), data.tail_counts)
    longest = np.zeros(len(data), dtype=np.int64)
    np.maximum.at(longest, owner, data.tail_lengths)
    if batching == "shared_prefix":
        return data.prefix_lengths + longest * data.tail_counts + padding
    padded: Indices = (longest + data.prefix_lengths) * data.tail_counts + padding
    return padded


def collate(
    comparisons: Sequence[Comparison],
    batching: Batching,
    pad_id: int,
    positions: ScorePositions = END,
    kernel: Kernel = "sdpa",
    ratings: Sequence[str] = (),
) -> Batch:
    """The tensors of a micro batch. Where a score is read follows from lengths alone, never from a token's id.

    `ratings`: names of those of single answers. `kernel`: what computes the attention of a packed row; for
    flex_attention, padding fills its last block.
    """
    if batching == "shared_prefix":
        rows = _packed(comparisons, pad_id, positions, kernel)
    else:
        rows = _padded(comparisons, pad_id, positions)
    indices, values_per_score = score_indices(comparisons, rows.bounds, positions)
    first = np.cumsum([0, *(len(c.tails) for c in comparisons)])
    pairs = [(offset, pair) for offset, c in zip(first, comparisons, strict=False) for pair in c.pairs]
    rated = [(offset, answer) for offset, c in zip(first, comparisons, strict=False) for answer in c.answers]
    values = [{rating["name"]: rating["value"] for rating in answer.ratings} for _, answer in rated]
    return Batch(
        input_ids=torch.from_numpy(rows.input_ids),
        position_ids=torch.from_numpy(rows.position_ids),
        attention_mask=None if rows.attention_mask is None else torch.from_numpy(rows.attention_mask),
        layout=rows.layout,
        ends=torch.from_numpy(rows.bounds.ends),
        score_indices=indices,
        values_per_score=values_per_score,
        compared=None if positions.span is None else compared_tokens(comparisons, rows.bounds, positions.span),
        chosen=torch.tensor([offset + pair.chosen for offset, pair in pairs], dtype=torch.long),
        rejected=torch.tensor([offset + pair.rejected for offset, pair in pairs], dtype=torch.long),
        margin=torch.tensor([pair.margin or 0.0 for _, pair in pairs], dtype=torch.float32),
        strength=torch.tensor([_strength(pair.margin) for _, pair in pairs], dtype=torch.float32),
        weight=torch.tensor([pair.weight for _, pair in pairs], dtype=torch.float32),
        confidence=torch.tensor([pair.confidence for _, pair in pairs], dtype=torch.float32),
        length_lead=torch.tensor([length_lead(c, pair) for c in comparisons for pair in c.pairs], dtype=torch.float32),
        rated=torch.tensor([offset + answer.tail for offset, answer in rated], dtype=torch.long),
        ratings=torch.tensor([one.get(name, math.nan) for one in values for name in ratings], dtype=torch.float32).view(
            len(rated), len(ratings)
        ),
        rated_weight=torch.tensor([answer.weight for _, answer in rated], dtype=torch.float32),
        tokens=sum(c.tokens for c in comparisons),
        full_tokens=sum(c.full_tokens for c in comparisons),
    )


def length_lead(comparison: Comparison, pair: ComparisonPair) -> float:
    """The logarithm of how many times as many tokens the chosen answer has as the rejected one."""
    chosen, rejected = (
        len(comparison.prefix) + len(comparison.tails[tail]) - comparison.answer_start
        for tail in (pair.chosen, pair.rejected)
    )
    return math.log(chosen / rejected)


def _strength(margin: float | None) -> float:
    return 1.0 if margin is None else max(margin, 0.0)


class _Rows(NamedTuple):
    """The rows of a batch as arrays, and the sequences in them."""

    input_ids: Indices
    position_ids: Indices
    attention_mask: Indices | None
    layout: Layout | None
    bounds: SequenceBounds


def _packed(comparisons: Sequence[Comparison], pad_id: int, positions: ScorePositions, kernel: Kernel) -> _Rows:
    ids, position_ids, segments, bounds = [], [], [], []
    start = 0
    for comparison in comparisons:
        prefix, padding = len(comparison.prefix), positions.padding_lengths(comparison)
        lengths = tuple(len(tail) + count for tail, count in zip(comparison.tails, padding, strict=True))
        segments.append(Segment(start, prefix, lengths, tuple(padding) if any(padding) else ()))
        ids.append(comparison.prefix)
        position_ids.append(np.arange(prefix))
        tail_start = start + prefix
        for tail, count, length in zip(comparison.tails, padding, lengths, strict=True):
            ids += [tail, np.full(count, pad_id, dtype=np.int32)]
            position_ids.append(np.arange(prefix, prefix + length))
            if positions.pad_position is not None:
                position_ids[-1][len(tail) :] = positions.pad_position
            bounds.append((start, tail_start, tail_start + len(tail) - 1))
            tail_start += length
        start = tail_start
    if kernel == "flex" and (missing := filled(start) - start):
        segments.append(Segment(start, 0, (missing,), (missing,)))
        ids.append(np.full(missing, pad_id, dtype=np.int32))
        position_ids.append(np.zeros(missing, dtype=np.int64))
    sequences = SequenceBounds(*np.array(bounds).T.copy())
    # The values of all tokens are read where a score or a loss takes many of them.
    every = positions.span is not None or positions.score == "mean"
    read_rows = None if every else (sequences.ends + (positions.score == "first_padding")).tolist()
    return _Rows(
        input_ids=np.concatenate(ids).astype(np.int64)[None],
        position_ids=np.concatenate(position_ids)[None],
        attention_mask=None,
        layout=build_layout(segments, read_rows, kernel),
        bounds=sequences,
    )


def _padded(comparisons: Sequence[Comparison], pad_id: int, positions: ScorePositions) -> _Rows:
    rows = [np.concatenate([c.prefix, tail]) for c in comparisons for tail in c.tails]
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max() + (positions.score == "first_padding")) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[mask] = np.concatenate(rows)
    count, width = mask.shape
    position_ids = np.tile(np.arange(width), (count, 1))
    if positions.pad_position is not None:
        position_ids[~mask] = positions.pad_position
    starts = np.arange(count) * width
    prefixes = np.array([len(c.prefix) for c in comparisons for _ in c.tails])
    bounds = SequenceBounds(starts, starts + prefixes, starts + lengths - 1)
    return _Rows(ids, position_ids, mask.astype(np.int64), None, bounds)
