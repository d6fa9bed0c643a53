"""Attention over packed rows that share prefixes: [prefix, tail, tail, ..., prefix, tail, tail, ...] without padding.

A tail sees its own prefix and itself, never another tail; positions continue from the prefix for each tail. So every
hidden state is the one that the whole conversation alone would give, and a prompt is computed once for all answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

NAME = "shared_prefix"
VERIFIED = frozenset({"gemma", "llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox", "opt"})
"""Model types whose scores in packed rows equal those of padded rows; each is tested."""


@dataclass(frozen=True)
class Segment:
    """A comparison's place in a packed row: `start`, the prefix length and the length of each tail, in tokens."""

    start: int
    prefix: int
    tails: tuple[int, ...]


class _Layout:
    """What the attention function works on: kept until the next batch, as checkpointed layers run again backward."""

    segments: Sequence[Segment] = ()


def supports_shared_prefix(model: PreTrainedModel) -> str | None:
    """None if packed rows are exact for this model, else the reason why not."""
    config = model.config
    if config.model_type not in VERIFIED:
        return f"{config.model_type} is not among {', '.join(sorted(VERIFIED))}"
    if getattr(config, "use_sliding_window", True) and getattr(config, "sliding_window", None):
        return f"its attention has a sliding window of {config.sliding_window} tokens"
    return None


def use_shared_prefix(model: PreTrainedModel) -> None:
    """Make `model` compute its attention by `segments` from now on."""
    model.set_attn_implementation(NAME)


def set_segments(segments: Sequence[Segment]) -> None:
    """The layout of the packed row that is computed next."""
    _Layout.segments = segments


@lru_cache(maxsize=4096)
def _tail_mask(prefix: int, tail: int, device: torch.device) -> Tensor:
    """Bool [tail, prefix + tail]: all of the prefix, and the tail up to and including the query."""
    mask = torch.ones(tail, prefix + tail, dtype=torch.bool, device=device)
    mask[:, prefix:] = mask[:, prefix:].tril()
    return mask


def shared_prefix_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 (the layout says more than a mask could)
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within [prefix, tail] of each comparison.

    Shapes: query [1, heads, T, d]; key and value [1, key heads, T, d]; the result is [1, T, heads, d].
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    rate = dropout if module.training else 0.0
    outputs = []
    for segment in _Layout.segments:
        begin, split = segment.start, segment.start + segment.prefix
        prefix_key, prefix_value = key[:, :, begin:split], value[:, :, begin:split]
        # The prefix and the first tail are contiguous, and plain causal attention.
        end = split + segment.tails[0]
        whole = slice(begin, end)
        outputs.append(
            F.scaled_dot_product_attention(
                query[:, :, whole], key[:, :, whole], value[:, :, whole], None, rate, is_causal=True, scale=scaling
            )
        )
        for length in segment.tails[1:]:
            own = slice(end, end + length)
            keys = torch.cat([prefix_key, key[:, :, own]], dim=2)
            values = torch.cat([prefix_value, value[:, :, own]], dim=2)
            mask = _tail_mask(segment.prefix, length, query.device)
            outputs.append(F.scaled_dot_product_attention(query[:, :, own], keys, values, mask, rate, scale=scaling))
            end += length
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, shared_prefix_attention)
AttentionMaskInterface.register(NAME, lambda *_args, **_kwargs: None)
