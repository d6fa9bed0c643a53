"""Models whose score of a row depends on the rows beside it, or on those before it.

A score is that of its row alone in a fresh process. Most models give it in any batch. Some look at the batch: rope
scaling that switches on the longest position (longrope, dynamic NTK), experts of limited capacity, batch statistics.
Their rows are computed alone where that is exact; else the model is refused.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from rewardline.model.batch import Batch, Batching, collate
from rewardline.model.folder import usable_positions
from rewardline.model.score_positions import ScorePositions
from rewardline.tokens.store import Comparison

FIXED_ROPE = frozenset({"default", "linear", "yarn", "llama3", "proportional", "mrope"})
"""Kinds of rope scaling whose frequencies are the same for every length."""
SHORT, COPIES = 6, 3
"""Tokens of the short rows of a probe, and how often another row repeats one: a rush on the same experts."""
PROBE_COST = 2e10
"""Most parameters times tokens in the long row of a probe: a second or two on two cores."""
PROBE_AREA = 4e6
"""Most attention weights of a layer for that row, which some models hold all at once: 16 MB, a few times over."""


def switch_length(config: PreTrainedConfig) -> int | None:
    """The length in tokens up to which rope scaling does not depend on the length; None if it never does."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    name = "original_max_position_embeddings"
    lengths = []
    for part in [part for part in rope.values() if isinstance(part, Mapping)] or [rope]:  # one for each type of layer
        if part.get("rope_type", part.get("type", "default")) not in FIXED_ROPE:
            found = [part.get(name), getattr(config, name, None), getattr(config, "max_position_embeddings", None)]
            lengths.append(min((length for length in found if isinstance(length, int)), default=0))
    return min(lengths, default=None)


def forget_lengths(model: PreTrainedModel) -> None:
    """Undo the scaling that dynamic rope modules keep after a long row, as a row of one token does."""
    position = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    for module in model.modules():
        if hasattr(module, "original_max_seq_len") and hasattr(module, "rope_type"):
            kinds = module.rope_type if isinstance(module.rope_type, dict) else [None]
            for kind in kinds:
                module(position.float(), position, **({} if kind is None else {"layer_type": kind}))


