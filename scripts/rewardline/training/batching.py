"""The comparisons of each step and micro batch, which data, seed and settings alone decide."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from rewardline.core.runtime import rank, world_size
from rewardline.model.batch import Batch, collate, sizes_for
from rewardline.model.loading import DTYPES
from rewardline.model.packing import kernels
from rewardline.model.packing.layout import Kernel, pinned
from rewardline.model.reward_model import RewardModel
from rewardline.tokens.store import Comparison, TokenDataset
from rewardline.training.loss import Targets
from rewardline.training.settings import TrainingSettings

T = TypeVar("T")
Indices = npt.NDArray[np.int64]
AHEAD = 2
"""How many micro batches are prepared ahead."""


@dataclass(frozen=True)
class Piece:
    """Examples `begin` to `end` of comparison `index`, its pairs and then its rated answers: usually all of them."""

    index: int
    begin: int
    end: int

    @property
    def pairs(self) -> int:
        """How many pairs and rated answers it has."""
        return self.end - self.begin


def order(data: TokenDataset, seed: int, epoch: int) -> Indices:
    """The order in which an epoch visits the comparisons: a permutation that (seed, epoch) alone decide."""
    return np.random.default_rng([seed, epoch]).permutation(len(data))


def steps(pair_counts: Indices, visit: Indices, pairs_per_step: int) -> list[list[Piece]]:
    """The pieces of each step: in `visit`'s order, as many as hold at most `pairs_per_step` pairs.

    A comparison is not split unless it alone has more pairs than that.
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


