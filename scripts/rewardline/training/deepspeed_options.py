"""Checks of the user's own DeepSpeed settings: keys that `training` decides, and keys without effect.

Every key that the pinned DeepSpeed reads is in one of the tables, which a test compares with it.
"""

import difflib
from collections.abc import Iterator

from rewardline.core.settings import JsonObject
from rewardline.training.settings import TrainingSettings

OWNED = {
    "train_batch_size": "pairs_per_step",
    "train_micro_batch_size_per_gpu": "tokens_per_micro_batch",
    "gradient_accumulation_steps": "tokens_per_micro_batch",
    "managed_gradient_accumulation": "tokens_per_micro_batch",
    "optimizer": "learning_rate, betas, eps and weight_decay",
    "scheduler": "schedule and warmup",
    "gradient_clipping": "clip",
    "activation_checkpointing": "gradient_checkpointing",
    "bf16.enabled": "precision",
    "bfloat16": "precision",
    "bf16.bf16_master_weights_and_grads": "state_precision",
    "bf16.bf16_optimizer_states": "state_precision",
    "fp16.enabled": "precision",
    "torch_autocast": "precision",
    "zero_optimization.stage": "zero_stage",
    "zero_optimization.offload_optimizer.device": "offload",
    "zero_optimization.offload_param.device": "offload",
    "zero_optimization.cpu_offload": "offload",
    "zero_optimization.cpu_offload_param": "offload",
    "zero_optimization.cpu_offload_use_pin_memory": "offload",
}
"""Dotted DeepSpeed keys, and the keys of `training` to set instead."""
_NVME = "state on NVMe is not part of the checkpoints"
_CHECKPOINTS = "checkpoints and exports are not DeepSpeed's; they suit any ZeRO stage and number of processes"
_BATCHES = "batches are not made by DeepSpeed, but from pairs_per_step and tokens_per_micro_batch"
_PARALLEL = "only data parallelism and ZeRO are supported"
_ADAM = "needs an optimizer of DeepSpeed's own; training uses that of PyTorch"
REFUSED = {
    "aio": _NVME,
    "autotuning": "is read by DeepSpeed's launcher alone",
    "bf16.immediate_grad_update": "is of an optimizer that DeepSpeed takes with fp32 gradients and ZeRO 1 only",
    "checkpoint": _CHECKPOINTS,
    "compile": "is DeepSpeed's DeepCompile, which does not support packed rows; see training.compile",
    "data_efficiency": _BATCHES,
    "dataloader_drop_last": _BATCHES,
    "datastates_ckpt": _CHECKPOINTS,
    "disable_allgather": "DeepSpeed reads it and does not use it",
    "expert_parallel": _PARALLEL,
    "fp16.auto_cast": "casts inputs, which are token ids here",
    "fp16.fp16_master_weights_and_grads": _ADAM,
    "gradient_allreduce_op": "the gradient is that of the mean over pairs, whatever the number of processes",
    "hybrid_engine": "generates text, as reinforcement learning needs it",
    "pipeline": _PARALLEL,
    "seq_parallel_communication_data_type": _PARALLEL,
    "sequence_parallel_size": _PARALLEL,
    "tensor_parallel": _PARALLEL,
    "use_data_before_expert_parallelism": _PARALLEL,
    "vocabulary_size": "only makes DeepSpeed warn of sizes that are no multiple of 8",
    "weight_quantization": "quantizes models for inference",
    "zero_optimization.allgather_partitions": "DeepSpeed reads it and does not use it",
    "zero_optimization.elastic_checkpoint": _CHECKPOINTS,
    "zero_optimization.gather_16bit_weights_on_model_save": _CHECKPOINTS,
    "zero_optimization.legacy_stage1": "DeepSpeed has removed it",
    "zero_optimization.load_from_fp32_weights": _CHECKPOINTS,
    "zero_optimization.pipeline_loading_checkpoint": _CHECKPOINTS,
    "zero_optimization.save_muon_momentum_buffer_in_memory": _ADAM,
    "zero_optimization.stage3_gather_16bit_weights_on_model_save": _CHECKPOINTS,
    "zero_optimization.stage3_gather_fp16_weights_on_model_save": _CHECKPOINTS,
    "zero_optimization.zenflow": _ADAM,
    **{
        f"zero_optimization.offload_{kind}.{key}": _NVME
        for kind in ("optimizer", "param")
        for key in ("nvme_path", "buffer_count", "buffer_size", "max_in_cpu", "pipeline_read", "pipeline_write")
    },
    "zero_optimization.offload_optimizer.fast_init": _NVME,
    "zero_optimization.offload_optimizer.cpuadam_cores_perc": _ADAM,
    "zero_optimization.offload_optimizer.ratio": _ADAM,
    "zero_optimization.offload_optimizer.super_offload": _ADAM,
}
"""Dotted keys that have no effect here or are not supported, and why."""
_STAGE_3 = (
    *("prefetch_bucket_size", "param_persistence_threshold", "model_persistence_threshold", "max_live_parameters"),
    *("max_reuse_distance", "module_granularity_threshold", "use_all_reduce_for_fetch_params", "allgather_sequential"),
)
ZERO_STAGES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("contiguous_gradients", "reduce_scatter", "reduce_bucket_size", "overlap_comm"), (1, 2, 3)),
    **dict.fromkeys(("use_multi_rank_bucket_allreduce", "allgather_bucket_size", "ignore_unused_parameters"), (1, 2)),
    **dict.fromkeys(("round_robin_gradients", "parameter_alignment", "compute_grad_norm"), (1, 2)),
    **dict.fromkeys((*_STAGE_3, *(f"stage3_{name}" for name in _STAGE_3), "sub_group_size", "leaf_module"), (3,)),
    **dict.fromkeys(("zero_hpz_partition_size", "zero_quantized_weights", "zero_quantized_gradients"), (3,)),
    **dict.fromkeys(("zero_quantized_nontrainable_weights", "memory_efficient_linear", "override_module_apply"), (3,)),
    **dict.fromkeys(("log_trace_cache_warnings", "enable_sanity_checks"), (3,)),
}
"""Keys of `zero_optimization`, and the ZeRO stages that use them."""
SECTIONS = {
    "fp16": (
        *("loss_scale", "initial_scale_power", "loss_scale_window", "hysteresis", "consecutive_hysteresis"),
        "min_loss_scale",
    ),
    "data_types": ("grad_accum_dtype", "param_dtype", "buffer_dtype", "keep_in_fp32_modules"),
    "flops_profiler": (
        *("enabled", "recompute_fwd_factor", "profile_step", "module_depth", "top_modules", "detailed", "output_file"),
    ),
    "timers": ("throughput",),
}
"""Keys of the sections in which DeepSpeed itself ignores unknown ones, or has others without effect."""
FREE = frozenset(
    {
        "bf16", "comet", "comms_logger", "communication_data_type", "csv_monitor", "disable_python_gc", "dump_state",
        "gradient_predivide_factor", "log_level", "memory_breakdown", "prescale_gradients", "steps_per_print",
        "tensorboard", "wall_clock_breakdown", "wandb", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer",
        "zero_optimization", *SECTIONS,
    }
)  # fmt: skip
"""The other keys at the top level: DeepSpeed itself ignores unknown ones."""
NEEDED = {
    "bf16": ("precision", ("bf16",)),
    "fp16": ("precision", ("fp16",)),
    "bf16.check_grad_overflow": ("zero_stage", (1, 2)),
    "zero_optimization.offload_optimizer": ("offload", ("optimizer", "all")),
    "zero_optimization.offload_param": ("offload", ("all",)),
    **{f"zero_optimization.{key}": ("zero_stage", stages) for key, stages in ZERO_STAGES.items()},
}
"""Dotted keys, and the key of `training` and its values that they apply to."""


