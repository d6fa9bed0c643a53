"""Checks of the user's own DeepSpeed settings: keys that `training` decides, and keys without effect."""

import difflib
from collections.abc import Iterator

from rewardline.core.settings import JsonObject

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
"""Dotted DeepSpeed keys, and the keys of `training` to set instead."""
DETAILS = {
    "zero_optimization.offload_optimizer": ("optimizer", "all"),
    "zero_optimization.offload_param": ("all",),
}
"""Sections on details of offloading, and the values of `offload` that they apply to."""
REFUSED = {
    "nvme_path": "state on NVMe is not part of the checkpoints",
    "ratio": "DeepSpeed's own AdamW alone can leave part of the state on the GPU",
}
"""Details that are not supported, and why."""
FREE = frozenset(
    {
        "activation_checkpointing", "aio", "bf16", "checkpoint", "comet", "comms_logger", "communication_data_type",
        "compile", "csv_monitor", "data_types", "disable_allgather", "disable_python_gc", "dump_state",
        "flops_profiler", "fp16", "gradient_predivide_factor", "log_level", "memory_breakdown", "prescale_gradients",
        "steps_per_print", "tensorboard", "timers", "use_node_local_storage", "wall_clock_breakdown", "wandb",
        "weight_quantization", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "zero_optimization",
    }
)  # fmt: skip
"""The other keys at the top level: DeepSpeed itself ignores unknown ones."""


def find_problems(settings: JsonObject, offload: str, prefix: str = "") -> Iterator[str]:
    """Messages on the keys of a user's own DeepSpeed settings that contradict others or have no effect."""
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if name in OWNED:
            yield f"training.deepspeed.{name}: is decided by training.{OWNED[name]}; set that instead"
        elif prefix.rstrip(".") in DETAILS and key in REFUSED:
            yield f"training.deepspeed.{name}: {REFUSED[key]}; leave it out"
        elif name in DETAILS and not isinstance(value, dict):
            yield f"training.deepspeed.{name}: is decided by training.offload; set that instead"
        elif isinstance(value, dict) and offload not in DETAILS.get(name, (offload,)) and "device" not in value:
            needed = " or ".join(DETAILS[name])
            yield f"training.deepspeed.{name}: has no effect with training.offload {offload}; expected {needed}"
        elif not prefix and key not in FREE:
            near = difflib.get_close_matches(key, FREE, n=1)
            yield f"training.deepspeed.{key}: has no effect here{f'; did you mean {near[0]}?' if near else ''}"
        elif isinstance(value, dict):
            yield from find_problems(value, offload, f"{name}.")
