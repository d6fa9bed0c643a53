"""Attention over packed rows that share prefixes: [prefix, tail, tail, ..., prefix, tail, tail, ...] without padding.

A tail sees its own prefix and itself, never another tail; positions continue from the prefix for each tail. So every
hidden state equals that of the complete conversation alone, and a prompt is computed once for all answers.

The layout of a packed row is a keyword argument of the model's forward pass, `layout`, which transformers pass to the
attention function of every layer. Gradient checkpointing therefore recomputes a layer with the same layout.
"""

from collections.abc import Mapping
from copy import copy
from functools import lru_cache
from types import MethodType
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from rewardline.model.packing import flex, varlen
from rewardline.model.packing.layout import Kernel, Layout, Segment, gather, scatter, windowed_masks

NAMES: dict[Kernel, str] = {"sdpa": "shared_prefix", "flex": "shared_prefix_flex", "varlen": "shared_prefix_varlen"}
"""The attention implementation of a model for each kernel; the layouts of its packed rows must be built for it."""
KeysAndValues = tuple[Tensor, Tensor]
VERIFIED = frozenset({
    "gemma", "gemma3_text", "gpt2", "gpt_neox", "gpt_oss", "llama", "mistral", "mixtral", "olmo2", "olmo3", "opt",
    "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3",
})  # fmt: skip
"""Model types whose scores in packed rows equal those of padded rows; each is tested."""
_STATE = "its {} carry a state from token to token, which a packed row would carry from one answer into the next"
PADDED = {
    **dict.fromkeys(
        ("qwen3_5", "qwen3_5_text", "qwen3_next", "minimax", "olmo_hybrid"), _STATE.format("linear attention layers")
    ),
    **dict.fromkeys(("jamba", "mamba", "mamba2", "falcon_mamba"), _STATE.format("state space layers")),
    **dict.fromkeys(("bloom", "falcon", "mpt"), "it may take distances from the mask of a padded row"),
    "gemma2": "its attention caps the logits, which scaled dot-product attention cannot",
    "gemma3": "it has a part for images; the text model alone, gemma3_text, is packed",
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "mistral4"), "its keys and values are compressed"),
}
"""Why well-known model types are computed in padded rows."""
INPUT_NORMS = ("input_layernorm", "ln_1", "self_attn_layer_norm")
"""Names of the norm before the attention module; OLMo2 has none."""
OUTPUTS = ("o_proj", "out_proj", "c_proj", "dense", "resid_dropout")
"""Names of the modules that an attention module applies to the output of the attention function."""


def unsupported_reason(model: PreTrainedModel) -> str | None:
    """Why packed rows are not exact for this model; None if they are."""
    kind = model.config.model_type
    if kind in VERIFIED:
        return None
    return PADDED.get(kind, f"{kind} is not among {', '.join(sorted(VERIFIED))}")


def plain_implementation(model: PreTrainedModel) -> str:
    """The attention of padded rows: sdpa where the model has it."""
    return "sdpa" if model._supports_sdpa else "eager"


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """The layers of a model; none where they are not in a list."""
    lists = (module for module in model.base_model.modules() if isinstance(module, nn.ModuleList))
    return next((list(layers) for layers in lists if len(layers) == model.config.num_hidden_layers), [])


def use_shared_prefix(model: PreTrainedModel, kernel: Kernel = "sdpa", complete: bool = False) -> bool:
    """Make `model` take packed rows, with their `layout`, and compute its last layer only at the rows that are read.

    `complete`: compute the last layer at all rows. Returns False where that is done.
    """
    model.set_attn_implementation(NAMES[kernel])
    # It looks for padding in packed rows, and would make a GPU wait in each forward pass.
    model.base_model.warn_if_padding_and_no_attention_mask = _no_warning
    last = layers_of(model)[-1]
    # ZeRO-3 keeps state in every module that runs, and the last layer runs a copy of one.
    if complete or any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        vars(last).pop("forward", None)  # of another reward model
        return False
    last.forward = MethodType(_last_layer, last)
    return True


def _no_warning(*_: object) -> None:
    pass