def row_groups(batch: Batch, alone_above: int) -> list[tuple[Tensor, int]]:
    """Which rows of a padded batch are computed together, and how many tokens of them: int64 [n] each.

    Rows of up to `alone_above` tokens are together, each longer one is alone, without padding that is not read.
    """
    if batch.attention_mask is None:
        raise RuntimeError("a packed batch has no rows")
    compared = [] if batch.compared is None else [batch.compared.chosen, batch.compared.rejected]
    read, width = torch.cat([batch.ends, batch.score_indices, *compared]), batch.input_ids.shape[1]
    widths = batch.attention_mask.sum(1).scatter_reduce(0, read // width, read % width + 1, "amax").tolist()
    together = [row for row, length in enumerate(widths) if length <= alone_above]
    groups = [together] * bool(together) + [[row] for row, length in enumerate(widths) if length > alone_above]
    return [(torch.tensor(rows, device=read.device), max(widths[row] for row in rows)) for rows in groups]


class Probe:
    """A few made-up rows, and whether their scores depend on anything but the row."""

    def __init__(
        self, model: PreTrainedModel, positions: ScorePositions, max_length: int | None, *, is_known: bool, trains: bool
    ) -> None:
        """`max_length`: tokens of the longest row, None if that is not known; `trains`: the model will be trained.

        `is_known`: the model takes lengths from position ids alone, so that a row of few tokens can stand for a long
        one; others also get a row as wide as is cheap.
        """
        self._model, self._positions, self._trains = model, positions, trains
        self._pad_id = getattr(model.config, "pad_token_id", None) or 0
        known = [length for length in (max_length, usable_positions(model)) if length is not None]
        limit = max(SHORT + 1, min(known, default=512) - 1)  # one for padding that is read
        size = model.get_input_embeddings().num_embeddings
        special = {
            value for name, value in vars(model.config).items() if name.endswith("_token_id") and value is not None
        }
        end = getattr(model.config, "eos_token_id", None)
        plain = np.array([index for index in range(min(size, 1000)) if index not in special])
        parameters = sum(int(getattr(p, "ds_numel", p.numel())) for p in model.parameters())
        heads = getattr(model.config.get_text_config(), "num_attention_heads", None) or 1
        cheap = min(PROBE_COST / parameters, (PROBE_AREA / heads) ** 0.5)
        wide = (COPIES + 1) * SHORT if is_known else max(64, int(cheap))
        tokens = np.random.default_rng(0).permutation(plain).astype(np.int32)
        tail = np.array([end if isinstance(end, int) and end < size else tokens[-1]], dtype=np.int32)
        short = tokens[:SHORT]
        rows = short, np.resize(short, min(COPIES * SHORT, limit - 1)), np.resize(tokens, min(wide, limit - 1))
        self._rows = [Comparison("", row, [tail], [], 0) for row in rows]
        self._stretches = [max(1, part * limit // (2 * SHORT + 2)) for part in (0, 1, 2)]

    def alone(self, compute: Callable[[Batch], Tensor], batching: Batching) -> list[float]:
        """The scores of all rows, each computed alone by `compute`, the longest last."""
        with torch.no_grad(), _mode(self._model, training=False):
            plain = [self._scores(compute, batching, [index])[0] for index in range(len(self._rows))]
            return plain + [self._scores(compute, batching, [0], [stretch])[0] for stretch in self._stretches]

    def dependence(self, compute: Callable[[Batch], Tensor], batching: Batching, alone: Sequence[float]) -> str | None:
        """What scores depend on beside the row; None if they are those `alone`.

        Where the model will be trained, they must also be those of training mode (of all but dropout).
        """
        every, stretched = list(range(len(self._rows))), [0] * len(self._stretches)
        with torch.no_grad(), _mode(self._model, training=False):
            found = self._scores(compute, batching, every) + self._scores(compute, batching, stretched, self._stretches)
            backwards = self._scores(compute, batching, every[::-1])[::-1]
            after_long_rows = self._scores(compute, batching, [0])
        if self._differ(alone, found) or self._differ(alone[: len(every)], backwards):
            return "the rows beside it"
        if self._differ(alone[:1], after_long_rows):
            return "the rows before it"
        if self._trains:
            with torch.no_grad(), _mode(self._model, training=True):
                one, other = (self._scores(compute, batching, every) for _ in range(2))
            # Where two passes differ, the model draws random numbers, as with dropout.
            if not self._differ(one, other) and self._differ(alone[: len(every)], one):
                return "whether the model is being trained, as with batch statistics"
        return None

    def _scores(
        self, compute: Callable[[Batch], Tensor], batching: Batching, indices: list[int], stretches: Sequence[int] = ()
    ) -> list[float]:
        """The scores of rows in one batch; the position ids of each multiplied, for a long row of few tokens."""
        batch = collate([self._rows[index] for index in indices], batching, self._pad_id, self._positions)
        if stretches:
            ids = batch.position_ids.view(len(indices), -1)
            factors = torch.tensor(stretches)[:, None]
            batch = replace(batch, position_ids=(ids * factors.where(ids > 0, 1)).view_as(batch.position_ids))
        scores: list[float] = compute(batch.to(self._model.device)).tolist()
        return scores

    def _differ(self, expected: Sequence[float], found: Sequence[float]) -> bool:
        one, other = np.array(expected), np.array(found)
        largest = float(np.abs(one[np.isfinite(one)]).max(initial=0.0))
        is_full = self._model.dtype in (torch.float32, torch.float64)
        return not np.allclose(
            one, other, rtol=0, atol=1e-5 * max(1.0, largest) if is_full else 0.1 * largest, equal_nan=True
        )


@contextmanager
def _mode(model: PreTrainedModel, *, training: bool) -> Iterator[None]:
    """All modules but those with dropout in training mode, or all in evaluation mode; running statistics are kept."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()] if training else []
    before = [(module, module.training) for module in model.modules()]
    for module, _ in before:
        drops = isinstance(module, nn.Dropout) or any("dropout" in name for name in vars(module))
        module.training = training and not drops
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode
        for buffer, value in buffers:
            buffer.copy_(value)
