"""DeepSpeed settings that the training's own keys decide."""

from collections.abc import Iterator
from typing import Any

OWNED = {
    "train_batch_size": "pairs_per_step",
    "train_micro_batch_size_per_gpu": "tokens_per_micro_batch",
    "gradient_accumulation_steps": "tokens_per_micro_batch",
    "managed_gradient_accumulation": "tokens_per_micro_batch",
    "optimizer": "learning_rate and weight_decay",
    "scheduler": "schedule and warmup",
    "gradient_clipping": "clip",
    "bf16.enabled": "precision",
    "fp16.enabled": "precision",
    "zero_optimization.stage": "zero_stage",
    "zero_optimization.offload_optimizer": "offload",
    "zero_optimization.offload_param": "offload",
}
"""Dotted DeepSpeed keys, and the training's keys to set instead."""


def owned_keys(settings: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """What is wrong with a user's own DeepSpeed settings: one message for each key that is decided elsewhere."""
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if name in OWNED:
            yield f"training.deepspeed.{name}: is decided by training.{OWNED[name]}; set that instead"
        elif isinstance(value, dict):
            yield from owned_keys(value, f"{name}.")
