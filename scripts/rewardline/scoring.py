"""Scores of whole data sets of comparisons, in bounded memory, the same whatever the batches."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from rewardline.batches import collate
from rewardline.cli import UserError
from rewardline.reward_model import RewardModel
from rewardline.shards import Comparison

Scores = npt.NDArray[np.float32]
WINDOW = 2048
"""Comparisons that are sorted by length together."""


def score_comparisons(
    model: RewardModel,
    comparisons: Iterator[Comparison],
    *,
    device: torch.device,
    pad_id: int,
    batch_tokens: int = 8192,
) -> Iterator[tuple[Comparison, Scores]]:
    """Yield each comparison with the float32 [K] scores of its tails, in the order given.

    At most `batch_tokens` tokens, padding that is read aside, are computed at once, unless one prompt with one answer
    alone has more.

    Raises:
        UserError: a score is not a number.
    """
    model.eval()
    while window := list(islice(comparisons, WINDOW)):
        results: list[Scores] = [np.full(len(c.tails), np.nan, dtype=np.float32) for c in window]
        parts = [(index, begin, end) for index, c in enumerate(window) for begin, end in _spans(c, batch_tokens)]
        parts.sort(key=lambda part: (-_tokens(window[part[0]], part[1], part[2]), part))
        for group in _groups(window, parts, batch_tokens):
            pieces = [replace(window[i], tails=window[i].tails[begin:end], pairs=[]) for i, begin, end in group]
            batch = collate(pieces, model.batching, pad_id, model.reading).to(device)
            with torch.inference_mode():
                scores = model(batch).cpu().numpy()
            place = 0
            for index, begin, end in group:
                results[index][begin:end] = scores[place : place + end - begin]
                place += end - begin
        for comparison, result in zip(window, results, strict=True):
            if not np.isfinite(result).all():
                ids = ", ".join(pair["pair_id"] for pair in comparison.pairs[:3])
                raise UserError(f"the model gives {result.tolist()} to the answers of pairs {ids}: not a finite score")
            yield comparison, result


def _tokens(comparison: Comparison, begin: int, end: int) -> int:
    return len(comparison.prefix) + sum(len(tail) for tail in comparison.tails[begin:end])


def _spans(comparison: Comparison, limit: int) -> Iterator[tuple[int, int]]:
    """Ranges of tails that fit into `limit` tokens with the prefix: usually one range of all."""
    begin, room = 0, limit - len(comparison.prefix)
    for index, tail in enumerate(comparison.tails):
        if index > begin and len(tail) > room:
            yield begin, index
            begin, room = index, limit - len(comparison.prefix)
        room -= len(tail)
    yield begin, len(comparison.tails)


def _groups(
    window: list[Comparison], parts: list[tuple[int, int, int]], limit: int
) -> Iterator[list[tuple[int, int, int]]]:
    group: list[tuple[int, int, int]] = []
    room = limit
    for part in parts:
        size = _tokens(window[part[0]], part[1], part[2])
        if group and size > room:
            yield group
            group, room = [], limit
        group.append(part)
        room -= size
    if group:
        yield group
