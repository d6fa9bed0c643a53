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
    """A comparison's place in a packed row: `start`, the prefix length and the length of each tail, in tokens.

    `pads`: how many tokens at the end of each tail are padding, () for none. As in a padded row with a mask, padding
    sees the prefix and what is real of its tail, but no padding, and nothing sees padding.
    """

    start: int
    prefix: int
    tails: tuple[int, ...]
    pads: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        """All tokens of the comparison."""
        return self.prefix + sum(self.tails)


@dataclass(frozen=True)
class Group:
    """Comparisons of similar length, whose attention is one padded call with a mask.

    `tokens`: int64 [n, L], places in the packed row, 0 where padded; `mask`: bool [n, 1, L, L], who sees whom.
    """

    tokens: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Layout:
    """How the attention of a packed row of T tokens is computed.

    Short comparisons in `groups`, where many small calls would cost more than padding; `long` ones by themselves.
    `order`: int64 [T], for each token its place in the concatenation of the groups' and the long ones' results.
    """

    groups: tuple[Group, ...]
    long: tuple[Segment, ...]
    order: Tensor

    def to(self, device: torch.device) -> "Layout":
        """The layout with its tensors on `device`."""
        groups = tuple(Group(group.tokens.to(device), group.mask.to(device)) for group in self.groups)
        return Layout(groups, self.long, self.order.to(device))


LONG = 512
"""From this many tokens on a comparison is computed by itself, where causal attention skips half of the work."""
WASTE = 1.3
"""Most tokens of a group, padding included, relative to those that are needed."""


def layout(segments: Sequence[Segment]) -> Layout:
    """The layout of a packed row that these comparisons fill from its first to its last token."""
    short = sorted((s for s in segments if s.length < LONG), key=lambda s: (-s.length, s.start))
    long = tuple(s for s in segments if s.length >= LONG)
    groups: list[list[Segment]] = []
    for segment in short:
        group = groups[-1] if groups else []
        needed = sum(member.length for member in group) + segment.length
        if not group or group[0].length * (len(group) + 1) > WASTE * needed:
            groups.append([segment])
        else:
            group.append(segment)
    total = sum(segment.length for segment in segments)
    order = torch.empty(total, dtype=torch.long)
    built, begin = [], 0
    for members in groups:
        width = members[0].length
        built.append(_group(members, width))
        for row, member in enumerate(members):
            place = begin + row * width
            order[member.start : member.start + member.length] = torch.arange(place, place + member.length)
        begin += width * len(members)
    for segment in long:
        order[segment.start : segment.start + segment.length] = torch.arange(begin, begin + segment.length)
        begin += segment.length
    return Layout(tuple(built), long, order)


def _group(members: Sequence[Segment], width: int) -> Group:
    lengths = torch.tensor([member.length for member in members])
    places = torch.arange(width)
    real = places < lengths[:, None]
    starts = torch.tensor([member.start for member in members])
    tokens = torch.where(real, starts[:, None] + places, 0)
    # Which tail a token belongs to: 0 is the prefix, what fills the group up has a number of its own.
    owner = torch.full((len(members), width), -1)
    for row, member in enumerate(members):
        counts = torch.tensor([member.prefix, *member.tails])
        owner[row, : member.length] = torch.repeat_interleave(torch.arange(len(counts)), counts)
    seen, seer = _visible(owner, members)[:, None, :], owner[:, :, None]
    mask = ((seen == seer) | (seen == 0)) & (places[None, :] <= places[:, None])
    return Group(tokens, mask[:, None])


def _visible(owner: Tensor, members: Sequence[Segment]) -> Tensor:
    """`owner` with a number that no token has in place of padding, which nothing sees."""
    if not any(member.pads for member in members):
        return owner
    visible = owner.clone()
    for row, member in enumerate(members):
        end = member.prefix
        for length, pads in zip(member.tails, member.pads, strict=bool(member.pads)):
            end += length
            visible[row, end - pads : end] = -2
    return visible


class _Current:
    """The layout of the row in work: kept until the next one, as checkpointed layers run again when going backward."""

    layout: Layout | None = None


def supports_shared_prefix(model: PreTrainedModel) -> str | None:
    """None if packed rows are exact for this model, else the reason why not."""
    config = model.config
    if config.model_type not in VERIFIED:
        return f"{config.model_type} is not among {', '.join(sorted(VERIFIED))}"
    if getattr(config, "use_sliding_window", True) and getattr(config, "sliding_window", None):
        return f"its attention has a sliding window of {config.sliding_window} tokens"
    return None


def use_shared_prefix(model: PreTrainedModel) -> None:
    """Make `model` compute its attention by the current layout from now on."""
    model.set_attn_implementation(NAME)


def set_layout(current: Layout) -> None:
    """The layout of the packed row that is computed next."""
    _Current.layout = current


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
    """Causal attention within [prefix, tail] of each comparison, by the current layout.

    Shapes: query [1, heads, T, d]; key and value [1, key heads, T, d]; the result is [1, T, heads, d].
    """
    current = _Current.layout
    if current is None:
        raise RuntimeError("the layout of the packed row is not set")
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    rate = dropout if module.training else 0.0
    flat = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]  # [T, heads, d] each
    outputs = []
    for group in current.groups:
        q, k, v = (tensor[group.tokens].transpose(1, 2) for tensor in flat)
        output = F.scaled_dot_product_attention(q, k, v, group.mask, rate, scale=scaling)
        outputs.append(output.transpose(1, 2).flatten(0, 1))
    for segment in current.long:
        outputs.append(_long(segment, query, key, value, rate, scaling))
    return torch.cat(outputs)[current.order][None], None


def _long(segment: Segment, query: Tensor, key: Tensor, value: Tensor, rate: float, scaling: float | None) -> Tensor:
    """Attention of one comparison: [length, heads, d]."""
    begin, split = segment.start, segment.start + segment.prefix
    outputs, place = [], split
    for number, length in enumerate(segment.tails):
        pads = segment.pads[number] if segment.pads else 0
        own, end = slice(place, place + length - pads), place + length
        if number == 0:  # with the prefix before it, contiguous and plain causal attention
            keys, values = key[:, :, begin : own.stop], value[:, :, begin : own.stop]
            real, mask = slice(begin, own.stop), None
        else:
            keys = torch.cat([key[:, :, begin:split], key[:, :, own]], dim=2)
            values = torch.cat([value[:, :, begin:split], value[:, :, own]], dim=2)
            real, mask = own, _tail_mask(segment.prefix, length - pads, query.device)
        outputs.append(
            F.scaled_dot_product_attention(
                query[:, :, real], keys, values, mask, rate, is_causal=mask is None, scale=scaling
            )
        )
        if pads:
            padding = query[:, :, own.stop : end]
            outputs.append(F.scaled_dot_product_attention(padding, keys, values, None, rate, scale=scaling))
        place = end
    return torch.cat(outputs, dim=2)[0].transpose(0, 1)


@lru_cache(maxsize=64)
def _tail_mask(prefix: int, tail: int, device: torch.device) -> Tensor:
    """Bool [tail, prefix + tail]: all of the prefix, and the tail up to and including the query."""
    mask = torch.ones(tail, prefix + tail, dtype=torch.bool, device=device)
    mask[:, prefix:] = mask[:, prefix:].tril()
    return mask


AttentionInterface.register(NAME, shared_prefix_attention)
AttentionMaskInterface.register(NAME, lambda *_args, **_kwargs: None)
