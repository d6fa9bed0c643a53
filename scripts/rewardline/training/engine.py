"""The DeepSpeed engine of a training run: its configuration, its optimizer, and its weights gathered for export."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import deepspeed
import torch
from deepspeed import DeepSpeedEngine
from deepspeed.runtime.config import DeepSpeedConfig, DeepSpeedConfigError
from torch import Tensor, nn

from rewardline.core.errors import UserError
from rewardline.core.runtime import rank, world_size
from rewardline.core.settings import JsonObject
from rewardline.training.deepspeed_options import find_problems
from rewardline.training.settings import TrainingSettings

log = logging.getLogger(__name__)


def deepspeed_config(training: TrainingSettings) -> JsonObject:
    """The DeepSpeed configuration that follows from the settings, with the user's own merged over it.

    Raises:
        UserError: the user's part sets what a key of `training` decides, or DeepSpeed refuses it.
    """
    if problems := list(find_problems(training)):
        raise UserError("\n".join(problems))
    zero: JsonObject = {"stage": training.zero_stage}
    if training.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if training.offload == "all":
        zero["offload_param"] = {"device": "cpu"}
    config: JsonObject = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # Micro batches vary in number, as they are packed by tokens: `update` ends a step.
        "managed_gradient_accumulation": False,
        "gradient_clipping": training.clip if training.zero_stage else 0.0,  # else `_clip_gradients`
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
    if training.precision != "fp32":
        in_bf16 = training.state_precision == "bf16"
        state: JsonObject = {"bf16_master_weights_and_grads": True, "bf16_optimizer_states": True} if in_bf16 else {}
        config[training.precision] = {"enabled": True, **state}
    merged = _merge(config, training.deepspeed, "")
    with _refusals(training):
        DeepSpeedConfig(merged)
    return merged


@contextmanager
def _refusals(training: TrainingSettings) -> Iterator[None]:
    """A block in which errors of DeepSpeed that the user's own settings cause become messages without traceback."""
    try:
        yield
    except (DeepSpeedConfigError, AssertionError, ValueError) as error:
        if not training.deepspeed:
            raise
        reason = " ".join(line.strip() for line in str(error).splitlines() if "https://errors." not in line)
        raise UserError(f"training.deepspeed: DeepSpeed does not take it: {reason}") from error


def _merge(base: JsonObject, over: JsonObject, prefix: str) -> JsonObject:
    """`over` merged into `base`, deeply; every value that it replaces is logged."""
    result = dict(base)
    for key, value in over.items():
        replaced = result.get(key)
        if isinstance(value, dict) and isinstance(replaced, dict):
            value = _merge(replaced, value, f"{prefix}{key}.")
        elif key in result and replaced != value:
            log.warning("training.deepspeed.%s%s: %s replaces %s", prefix, key, value, replaced)
        result[key] = value
    return result


def elements(parameter: nn.Parameter) -> int:
    """How many elements a parameter has, also where ZeRO-3 has partitioned it."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def create(model: nn.Module, training: TrainingSettings, config: JsonObject) -> DeepSpeedEngine:
    """The engine around `model`, with fused AdamW as its optimizer; `config` as `deepspeed_config` returns it.

    Raises:
        UserError: DeepSpeed refuses the user's own settings.
    """
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            # ZeRO-3 leaves an empty vector in place of a parameter, and its shape in ds_shape.
            dimensions = len(getattr(parameter, "ds_shape", parameter.shape))
            (matrices if dimensions >= 2 else vectors).append(parameter)
    groups = [(matrices, training.weight_decay), (vectors, 0.0)]
    # Passed rather than named in the configuration: DeepSpeed would compile one of its own for minutes.
    optimizer = torch.optim.AdamW(
        [{"params": parameters, "weight_decay": decay} for parameters, decay in groups if parameters],
        lr=training.learning_rate,
        betas=(training.betas[0], training.betas[1]),
        eps=training.eps,
        fused=True,
    )
    with _refusals(training):
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    if training.zero_stage == 0:
        engine.enable_backward_allreduce = False  # `_clip_gradients` does it, so that the norm is known
    return engine


def update(engine: DeepSpeedEngine, clip: float) -> Tensor | float | None:
    """Change the weights by the gradients, scaled to a norm of at most `clip` (0: no limit).

    Returns the norm before, or None where DeepSpeed keeps none.
    """
    norm = None if engine.zero_optimization_stage() else _clip_gradients(engine, clip)
    engine.step()
    result: Tensor | float | None = engine.get_global_grad_norm() if norm is None else norm
    return result


def reading_waits(device: torch.device) -> bool:
    """Whether the program waits for the device when it reads a value there."""
    return device.type != "cpu"


def _clip_gradients(engine: DeepSpeedEngine, limit: float) -> Tensor:
    """At stage 0: average the gradients over processes, and clip them; returns the norm before.

    If DeepSpeed did it as at the other stages, the norm would not be known, and a lone process would copy all gradients
    to a buffer and back.
    """
    if world_size() > 1:
        engine.buffered_allreduce_fallback()
    parameters = list(engine.module.parameters())
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    # Where that costs no wait, gradients that need no scaling are left alone. Else the norm of these counts as 0.
    if limit and (reading_waits(engine.device) or norm > limit):
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm.where(norm > limit, 0.0))
    return norm


def gathered(parameters: Sequence[nn.Parameter], write: bool = False) -> AbstractContextManager[None]:
    """A block in which ZeRO-3's parameters are complete; with `write`, what rank 0 changes reaches all processes."""
    context: AbstractContextManager[None] = deepspeed.zero.GatheredParameters(
        parameters, modifier_rank=0 if write else None
    )
    return context


def full_state(model: nn.Module, only_trained: bool = False) -> dict[str, Tensor]:
    """All parameters and buffers by name, on rank 0 and its CPU; every process must call it.

    With `only_trained` no frozen parameters and no buffers.
    """
    state: dict[str, Tensor] = {}
    # A parameter at a time: no process ever holds more than one complete parameter beside its partition.
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.requires_grad or not only_trained:
            with gathered([parameter]):
                if rank() == 0:
                    state[name] = parameter.detach().cpu().clone()
    if rank() == 0 and not only_trained:
        for path, module in model.named_modules():
            for name, buffer in module.named_buffers(recurse=False):
                if name not in module._non_persistent_buffers_set:
                    state[f"{path}.{name}".lstrip(".")] = buffer.detach().cpu().clone()
    return state