def find_problems(training: TrainingSettings) -> Iterator[str]:
    """Messages on the keys of the user's own DeepSpeed settings that contradict others or have no effect."""
    yield from _section(training.deepspeed, training, "")


def _section(settings: JsonObject, training: TrainingSettings, prefix: str) -> Iterator[str]:
    for key, value in settings.items():
        name = f"{prefix}{key}"
        known = SECTIONS.get(prefix.rstrip("."), ()) if prefix else FREE
        needed, values = NEEDED.get(name, ("", ()))
        actual = getattr(training, needed) if needed else None
        problem = None
        if name in OWNED:
            problem = f"is decided by training.{OWNED[name]}; set that instead"
        elif name in REFUSED:
            problem = f"{REFUSED[name]}; leave it out"
        elif needed == "offload" and not isinstance(value, dict):
            problem = "is decided by training.offload; set that instead"
        elif needed and actual not in values and not (isinstance(value, dict) and value.keys() & {"device", "enabled"}):
            problem = f"has no effect with training.{needed} {actual}; expected {' or '.join(map(str, values))}"
        elif known and key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            problem = f"has no effect here{f'; did you mean {near[0]}?' if near else ''}"
        elif isinstance(value, dict):
            yield from _section(value, training, f"{name}.")
        if problem is not None:
            yield f"training.deepspeed.{name}: {problem}"
