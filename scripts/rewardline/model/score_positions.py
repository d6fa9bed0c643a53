"""Where the values of a batch are read: the tokens of a score, and those that per-token losses compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rewardline.tokens.store import Comparison, common_length

Score = Literal["end", "first_padding", "mean"]
Span = Literal["per_token", "per_token_published"]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ScorePositions:
    """The tokens of a sequence whose values are read.

    `score`: the end token, the first padding token after it, or the mean over the answer's tokens, the end token
    included. `span`: the tokens of a pair that a per-token loss compares, None for other losses. `pad_position`: the
    position id of all padding in this model, None where padding continues the position ids.
    """

    score: Score = "end"
    span: Span | None = None
    pad_position: int | None = None

    def padding_lengths(self, comparison: Comparison) -> list[int]:
        """The number of padding tokens that are read after each tail."""
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
    """The tokens that a per-token loss compares, pair after pair.

    `chosen`, `rejected`: int64 [M], indices in the flattened rows; `lengths`: int64 [P], the number for each pair.
    """

    chosen: Tensor
    rejected: Tensor
    lengths: Tensor


class SequenceBounds(NamedTuple):
    """Where the S sequences of a batch are in its flattened rows: int64 [S] each.

    The index of the first token of the prefix, of the first token of the tail, and of the end token.
    """

    prefix_starts: Indices
    tail_starts: Indices
    ends: Indices


def score_indices(
    comparisons: Sequence[Comparison], bounds: SequenceBounds, positions: ScorePositions
) -> tuple[Tensor, Tensor | None]:
    """Indices of the values that scores are read from, int64 [R], and the number for each, int64 [S] (None: one)."""
    ends = torch.from_numpy(bounds.ends)
    if positions.score == "end":
        return ends, None
    if positions.score == "first_padding":
        return ends + 1, None
    answers: list[Indices] = []
    owners = [comparison for comparison in comparisons for _ in comparison.tails]
    for comparison, first, tail, end in zip(owners, *bounds, strict=True):
        prefix, start = len(comparison.prefix), comparison.answer_start
        in_prefix = np.arange(first + start, first + prefix)
        answers.append(np.concatenate([in_prefix, np.arange(tail + max(0, start - prefix), end + 1)]))
    return torch.from_numpy(np.concatenate(answers)), torch.tensor([len(answer) for answer in answers])


def compared_tokens(comparisons: Sequence[Comparison], bounds: SequenceBounds, span: Span) -> ComparedTokens:
    """The tokens that `span` compares: from the first that differs to the end of the longer answer of each pair.

    After the end of the shorter answer its padding tokens are compared as published, else its end token repeatedly.
    """
    chosen: list[Indices] = []
    rejected: list[Indices] = []
    first = 0
    for comparison in comparisons:
        for pair in comparison.pairs:
            tails = [comparison.tails[pair.chosen], comparison.tails[pair.rejected]]
            tokens = np.arange(common_length(*tails), max(map(len, tails)))
            for side, index, tail in zip((chosen, rejected), (pair.chosen, pair.rejected), tails, strict=True):
                read = tokens if span == "per_token_published" else np.minimum(tokens, len(tail) - 1)
                side.append(bounds.tail_starts[first + index] + read)
        first += len(comparison.tails)
    lengths = torch.tensor([len(tokens) for tokens in chosen])
    return ComparedTokens(torch.from_numpy(np.concatenate(chosen)), torch.from_numpy(np.concatenate(rejected)), lengths)


def segment_means(values: Tensor, lengths: Tensor) -> Tensor:
    """The means of consecutive runs of `values` [R]: [S], for `lengths` int64 [S] that add up to R."""
    # The checks that `unsafe` leaves out would make a GPU wait.
    return torch.segment_reduce(values, "mean", lengths=lengths, unsafe=True)
