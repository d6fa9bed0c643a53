"""Where a batch's values are read: the tokens that make up a score, and those that the per-token losses compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rewardline.tokens.store import Comparison

Score = Literal["end", "first_padding", "mean"]
Span = Literal["per_token", "per_token_published"]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Reading:
    """What is read of each sequence.

    `score`: at the end token, at the first padding token after it, or the mean over the answer's tokens, the end token
    included. `span`: the tokens of a pair that a per-token loss compares, if one does. `pad_position`: the position
    that padding has in this model whatever its place, None where it counts on.
    """

    score: Score = "end"
    span: Span | None = None
    pad_position: int | None = None

    def pads(self, comparison: Comparison) -> list[int]:
        """How many padding tokens each tail needs behind it, so that all that is read is there."""
        pads = [int(self.score == "first_padding")] * len(comparison.tails)
        if self.span == "per_token_published":
            lengths = [len(tail) for tail in comparison.tails]
            for pair in comparison.pairs:
                end = max(lengths[pair["chosen"]], lengths[pair["rejected"]])
                for index in (pair["chosen"], pair["rejected"]):
                    pads[index] = max(pads[index], end - lengths[index])
        return pads


@dataclass(frozen=True)
class Compared:
    """Pairs of tokens that a per-token loss compares, pair after pair.

    `chosen`, `rejected`: int64 [M], places in the flattened rows; `lengths`: int64 [P], how many belong to each pair.
    """

    chosen: Tensor
    rejected: Tensor
    lengths: Tensor

    def to(self, device: torch.device) -> "Compared":
        """The same on `device`."""
        return Compared(self.chosen.to(device), self.rejected.to(device), self.lengths.to(device))


@dataclass(frozen=True)
class Sequences:
    """Where the S sequences of a batch stand in its flattened rows.

    `heads`, `tails`: the places of each sequence's first token and of the first token of its tail.
    """

    heads: list[int]
    tails: list[int]


def score_places(
    comparisons: Sequence[Comparison], where: Sequences, reading: Reading, ends: list[int]
) -> tuple[Tensor, Tensor | None]:
    """The places that scores are read at, int64 [R], and how many make up each score, int64 [S] or None: one each."""
    places = torch.tensor(ends, dtype=torch.long)
    if reading.score == "end":
        return places, None
    if reading.score == "first_padding":
        return places + 1, None
    parts: list[Indices] = []
    counts: list[int] = []
    sequence = 0
    for comparison in comparisons:
        prefix, start = len(comparison.prefix), comparison.answer_start
        for _ in comparison.tails:
            head, tail, end = where.heads[sequence], where.tails[sequence], ends[sequence]
            parts += [np.arange(head + start, head + prefix), np.arange(tail + max(0, start - prefix), end + 1)]
            counts.append(len(parts[-2]) + len(parts[-1]))
            sequence += 1
    return torch.from_numpy(np.concatenate(parts)), torch.tensor(counts)


def compared_places(comparisons: Sequence[Comparison], where: Sequences, span: Span) -> Compared:
    """The tokens that `span` compares: from the first that differs to the end of the longer answer of each pair.

    Behind the end of the shorter one stand its padding tokens as published, else its end token again and again.
    """
    sides: tuple[list[Indices], list[Indices]] = ([], [])
    counts: list[int] = []
    first = 0
    for comparison in comparisons:
        for pair in comparison.pairs:
            pair_tails = [comparison.tails[pair[side]] for side in ("chosen", "rejected")]
            tokens = np.arange(_divergence(*pair_tails), max(map(len, pair_tails)))
            for side, name, tail in zip(sides, ("chosen", "rejected"), pair_tails, strict=True):
                read = tokens if span == "per_token_published" else np.minimum(tokens, len(tail) - 1)
                side.append(where.tails[first + pair[name]] + read)
            counts.append(len(tokens))
        first += len(comparison.tails)
    chosen, rejected = (torch.from_numpy(np.concatenate(side)) for side in sides)
    return Compared(chosen, rejected, torch.tensor(counts))


def _divergence(first: npt.NDArray[np.int32], second: npt.NDArray[np.int32]) -> int:
    """The index of the first token that differs; where one tail begins with all of the other, the other's length."""
    shorter = min(len(first), len(second))
    different = np.flatnonzero(first[:shorter] != second[:shorter])
    return int(different[0]) if different.size else shorter


def segment_means(values: Tensor, lengths: Tensor) -> Tensor:
    """The means of consecutive runs of `values` [R]: [S], for `lengths` int64 [S] that add up to R."""
    # The checks that `unsafe` leaves out would make a GPU wait.
    return torch.segment_reduce(values, "mean", lengths=lengths, unsafe=True)