def _last_layer(
    layer: nn.Module, hidden: Tensor, *args: object, layout: Layout | None = None, **kwargs: object
) -> Tensor:
    """The forward pass of a model's last layer: keys and values of all rows, all else only at the rows that are read.

    Returns [1, T, hidden size], zeros at the other rows.
    """
    forward = type(layer).forward
    if layout is None or layout.last_layer is None:
        result: Tensor = forward(layer, hidden, *args, layout=layout, **kwargs)
        return result
    keys_and_values = _keys_and_values(layer, hidden, kwargs)
    rows = layout.last_layer.query_rows
    at_rows = {name: _at(value, rows, hidden.shape[:2]) for name, value in kwargs.items()}
    read = forward(
        layer,
        hidden.index_select(1, rows),
        *args,
        layout=layout.last_layer,
        keys_and_values=keys_and_values,
        **at_rows,
    )
    return torch.zeros_like(hidden).index_copy(1, rows, read)


def _keys_and_values(layer: nn.Module, hidden: Tensor, kwargs: Mapping[str, object]) -> KeysAndValues:
    """The keys and values of all rows in a layer, which its attention module returns as attention weights."""
    norm = next((getattr(layer, name) for name in INPUT_NORMS if hasattr(layer, name)), nn.Identity())
    if not getattr(layer, "do_layer_norm_before", True):  # in OPT-350m it follows the attention
        norm = nn.Identity()
    attention = next(module for module in layer.children() if hasattr(module, "layer_idx"))
    # The same module, with the same weights, but without its output projection, which nothing would use.
    projections = copy(attention)
    projections._modules = {n: nn.Identity() if n in OUTPUTS else m for n, m in attention._modules.items()}
    keys_and_values: KeysAndValues = projections(norm(hidden), **kwargs, only_keys_and_values=True)[1]
    return keys_and_values


def _at(value: object, rows: Tensor, shape: torch.Size) -> object:
    """`value` at some rows, where it has any: positions, or a tuple of their embeddings."""
    if isinstance(value, tuple):
        return tuple(_at(part, rows, shape) for part in value)
    return value.index_select(1, rows) if isinstance(value, Tensor) and value.shape[:2] == shape else value


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 (the layout takes its place)
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    layout: Layout | None = None,
    keys_and_values: KeysAndValues | None = None,
    only_keys_and_values: bool = False,
    **_: object,
) -> tuple[Tensor, KeysAndValues | None]:
    """Causal attention within [prefix, tail] of each comparison, by the layout of the packed row.

    Shapes: query [1, heads, Q, d]; key and value [1, key heads, T, d]; the output is [1, Q, heads, d].
    `keys_and_values`: those of the complete row where `query` has only some rows. `only_keys_and_values`: return these
    in place of attention weights, with a placeholder for the output. A layout with blocks or sequences is computed in
    one call of a kernel, which does not support dropout. `sliding_window`: the tokens that a query of this layer
    sees, itself included; `s_aux` [heads]: the logits of a key without a value, as GPT-OSS has one (Xiao et al. 2023,
    arXiv 2309.17453).
    """
    if only_keys_and_values:
        return query.transpose(1, 2), (key, value)
    if layout is None:
        raise RuntimeError("the packed row has no layout")
    key, value = keys_and_values or (key, value)
    rate = dropout if module.training else 0.0
    if rate and not layout.masks and not layout.long:
        raise RuntimeError("this kernel does not support dropout")
    if layout.sequences is not None and (s_aux is not None or layout.effective(sliding_window)):
        raise RuntimeError("the variable-length kernel has no sliding windows and no sinks")
    if layout.sequences is not None:
        return varlen.attend(query, key, value, layout.sequences, scaling).transpose(1, 2), None
    if layout.blocks is not None:
        return flex.attend(query, key, value, layout, scaling, sliding_window, s_aux).transpose(1, 2), None
    if not layout.masks and not layout.long:
        raise RuntimeError("the layout of the packed row has no masks")
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    q, k, v = query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)
    window = layout.effective(sliding_window)
    masks = layout.masks if window is None else windowed_masks(layout, window)
    parts: list[Tensor | Segment] = [*masks, *layout.long]
    lengths = [_lengths(part) for part in parts]
    states = zip(
        parts,
        torch.split(scatter(q, layout.queries), [queries for queries, _ in lengths]),
        torch.split(scatter(k, layout.keys), [keys for _, keys in lengths]),
        torch.split(scatter(v, layout.keys), [keys for _, keys in lengths]),
        strict=True,
    )
    outputs = [_attend(*part, window, _Options(rate, scaling, s_aux)) for part in states]
    return gather(torch.cat(outputs), layout.queries)[None], None