def micro_batches(
    sizes: Indices, pieces: Sequence[Piece], budget: int, rows: Indices | None = None
) -> list[list[Piece]]:
    """Pack pieces, of comparisons of `sizes` tokens, into micro batches of at most `budget` tokens.

    A larger one is alone. Longest first, so that micro batches are even. `rows`: how many rows each comparison has,
    where all rows of a batch are padded to its longest; then rows of a batch have similar lengths.
    """
    if rows is not None:
        return _padded_micro_batches(sizes // rows, rows, pieces, budget)
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


def _padded_micro_batches(widths: Indices, rows: Indices, pieces: Sequence[Piece], budget: int) -> list[list[Piece]]:
    result: list[list[Piece]] = []
    width = held = 0
    for piece in sorted(pieces, key=lambda piece: -int(widths[piece.index])):
        count = int(rows[piece.index])
        if not result or (held + count) * width > budget:
            result.append([])
            width, held = int(widths[piece.index]), 0
        result[-1].append(piece)
        held += count
    return result


def cut(comparison: Comparison, piece: Piece) -> Comparison:
    """The pairs and rated answers of a comparison that a piece has, with only the tails that they use."""
    count = len(comparison.pairs)
    if piece.begin == 0 and piece.end == count + len(comparison.answers):
        return comparison
    pairs = comparison.pairs[piece.begin : piece.end]
    answers = comparison.answers[max(0, piece.begin - count) : max(0, piece.end - count)]
    used = sorted({index for pair in pairs for index in (pair.chosen, pair.rejected)} | {one.tail for one in answers})
    index = {old: new for new, old in enumerate(used)}
    return replace(
        comparison,
        tails=[comparison.tails[old] for old in used],
        pairs=[replace(pair, chosen=index[pair.chosen], rejected=index[pair.rejected]) for pair in pairs],
        answers=[replace(one, tail=index[one.tail]) for one in answers],
    )


@dataclass(frozen=True)
class StepSampler:
    """The pieces of each step, epoch after epoch."""

    data: TokenDataset
    training: TrainingSettings
    seed: int

    def epoch(self, number: int) -> list[list[Piece]]:
        """The steps of an epoch (0-based)."""
        visit = order(self.data, self.seed, number)
        return steps(self.data.example_counts, visit, self.training.pairs_per_step)

    @cached_property
    def total_steps(self) -> int:
        """How many steps there are.

        Epochs differ in their number of steps where comparisons have several pairs, as their order differs.
        """
        epochs, most = self.training.epochs, self.training.max_steps or math.inf
        if (self.data.example_counts == 1).all():
            total = epochs * math.ceil(len(self.data) / self.training.pairs_per_step)
        else:
            total = 0.0
            for number in range(math.ceil(epochs)):
                total += len(self.epoch(number)) * min(1, epochs - number)
                if total >= most:
                    break
        return int(min(math.ceil(total - 1e-6), most))  # 1.1 epochs of 10 steps are 11.000000000000002

    def steps(self, done: int) -> Iterator[tuple[float, list[Piece]]]:
        """The steps after the first `done`, each with the epoch that it ends at."""
        number, steps, first = 0, self.epoch(0), 0
        for step in range(self.total_steps):
            if step - first == len(steps):
                number, first = number + 1, step
                steps = self.epoch(number)
            if step >= done:
                yield round(number + (step - first + 1) / len(steps), 4), steps[step - first]


LoadedBatch = tuple[Batch, bool]


def prepared_ahead(items: Iterator[T]) -> Iterator[T]:
    """`items`, of which a thread prepares the next ones while one is used."""
    with ThreadPoolExecutor(1) as worker:
        waiting = deque(worker.submit(next, items, None) for _ in range(AHEAD))
        while (item := waiting.popleft().result()) is not None:
            waiting.append(worker.submit(next, items, None))
            yield item


class MicroBatchLoader:
    """Loads this process's micro batches of some pieces of a split.

    With `objective`, batches have what the training objective compares and weighs, else what scores are read from.
    """

    def __init__(
        self,
        model: RewardModel,
        training: TrainingSettings,
        data: TokenDataset,
        pad_id: int,
        device: torch.device,
        *,
        objective: bool,
        targets: Targets | None = None,
    ) -> None:
        """`targets`: what single answers with ratings are trained and evaluated for; None where they do not count."""
        span = training.loss if objective and training.loss in ("per_token", "per_token_published") else None
        self.data, self.device, self.targets = data, device, targets
        self.by_prompt = objective and training.loss == "kwise"
        self._batching, self._pad_id, self._budget = model.batching, pad_id, training.tokens_per_micro_batch
        self._score_positions = replace(model.score_positions, span=span)
        self._sizes = sizes_for(data, model.batching, self._score_positions)
        self._model, self._dtype = model, DTYPES[training.precision]

    @property
    def kernel(self) -> Kernel:
        """The kernel that the batches are made for."""
        return self._model.kernel

    def kernel_times(self, pieces: Sequence[Piece]) -> dict[Kernel, float]:
        """Seconds of a layer's attention over the micro batches of some pieces, for each of the model's kernels."""
        chosen, times = self._model.kernel, {}
        for kernel in self._model.kernels:
            self._model.use_kernel(kernel)
            layouts = [batch.layout for batch, _ in self.load(pieces) if batch.layout is not None]
            times[kernel] = kernels.seconds(layouts, self._dtype, kernels.heads_of(self._model.model))
        self._model.use_kernel(chosen)
        return times

    def _pairs_per_unit(self, piece: Piece) -> int:
        """How many pairs and rated answers count as one unit of the mean."""
        return int(self.data.example_counts[piece.index]) if self.by_prompt else 1

    def units(self, pieces: Sequence[Piece]) -> float:
        """How many units the mean over some pieces is taken over: pairs and rated answers, or prompts."""
        return sum(piece.pairs / self._pairs_per_unit(piece) for piece in pieces)

    def load(self, pieces: Sequence[Piece]) -> Iterator[LoadedBatch]:
        """The micro batches of a step, or of an evaluation; see `load_steps`."""
        return next(self.load_steps([pieces]))

    def load_steps(self, steps: Iterable[Sequence[Piece]]) -> Iterator[Iterator[LoadedBatch]]:
        """The micro batches of each step, and whether each is real; then endlessly none.

        They must be taken in this order, all of a step before the next step.

        All processes get equally many, as DeepSpeed's collectives need it: those that are not real do not count. For a
        GPU, a thread prepares the next ones meanwhile, those of the next step too.
        """
        batches: Iterator[tuple[Batch, bool, bool]]
        batches = (batch for pieces in steps for batch in self._batches(pieces))
        if self.device.type != "cpu":
            batches = prepared_ahead(map(pinned, batches))
        while True:
            yield self._of_step(batches)

    def _of_step(self, batches: Iterator[tuple[Batch, bool, bool]]) -> Iterator[LoadedBatch]:
        for batch, is_real, is_last in batches:
            yield batch.to(self.device), is_real
            if is_last:
                return

    def _batches(self, pieces: Sequence[Piece]) -> Iterator[tuple[Batch, bool, bool]]:
        """The micro batches of a step, whether each is real, and whether it is the last one."""
        rows = self.data.tail_counts if self._batching == "padded" else None
        groups = micro_batches(self._sizes, pieces, self._budget, rows)
        for begin in range(0, len(groups), world_size()):
            real = groups[begin : begin + world_size()]
            is_real = rank() < len(real)
            group = real[rank()] if is_real else real[-1][-1:]
            comparisons = [cut(self.data[piece.index], piece) for piece in group]
            names = self.targets.names if self.targets else ()
            batch = collate(comparisons, self._batching, self._pad_id, self._score_positions, self.kernel, names)
            if self.by_prompt:
                shares = [self._pairs_per_unit(piece) for piece in group]
                batch.weight.div_(torch.from_numpy(np.repeat(shares, [len(c.pairs) for c in comparisons])))
                batch.rated_weight.div_(torch.from_numpy(np.repeat(shares, [len(c.answers) for c in comparisons])))
            yield batch, is_real, begin + world_size() >= len(groups)
