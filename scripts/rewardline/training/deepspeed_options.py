"""DeepSpeed settings that the training's own keys decide, and those that DeepSpeed knows."""

import difflib
from collections.abc import Iterator
from typing import Any

OWNED = {
    "train_batch_size": "pairs_per_step",
    "train_micro_batch_size_per_gpu": "tokens_per_micro_batch",
    "gradient_accumulation_steps": "tokens_per_micro_batch",
    "managed_gradient_accumulation": "tokens_per_micro_batch",
    "optimizer": "learning_rate, betas, eps and weight_decay",
    "scheduler": "schedule and warmup",
    "gradient_clipping": "clip",
    "bf16.enabled": "precision",
    "fp16.enabled": "precision",
    "torch_autocast": "precision",
    "zero_optimization.stage": "zero_stage",
    "zero_optimization.offload_optimizer.device": "offload",
    "zero_optimization.offload_param.device": "offload",
}
"""Dotted DeepSpeed keys, and the training's keys to set instead."""
DETAILS = {
    "zero_optimization.offload_optimizer": ("optimizer", "all"),
    "zero_optimization.offload_param": ("all",),
}
"""Sections that say how something is offloaded, and with which `offload` it is."""
REFUSED = {
    "nvme_path": "state on NVMe is not part of the checkpoints",
    "ratio": "DeepSpeed's own AdamW alone can leave part of the state on the GPU",
}
"""Details that do not go together with this program, and why."""
FREE = frozenset(
    {
        "activation_checkpointing", "aio", "bf16", "checkpoint", "comet", "comms_logger", "communication_data_type",
        "compile", "csv_monitor", "data_types", "disable_allgather", "disable_python_gc", "dump_state",
        "flops_profiler", "fp16", "gradient_predivide_factor", "log_level", "memory_breakdown", "prescale_gradients",
        "steps_per_print", "tensorboard", "timers", "use_node_local_storage", "wall_clock_breakdown", "wandb",
        "weight_quantization", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "zero_optimization",
    }
)  # fmt: skip
"""What else may stand at the top: DeepSpeed itself would pass over a key that it does not know."""


def owned_keys(settings: dict[str, Any], offload: str, prefix: str = "") -> Iterator[str]:
    """What is wrong with a user's own DeepSpeed settings: a message for each key that contradicts another."""
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if name in OWNED:
            yield f"training.deepspeed.{name}: is decided by training.{OWNED[name]}; set that instead"
        elif prefix.rstrip(".") in DETAILS and key in REFUSED:
            yield f"training.deepspeed.{name}: {REFUSED[key]}; leave it out"
        elif name in DETAILS and not isinstance(value, dict):
            yield f"training.deepspeed.{name}: is decided by training.offload; set that instead"
        elif name in DETAILS and offload not in DETAILS[name] and "device" not in value:
            needed = " or ".join(DETAILS[name])
            yield f"training.deepspeed.{name}: has no effect with training.offload {offload}; expected {needed}"
        elif not prefix and key not in FREE:
            near = difflib.get_close_matches(key, FREE, n=1)
            yield f"training.deepspeed.{key}: has no effect here{f'; did you mean {near[0]}?' if near else ''}"
        elif isinstance(value, dict):
            yield from owned_keys(value, offload, f"{name}.")
