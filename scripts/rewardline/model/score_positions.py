"""Where a batch's values are read: the tokens that make up a score, and those that the per-token losses compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rewardline.tokens.store import Comparison, Ids

Score = Literal["end", "first_padding", "mean"]
Span = Literal["per_token", "per_token_published"]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ScorePositions:
    """The tokens of a sequence whose values are read.

    `score`: the end token, the first padding token after it, or the mean over the answer's tokens, the end token
    included. `span`: the tokens of a pair that a per-token loss compares, if one does. `pad_position`: the position id
    of all padding in this model, None where padding continues the position ids.
    """

    score: Score = "end"
    span: Span | None = None
    pad_position: int | None = None

    def padding_lengths(self, comparison: Comparison) -> list[int]:
        """The number of padding tokens that are read behind each tail."""
        padding = [int(self.score == "first_padding")] * len(comparison.tails)
        if self.span == "per_token_published":
            lengths = [len(tail) for tail in comparison.tails]
            for pair in comparison.pairs:
                end = max(lengths[pair.chosen], lengths[pair.rejected])
                for index in (pair.chosen, pair.rejected):
                    padding[index] = max(padding[index], end - lengths[index])
        return padding


@dataclass(frozen=True)
class ComparedTokens:
    """Pairs of tokens that a per-token loss compares, pair after pair.

    `chosen`, `rejected`: int64 [M], indices in the flattened rows; `lengths`: int64 [P], how many belong to each pair.
    """

    chosen: Tensor
    rejected: Tensor
    lengths: Tensor

    def to(self, device: torch.device) -> "ComparedTokens":
        """The same on `device`."""
        return ComparedTokens(self.chosen.to(device), self.rejected.to(device), self.lengths.to(device))


@dataclass(frozen=True)
class SequenceBounds:
    """Indices of the S sequences of a batch in its flattened rows.

    The first token of the prefix, the first token of the tail, and the end token of each sequence.
    """

    prefix_starts: list[int]
    tail_starts: list[int]
    ends: list[int]


def score_indices(
    comparisons: Sequence[Comparison], bounds: SequenceBounds, positions: ScorePositions
) -> tuple[Tensor, Tensor | None]:
    """Indices of the values that make up the scores, int64 [R], and the number for each, int64 [S]; None: one each."""
    ends = torch.tensor(bounds.ends, dtype=torch.long)
    if positions.score == "end":
        return ends, None
    if positions.score == "first_padding":
        return ends + 1, None
    parts: list[Indices] = []
    counts: list[int] = []
    sequence = 0
    for comparison in comparisons:
        prefix, start = len(comparison.prefix), comparison.answer_start
        for _ in comparison.tails:
            first, tail, end = (starts[sequence] for starts in (bounds.prefix_starts, bounds.tail_starts, bounds.ends))
            parts += [np.arange(first + start, first + prefix), np.arange(tail + max(0, start - prefix), end + 1)]
            counts.append(len(parts[-2]) + len(parts[-1]))
            sequence += 1
    return torch.from_numpy(np.concatenate(parts)), torch.tensor(counts)


def compared_tokens(comparisons: Sequence[Comparison], bounds: SequenceBounds, span: Span) -> ComparedTokens:
    """The tokens that `span` compares: from the first that differs to the end of the longer answer of each pair.

    Behind the end of the shorter answer its padding tokens are compared as published, else its end token repeatedly.
    """
    chosen: list[Indices] = []
    rejected: list[Indices] = []
    first = 0
    for comparison in comparisons:
        for pair in comparison.pairs:
            tails = [comparison.tails[pair.chosen], comparison.tails[pair.rejected]]
            tokens = np.arange(_divergence(*tails), max(map(len, tails)))
            for side, index, tail in zip((chosen, rejected), (pair.chosen, pair.rejected), tails, strict=True):
                read = tokens if span == "per_token_published" else np.minimum(tokens, len(tail) - 1)
                side.append(bounds.tail_starts[first + index] + read)
        first += len(comparison.tails)
    lengths = torch.tensor([len(tokens) for tokens in chosen])
    return ComparedTokens(torch.from_numpy(np.concatenate(chosen)), torch.from_numpy(np.concatenate(rejected)), lengths)


def _divergence(first: Ids, second: Ids) -> int:
    """The index of the first token that differs; where one tail begins with all of the other, the other's length."""
    shorter = min(len(first), len(second))
    different = np.flatnonzero(first[:shorter] != second[:shorter])
    return int(different[0]) if different.size else shorter


def segment_means(values: Tensor, lengths: Tensor) -> Tensor:
    """The means of consecutive runs of `values` [R]: [S], for `lengths` int64 [S] that add up to R."""
    # The checks that `unsafe` leaves out would make a GPU wait.
    return torch.segment_reduce(values, "mean", lengths=lengths, unsafe=True)
