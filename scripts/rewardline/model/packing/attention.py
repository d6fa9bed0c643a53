"""Attention over packed rows that share prefixes: [prefix, tail, tail, ..., prefix, tail, tail, ...] without padding.

A tail sees its own prefix and itself, never another tail; positions continue from the prefix for each tail. So every
hidden state is the one that the whole conversation alone would give, and a prompt is computed once for all answers.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import MethodType
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from rewardline.model.packing import flex
from rewardline.model.packing.layout import Group, Layout, Segment, collect, spread

log = logging.getLogger(__name__)

NAME, FLEX = "shared_prefix", "shared_prefix_flex"
Kernel = Literal["auto", "sdpa", "flex"]
VERIFIED = frozenset(
    {
        "gemma",
        "gemma3_text",
        "gpt2",
        "gpt_neox",
        "llama",
        "mistral",
        "olmo2",
        "opt",
        "phi3",
        "qwen2",
        "qwen3",
        "smollm3",
    }
)
"""Model types whose scores in packed rows equal those of padded rows; each is tested."""


class _Current:
    """The row in work: kept until the next one, as checkpointed layers run again when going backward.

    `forward` until then. `captures` while the last layer's keys and values are wanted and nothing else; `found` are
    these, while it is computed for some rows only.
    """

    layout: Layout | None = None
    forward: bool = False
    captures: bool = False
    found: tuple[Tensor, Tensor] | None = None


class _FoundError(Exception):
    """Leaves a layer once its keys and values are there."""

    def __init__(self, key: Tensor, value: Tensor) -> None:
        super().__init__("keys and values")
        self.states = key, value


def supports_shared_prefix(model: PreTrainedModel, max_length: int | None = None) -> str | None:
    """None if packed rows of sequences up to `max_length` (None: any) are exact for this model, else why not."""
    config = model.config
    if config.model_type not in VERIFIED:
        return f"{config.model_type} is not among {', '.join(sorted(VERIFIED))}"
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if window and (max_length is None or max_length > window):
        return f"its attention has a sliding window of {window} tokens"
    return None


def choose(kernel: Kernel, dtype: torch.dtype, heads: flex.Heads) -> str:
    """What computes the attention of packed rows: `sdpa`, or `flex`, which `auto` takes on a GPU that it works on."""
    if kernel != "auto":
        return kernel
    if not torch.cuda.is_available():
        return "sdpa"
    problem = flex.problem(torch.device("cuda"), dtype, heads)
    if problem:
        log.warning("attention in segments, since flex_attention does not work here: %s", problem)
    return "sdpa" if problem else "flex"


def use_shared_prefix(model: PreTrainedModel, kernel: Kernel = "sdpa", dtype: torch.dtype | None = None) -> bool:
    """Make `model` compute its attention by the current layout from now on, and its last layer where it is read.

    `dtype`: that of the computation, None for the model's own. False if it still computes its last layer everywhere.
    """
    model.set_attn_implementation(FLEX if choose(kernel, dtype or model.dtype, _heads(model)) == "flex" else NAME)
    # ZeRO-3 counts the modules that it enters and leaves, and has its own parameters at hand only in between.
    if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        return False
    layers = [m for m in model.base_model.modules() if isinstance(m, nn.ModuleList)]
    last = next(m for m in layers if len(m) == model.config.num_hidden_layers)[-1]
    last.forward = MethodType(_last_layer, last)
    return True


def _heads(model: PreTrainedModel) -> flex.Heads:
    config = model.config
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    return flex.Heads(heads, groups, getattr(config, "head_dim", None) or config.hidden_size // heads)


@contextmanager
def using(layout: Layout | None) -> Iterator[None]:
    """Within the block, the model computes a packed row of this layout; None for padded rows."""
    _Current.layout, _Current.forward = layout, True
    try:
        yield
    finally:
        _Current.forward = False


def _last_layer(layer: Any, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A model's last layer, with keys and values of all rows, and all else only at the wanted ones; zeros elsewhere.

    The layer runs twice, the same for every architecture: until it has the keys and values of all rows; then with the
    wanted rows alone, whose queries meet these.
    """
    forward = type(layer).forward
    layout = _Current.layout
    # Gradient checkpointing gains nothing here: going backward, this layer would run again at once.
    layer.gradient_checkpointing = False
    if not _Current.forward or layout is None or layout.last is None:
        result: Tensor = forward(layer, hidden, *args, **kwargs)
        return result
    wanted = layout.last.rows
    try:
        _Current.captures = True
        forward(layer, hidden, *args, **kwargs)
        raise RuntimeError("the last layer has no attention")
    except _FoundError as found:
        states = found.states
    finally:
        _Current.captures = False
    some = {name: _at(value, wanted, hidden.shape[:2]) for name, value in kwargs.items()}
    try:
        _Current.layout, _Current.found = layout.last, states
        rows = forward(layer, hidden.index_select(1, wanted), *args, **some)
    finally:
        _Current.layout, _Current.found = layout, None
    return torch.zeros_like(hidden).index_copy(1, wanted, rows)