def _lengths(part: Tensor | Segment) -> tuple[int, int]:
    """Numbers of queries and keys of a group, given its mask, or of a long comparison."""
    if isinstance(part, Segment):
        return part.length, part.length
    count, _, queries, keys = part.shape
    return count * queries, count * keys


class _Options(NamedTuple):
    """The rate of dropout, the scale of logits (None for the usual one), and sinks [heads]."""

    dropout: float
    scale: float | None
    sinks: Tensor | None


def _attend(
    part: Tensor | Segment, query: Tensor, key: Tensor, value: Tensor, window: int | None, options: _Options
) -> Tensor:
    """Attention within a group, given its mask, or a long comparison: [positions, heads, d] each and the output."""
    if isinstance(part, Tensor):
        q, k, v = (s.view(len(part), -1, *s.shape[1:]).transpose(1, 2) for s in (query, key, value))
        return _dot_product(q, k, v, part, options).transpose(1, 2).flatten(0, 1)
    q, k, v = (states.transpose(0, 1)[None] for states in (query, key, value))
    # The prefix and the first tail are contiguous, and plain causal attention.
    q_parts, k_parts, v_parts = (torch.split(states, [part.prefix, *part.tails], dim=2) for states in (q, k, v))
    first = part.prefix + part.tails[0]
    mask = None if window is None else _tail_mask(0, first, query.device, window)
    outputs = [_dot_product(q[:, :, :first], k[:, :, :first], v[:, :, :first], mask, options)]
    for index, tail in enumerate(part.tails[1:], start=2):
        keys = torch.cat([k_parts[0], k_parts[index]], dim=2)
        values = torch.cat([v_parts[0], v_parts[index]], dim=2)
        mask = _tail_mask(part.prefix, tail, query.device, window)
        outputs.append(_dot_product(q_parts[index], keys, values, mask, options))
    return torch.cat(outputs, dim=2)[0].transpose(0, 1)


def _dot_product(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: _Options) -> Tensor:
    """Scaled dot-product attention, [n, heads, positions, d] each, by a mask or else causal."""
    dropout, scale, sinks = options
    if sinks is None:
        return F.scaled_dot_product_attention(query, key, value, mask, dropout, mask is None, scale=scale)
    if mask is None:
        mask = _tail_mask(0, query.shape[2], query.device, None)
    # A key and a value of zeros in front, whose logit the mask adds.
    bias = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill(~mask, -torch.inf)
    bias = bias.expand(len(query), query.shape[1], -1, -1)
    sink = sinks.to(query.dtype)[None, :, None, None].expand(*bias.shape[:3], 1)
    key, value = (F.pad(states, (0, 0, 1, 0)) for states in (key, value))
    return F.scaled_dot_product_attention(query, key, value, torch.cat([sink, bias], dim=-1), dropout, scale=scale)


@lru_cache(maxsize=64)
def _tail_mask(prefix: int, tail: int, device: torch.device, window: int | None) -> Tensor:
    """Bool [tail, prefix + tail]: True for the prefix and for the tail up to and including the query.

    With a `window`, only for as many tokens, the query included.
    """
    mask = torch.ones(tail, prefix + tail, dtype=torch.bool, device=device).tril(prefix)
    return mask if window is None else mask.triu(prefix - window + 1)


for _name in NAMES.values():
    # Without a mask function of that name, transformers make no mask, for which a GPU would have to be waited for.
    AttentionInterface.register(_name, shared_prefix_attention)
