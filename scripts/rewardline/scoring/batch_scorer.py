"""Scores of datasets of comparisons, in bounded memory, the same whatever the batches."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from rewardline.core.errors import UserError
from rewardline.model.batch import Batch, collate
from rewardline.model.loading import load_reward_model
from rewardline.model.reward_model import RewardModel
from rewardline.model.threads import start_threads
from rewardline.scoring import partitioned
from rewardline.scoring.partitioned import Compute
from rewardline.scoring.parts import windows
from rewardline.tokens.store import Comparison

log = logging.getLogger(__name__)
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """Tails `begin` to `end` of a window's comparison `index`, which are computed together.

    `size`: its tokens, including padding that a score is read at. `is_alone`: nothing else may be in its batch.
    """

    index: int
    begin: int
    end: int
    size: int
    is_alone: bool = False


def score_comparisons(
    model: RewardModel,
    comparisons: Iterable[Comparison],
    *,
    device: torch.device,
    pad_id: int,
    batch_tokens: int = 8192,
    compute: Compute | None = None,
) -> Iterator[tuple[Comparison, Scores]]:
    """Yield each comparison with the float32 [K] scores of its tails, in the order given.

    Of a model with A attributes, float32 [K, 1 + A]: each score, and then its attributes.

    At most `batch_tokens` tokens, padding included, are computed at once, unless one prompt with one answer alone has
    more. `compute` computes batches in place of `model`.

    Raises:
        UserError: a score is not a number.
    """
    for window in windows(comparisons, attrgetter("tokens"), batch_tokens):
        results = score_window(model, window, device=device, pad_id=pad_id, batch_tokens=batch_tokens, compute=compute)
        yield from zip(window, results, strict=True)


def window_scorer(
    folder: Path, *, max_length: int, batch_tokens: int, trust_remote_code: bool, processes: int = 0
) -> Callable[[Sequence[Comparison]], list[Scores]]:
    """Load the model of a folder; `score_window` with it, on a GPU if there is one.

    `processes`: how many hold it together, see `partitioned.processes_for`.

    Raises:
        UserError: the model cannot be loaded.
    """
    start_threads()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    make = partial(_load, folder, max_length, trust_remote_code)
    model, compute = partitioned.load(folder, make, _itself, "auto", processes)
    log.info("%s batches of up to %d tokens, on %s", model.batching, batch_tokens, device)
    pad_id = int(model.model.config.pad_token_id)
    return partial(score_window, model, device=device, pad_id=pad_id, batch_tokens=batch_tokens, compute=compute)


def _load(folder: Path, max_length: int, trust_remote_code: bool) -> RewardModel:
    loaded = load_reward_model(folder, trust_remote_code=trust_remote_code, dtype="auto")
    return RewardModel(loaded.to("cuda" if torch.cuda.is_available() else "cpu"), max_length=max_length)


def _itself(model: RewardModel) -> RewardModel:
    return model


def score_window(
    model: RewardModel,
    window: Sequence[Comparison],
    *,
    device: torch.device,
    pad_id: int,
    batch_tokens: int,
    compute: Compute | None = None,
) -> list[Scores]:
    """The scores of each comparison's tails, float32 [K]; see `score_comparisons`."""
    model.eval()
    shape = (1 + len(model.attributes),) if model.attributes else ()
    results: list[Scores] = [np.full((len(c.tails), *shape), np.nan, dtype=np.float32) for c in window]
    packed = model.batching == "shared_prefix"
    extra = int(model.score_positions.score == "first_padding")
    cut = partial(_packed_parts, alone_above=model.alone_above) if packed else _padded_parts
    parts = [part for index, c in enumerate(window) for part in cut(index, c, extra, batch_tokens)]
    groups = list(_groups(parts, batch_tokens, padded=not packed))

    def batches() -> Iterator[Batch]:
        for group in groups:
            pieces = [
                replace(window[p.index], tails=window[p.index].tails[p.begin : p.end], pairs=[], answers=[])
                for p in group
            ]
            yield collate(pieces, model.batching, pad_id, model.score_positions)

    with torch.inference_mode():
        computed = compute(batches()) if compute else [model(batch.to(device), True) for batch in batches()]
    # After the last batch is queued, so that none waits for the GPU.
    for group, tensor in zip(groups, computed, strict=True):
        scores = np.split(tensor.cpu().numpy(), np.cumsum([part.end - part.begin for part in group])[:-1])
        for part, values in zip(group, scores, strict=True):
            results[part.index][part.begin : part.end] = values
    for comparison, result in zip(window, results, strict=True):
        if not np.isfinite(result).all():
            ids = ", ".join(pair.pair_id for pair in comparison.pairs[:3]) or ", ".join(
                answer.answer_id for answer in comparison.answers[:3]
            )
            raise UserError(f"the model gives {result.tolist()} to the answers of pairs {ids}: not a finite score")
    return results


def _packed_parts(
    index: int, comparison: Comparison, extra: int, limit: int, alone_above: int | None
) -> Iterator[Part]:
    """As many tails as fit into `limit` tokens together with the prefix: usually all of them.

    Each alone where one, with the prefix, has more than `alone_above` tokens.
    """
    begin, size = 0, len(comparison.prefix)
    lengths = [size + len(tail) + extra for tail in comparison.tails]
    if alone_above is not None and max(lengths) > alone_above:
        yield from (Part(index, k, k + 1, length, length > alone_above) for k, length in enumerate(lengths))
        return
    for number, tail in enumerate(comparison.tails):
        if number > begin and size + len(tail) + extra > limit:
            yield Part(index, begin, number, size)
            begin, size = number, len(comparison.prefix)
        size += len(tail) + extra
    yield Part(index, begin, len(comparison.tails), size)


def _padded_parts(index: int, comparison: Comparison, extra: int, _limit: int) -> Iterator[Part]:
    """Each tail by itself, as nothing is shared."""
    for number, tail in enumerate(comparison.tails):
        yield Part(index, number, number + 1, len(comparison.prefix) + len(tail) + extra)


def _groups(parts: Sequence[Part], limit: int, padded: bool) -> Iterator[list[Part]]:
    """Batches of parts of similar size, longest first, of at most `limit` tokens.

    `padded`: each part is a row of its batch, filled up to the longest.
    """
    group: list[Part] = []
    tokens = 0
    for part in sorted(parts, key=lambda part: (-part.size, part.index, part.begin)):
        # The first part of a batch is its longest.
        needed = group[0].size * (len(group) + 1) if group and padded else tokens + part.size
        if group and (needed > limit or part.is_alone or group[0].is_alone):
            yield group
            group, tokens = [], 0
        group.append(part)
        tokens += part.size
    if group:
        yield group
