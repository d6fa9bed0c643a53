"""Model FLOPs of a training run, and its share of the peak of the hardware.

Model FLOPs utilization as in Chowdhery et al. 2022 (PaLM, arXiv 2204.02311, appendix B): the FLOPs that the model
needs, without recomputation and padding, over those that the hardware could have done in that time.
"""

import time
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from rewardline.core.runtime import world_size
from rewardline.model.batch import Batch
from rewardline.model.loading import DTYPES
from rewardline.model.reward_model import RewardModel
from rewardline.training.engine import elements
from rewardline.training.processes.collectives import sum_over_processes
from rewardline.training.settings import Precision

PEAKS = {
    "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H800": 989e12, "GH200": 989e12,
    "B200": 2250e12, "A100": 312e12, "A800": 312e12, "L40S": 362e12, "L40": 181e12, "L4": 121e12, "A40": 150e12,
    "A10G": 70e12, "A10": 125e12, "RTX 4090": 165e12, "RTX 3090": 71e12,
}  # fmt: skip
"""Dense bf16 FLOP/s of GPUs as their makers' data sheets give them, by a part of their name; the first that fits."""


class Counts(NamedTuple):
    """What was computed: positions of the batches with padding, tokens, and the sum of the tokens' context lengths.

    `read`, `read_context`: the last two of the tokens that go through all of the last layer, where only some are read.
    """

    positions: float = 0.0
    real: float = 0.0
    context: float = 0.0
    read: float = 0.0
    read_context: float = 0.0


class Work:
    """Counts what the steps compute, on the device and without waiting for it."""

    def __init__(self, before: Counts, device: torch.device) -> None:
        """Continue from the counts of all processes up to a checkpoint."""
        self._before, self._local = before, torch.zeros(len(before), dtype=torch.float64, device=device)

    def add(self, batch: Batch, reads_some: bool) -> None:
        """Count a micro batch of this process; `reads_some`: whether the last layer computes only what is read."""
        contexts, mask = batch.position_ids + 1, batch.attention_mask
        if mask is None:
            assert batch.layout is not None
            mask = batch.layout.is_real[None].long()
        real, context = mask.sum(), (contexts * mask).sum()
        read, read_context = real, context
        if reads_some and batch.layout is not None and batch.layout.last_layer is not None:
            rows = batch.score_indices
            read, read_context = torch.full_like(real, len(rows)), contexts[0].index_select(0, rows).sum()
        positions = torch.full_like(real, contexts.numel())
        self._local += torch.stack([positions, real, context, read, read_context])

    def total(self) -> Counts:
        """The counts of all processes; every process must call it."""
        added = sum_over_processes(self._local.clone()).tolist()
        return Counts(*(a + b for a, b in zip(self._before, added, strict=True)))


KEYS_AND_VALUES = ("k_proj", "v_proj")
FUSED = ("c_attn", "query_key_value", "qkv_proj")
"""Names of the projections to keys and values, alone and together with the queries."""


def model_flops(model: PreTrainedModel, work: Counts, causal: bool) -> float:
    """FLOPs of the forward and backward passes over what was computed, padding aside.

    6 a token for each trained parameter outside the embeddings (2 forward, 4 backward), 4 for each frozen one, whose
    gradient is not needed, and 12 * layers * hidden size for each token of a context: the 12 L H Q T of PaLM's appendix
    with the length of a token's context in place of T: the positions up to its own (`causal`), or twice as many. In the
    last layer all tokens need keys and values, and those that are read the rest, as they do the head.
    """
    config = model.config
    heads, width = config.num_attention_heads, getattr(config, "head_dim", None)
    groups = getattr(config, "num_key_value_heads", None) or heads
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == config.num_hidden_layers]
    last = {id(p) for stack in stacks[:1] for p in stack[-1].parameters()}
    products = 0.0
    for name, parameter in model.named_parameters():
        if id(parameter) in embeddings:
            continue
        share = 1.0  # of the tokens that are not read, how many go through it
        if id(parameter) in last or name.startswith("score."):
            fused = any(part in name for part in FUSED)
            share = 2 * groups / (heads + 2 * groups) if fused else float(any(part in name for part in KEYS_AND_VALUES))
        tokens = work.read + share * (work.real - work.read)
        products += elements(parameter) * (6 if parameter.requires_grad else 4) * tokens
    attended = 12 * (heads * width if width else config.hidden_size) * (1 if causal else 2)
    return float(products + attended * ((config.num_hidden_layers - 1) * work.context + work.read_context))


def peak_flops(device: torch.device, precision: Precision) -> tuple[float, str]:
    """FLOP/s that a process can reach in matrix products, and the source of that number.

    For known GPUs in 16 bits the data sheet's; else the best rate of products measured here, for under a second.
    """
    if device.type == "cuda" and precision != "fp32":
        name = torch.cuda.get_device_name(device)
        for part, peak in PEAKS.items():
            if part in name:
                return peak, f"data sheet of {part}, dense bf16"
    size = 1024 if device.type == "cpu" else 8192
    left, right = (torch.ones(size, size, device=device, dtype=DTYPES[precision]) for _ in range(2))
    best, begin, end = float("inf"), 0.0, time.perf_counter() + 0.25
    while begin < end:
        begin = time.perf_counter()
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begin)
    where = f"{torch.get_num_threads()} threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
    return 2 * size**3 / best, f"measured at start, products of {size} x {size} in {precision}, {where}"


def utilization(
    model: RewardModel, work: Counts, tokens: int, seconds: float, peak: tuple[float, str]
) -> dict[str, float | str]:
    """The fields of `RunFacts` on the work of all processes over `tokens` (chosen and rejected in full) in `seconds`.

    `peak`: that of a process, as `peak_flops` returns it.
    """
    flops = model_flops(model.model, work, causal=model.is_decoder)
    available = peak[0] * world_size()
    return {
        "computed_tokens": int(work.real),
        "shared_share": round(1 - work.real / max(tokens, 1), 4),
        "padding_share": round(1 - work.real / max(work.positions, 1), 4),
        "model_flops": flops,
        "flops_per_second": round(flops / seconds),
        "peak_flops_per_second": round(available),
        "peak_source": peak[1] if world_size() == 1 else f"{peak[1]}; times {world_size()} processes",
        "utilisation": round(flops / seconds / available, 4),
    }