def _at(value: Any, rows: Tensor, shape: torch.Size) -> Any:
    """`value` at some rows, where it has any: positions, or a tuple of their embeddings."""
    if isinstance(value, tuple):
        return tuple(_at(part, rows, shape) for part in value)
    return value.index_select(1, rows) if isinstance(value, Tensor) and value.shape[:2] == shape else value


def shared_prefix_attention(
    module: nn.Module,
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
    layout, key, value = _current(key, value)
    if not layout.groups and not layout.long:
        raise RuntimeError("the layout of the packed row has no masks")
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    rate = dropout if module.training else 0.0
    q, k, v = query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)
    parts: list[Group | Segment] = [*layout.groups, *layout.long]
    asked, seen = [part.asked for part in parts], [part.seen for part in parts]
    states = zip(
        torch.split(spread(q, layout.queries), asked),
        torch.split(spread(k, layout.keys), seen),
        torch.split(spread(v, layout.keys), seen),
        strict=True,
    )
    outputs = [_attend(part, *three, rate, scaling) for part, three in zip(parts, states, strict=True)]
    return collect(torch.cat(outputs), layout.queries)[None], None


def flex_shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """The same as `shared_prefix_attention` in one call of flex_attention, which knows no dropout."""
    if module.training and dropout:
        return shared_prefix_attention(module, query, key, value, attention_mask, scaling, dropout)
    layout, key, value = _current(key, value)
    return flex.attend(query, key, value, layout, scaling).transpose(1, 2), None


def _current(key: Tensor, value: Tensor) -> tuple[Layout, Tensor, Tensor]:
    """The layout, and the keys and values that queries meet."""
    if _Current.captures:
        raise _FoundError(key, value)
    if _Current.layout is None:
        raise RuntimeError("the layout of the packed row is not set")
    return _Current.layout, *(_Current.found or (key, value))


def _attend(
    part: Group | Segment, query: Tensor, key: Tensor, value: Tensor, rate: float, scale: float | None
) -> Tensor:
    """Attention within a group, or one long comparison: [places, heads, d] each and the result."""
    if isinstance(part, Group):
        count = len(part.mask)
        q, k, v = (s.view(count, -1, *s.shape[1:]).transpose(1, 2) for s in (query, key, value))
        output = F.scaled_dot_product_attention(q, k, v, part.mask, rate, scale=scale)
        return output.transpose(1, 2).flatten(0, 1)
    q, k, v = (states.transpose(0, 1)[None] for states in (query, key, value))
    # The prefix and the first tail are contiguous, and plain causal attention.
    q_parts, k_parts, v_parts = (torch.split(states, [part.prefix, *part.tails], dim=2) for states in (q, k, v))
    both = slice(0, part.prefix + part.tails[0])
    outputs = [
        F.scaled_dot_product_attention(q[:, :, both], k[:, :, both], v[:, :, both], None, rate, True, scale=scale)
    ]
    for index, tail in enumerate(part.tails[1:], start=2):
        keys = torch.cat([k_parts[0], k_parts[index]], dim=2)
        values = torch.cat([v_parts[0], v_parts[index]], dim=2)
        mask = _tail_mask(part.prefix, tail, query.device)
        outputs.append(F.scaled_dot_product_attention(q_parts[index], keys, values, mask, rate, scale=scale))
    return torch.cat(outputs, dim=2)[0].transpose(0, 1)


@lru_cache(maxsize=64)
def _tail_mask(prefix: int, tail: int, device: torch.device) -> Tensor:
    """Bool [tail, prefix + tail]: all of the prefix, and the tail up to and including the query."""
    mask = torch.ones(tail, prefix + tail, dtype=torch.bool, device=device)
    mask[:, prefix:] = mask[:, prefix:].tril()
    return mask


for _name, _function in ((NAME, shared_prefix_attention), (FLEX, flex_shared_prefix_attention)):
    AttentionInterface.register(_name, _function)
    AttentionMaskInterface.register(_name, lambda *_args, **_kwargs: None)
