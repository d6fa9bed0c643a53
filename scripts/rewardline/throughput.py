"""How much of what the machine can compute a training uses: model FLOPs, and the machine's peak.

Model FLOPs utilisation as in Chowdhery et al. 2022 (PaLM, arXiv 2204.02311, appendix B): what the model's mathematics
needs, whatever is recomputed or padded, over what the hardware could have done in that time.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from rewardline.batches import Batch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PEAKS = {
    "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "H800": 989e12, "GH200": 989e12, "B200": 2250e12,
    "A100": 312e12, "A800": 312e12, "L40S": 362e12, "L40": 181e12, "L4": 121e12, "A40": 150e12, "A10G": 70e12,
    "A10": 125e12, "RTX 4090": 165e12, "RTX 3090": 71e12,
}  # fmt: skip
"""Dense bf16 FLOP/s of GPUs as their makers' data sheets give them, by a part of their name; the first that fits."""


@dataclass
class Work:
    """What a training has computed: counted on the device, without waiting for it; saved with each checkpoint.

    `before` are the counts of all processes up to the last checkpoint: places of the batches with padding, real
    tokens, and `context`, for every real token the places up to its own.
    """

    before: tuple[float, float, float] = (0.0, 0.0, 0.0)
    _here: torch.Tensor | None = field(default=None, repr=False)

    def add(self, batch: Batch) -> None:
        """Count a micro batch of this process."""
        places, mask = batch.position_ids, batch.attention_mask
        seen = places + 1 if mask is None else (places + 1) * mask
        real = torch.full_like(seen.sum(), places.numel()) if mask is None else mask.sum()
        sums = torch.stack([torch.full_like(real, places.numel()), real, seen.sum()]).double()
        self._here = sums if self._here is None else self._here + sums

    def total(self, device: torch.device) -> tuple[float, float, float]:
        """The counts of all processes; every process must call it."""
        here = torch.zeros(3, dtype=torch.float64, device=device) if self._here is None else self._here.clone()
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(here)
        places, real, context = (a + b for a, b in zip(self.before, here.tolist(), strict=True))
        return places, real, context


def model_flops(model: nn.Module, real_tokens: float, context: float, causal: bool) -> float:
    """FLOPs of forward and backward passes over `real_tokens` tokens that attend to `context` places in all.

    `context` counts for every token the places up to its own, so it is doubled where a token sees all (encoders).
    6 a token for each trained parameter outside the embeddings (2 forward, 4 backward), 4 for each frozen one, whose
    gradient is not needed, and 12 * layers * hidden size for each place attended to: the 12 L H Q T of PaLM's appendix,
    with the places that a token sees in place of T.
    """
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    sizes = [
        (getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters() if id(p) not in embeddings
    ]
    per_token = sum(count * (6 if trained else 4) for count, trained in sizes)
    config: Any = model.config
    heads, width = config.num_attention_heads, getattr(config, "head_dim", None)
    attended = 12 * config.num_hidden_layers * (heads * width if width else config.hidden_size)
    return float(per_token * real_tokens + attended * context * (1 if causal else 2))


def peak_flops(device: torch.device, precision: str) -> tuple[float, str]:
    """FLOP/s that a process can reach in matrix products, and where the number comes from.

    For known GPUs in 16 bits the data sheet's; else the best rate of products measured here, for under a second.
    """
    if device.type == "cuda" and precision != "fp32":
        name = torch.cuda.get_device_name(device)
        for part, peak in PEAKS.items():
            if part in name:
                return peak, f"data sheet of {part}, dense bf16"
    size = 1024 if device.type == "cpu" else 8192
    left = torch.ones(size, size, device=device, dtype=DTYPES[precision])
    right = torch.ones(size, size, device=device, dtype=DTYPES[precision])
    best, end = float("inf"), time.perf_counter() + 0.25
    with torch.no_grad():
        while best == float("inf") or time.perf_counter() < end:
            begin = time.perf_counter()
            torch.mm(left, right)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - begin)
    where = f"{torch.get_num_threads()} threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
    return 2 * size**3 / best, f"measured at start, products of {size} x {size} in {precision}, {where}"
