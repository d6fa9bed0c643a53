"""The DeepSpeed engine of a training run: its configuration, its optimiser, and its weights gathered for export."""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import deepspeed
import torch
from deepspeed import DeepSpeedEngine
from deepspeed.ops import __compatible_ops__
from deepspeed.runtime.config import DeepSpeedConfig, DeepSpeedConfigError
from torch import Tensor, nn
from transformers.integrations import HfDeepSpeedConfig

from rewardline.core.errors import UserError
from rewardline.core.runtime import hold_threads, world_size
from rewardline.core.settings import JsonObject
from rewardline.training.deepspeed_options import owned_keys
from rewardline.training.settings import TrainingSettings

log = logging.getLogger(__name__)


def start_processes() -> None:
    """Join the other processes of this training run."""
    # Only inference uses this CPU kernel, and building it takes minutes and a compiler.
    __compatible_ops__["deepspeed_shm_comm"] = False
    hold_threads()
    deepspeed.init_distributed(verbose=False)


def local_device() -> torch.device:
    """The device of this process."""
    if torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", "0"))
        torch.cuda.set_device(local)
        return torch.device("cuda", local)
    return torch.device("cpu")


def deepspeed_config(training: TrainingSettings) -> JsonObject:
    """The DeepSpeed configuration that follows from the settings, with the user's own merged over it.

    Raises:
        UserError: the user's part sets what a key of `training` decides, or DeepSpeed refuses it.
    """
    stage, offload = training.zero_stage, training.offload
    zero: JsonObject = {"stage": stage}
    if offload in ("optimizer", "all"):
        zero["offload_optimizer"] = {"device": "cpu"}
    if offload == "all":
        zero["offload_param"] = {"device": "cpu"}
    config: JsonObject = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # Micro batches vary in number, as they are packed by tokens: this program says where a step ends.
        "managed_gradient_accumulation": False,
        "gradient_clipping": training.clip if stage else 0.0,  # else `clip_gradients`
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
    if training.precision != "fp32":
        config[training.precision] = {"enabled": True}
    if problems := list(owned_keys(training.deepspeed, offload)):
        raise UserError("\n".join(problems))
    merged = merge(config, training.deepspeed, "")
    with _refusals(training):
        DeepSpeedConfig(merged)
    return merged


@contextmanager
def _refusals(training: TrainingSettings) -> Iterator[None]:
    """Turn what DeepSpeed raises against the user's own settings into a message without traceback."""
    try:
        yield
    except (DeepSpeedConfigError, AssertionError, ValueError) as error:
        if not training.deepspeed:
            raise
        reason = " ".join(line.strip() for line in str(error).splitlines() if "https://errors." not in line)
        raise UserError(f"training.deepspeed: DeepSpeed does not take it: {reason}") from error


def merge(base: JsonObject, over: JsonObject, prefix: str) -> JsonObject:
    """`over` merged into `base`, deeply; every value that it replaces is logged."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            result[key] = merge(below, value, f"{prefix}{key}.")
            continue
        if key in result and below != value:
            log.warning("training.deepspeed.%s%s: %s replaces %s", prefix, key, value, below)
        result[key] = value
    return result


@contextmanager
def partitioned_loading(config: JsonObject, stage: int) -> Iterator[None]:
    """A block in which transformers load weights straight into the partitions of ZeRO-3."""
    held = HfDeepSpeedConfig(config) if stage == 3 else None  # they ask whether such an object is alive
    yield
    del held


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, list[nn.Parameter] | float]]:
    """Trainable parameters in two groups: matrices with weight decay, norms and biases without."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trainable if _dimensions(parameter) >= 2]
    vectors = [parameter for parameter in trainable if _dimensions(parameter) < 2]
    groups = [(matrices, weight_decay), (vectors, 0.0)]
    return [{"params": parameters, "weight_decay": decay} for parameters, decay in groups if parameters]


def _dimensions(parameter: nn.Parameter) -> int:
    # ZeRO-3 leaves an empty vector in place of a parameter, and its shape in ds_shape.
    return len(getattr(parameter, "ds_shape", parameter.shape))


def elements(parameter: nn.Parameter) -> int:
    """How many elements a parameter has, also where ZeRO-3 has partitioned it."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def create(model: nn.Module, training: TrainingSettings, config: JsonObject) -> DeepSpeedEngine:
    """The engine around `model`, with fused AdamW as its optimiser; `config` as `deepspeed_config` returns it.

    Raises:
        UserError: DeepSpeed refuses the user's own settings.
    """
    groups = parameter_groups(model, training.weight_decay)
    # Passed rather than named in the configuration: DeepSpeed would compile one of its own for minutes.
    optimizer = torch.optim.AdamW(
        groups, lr=training.learning_rate, betas=(training.betas[0], training.betas[1]), eps=training.eps, fused=True
    )
    with _refusals(training):
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    if training.zero_stage == 0:
        engine.enable_backward_allreduce = False  # `clip_gradients` does it, so that the norm is known
    return engine


def clip_gradients(engine: DeepSpeedEngine, limit: float) -> float | None:
    """At stage 0: average the gradients over processes and scale them to a norm of at most `limit` (0: no limit).

    Returns the norm before; None at other stages, where DeepSpeed does both. If DeepSpeed did it at stage 0, the norm
    would not be known, and a lone process would copy all gradients to a buffer and back.
    """
    if engine.zero_optimization_stage():
        return None
    if world_size() > 1:
        engine.buffered_allreduce_fallback()
    parameters = list(engine.module.parameters())
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    total = float(norm)
    if 0 < limit < total:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return total


def gradient_norm(engine: DeepSpeedEngine) -> float | None:
    """The norm of the last step's gradient before clipping, or None where the engine keeps none."""
    norm = engine.get_global_grad_norm()
    return None if norm is None else float(norm)


def set_learning_rate(engine: DeepSpeedEngine, rate: float) -> None:
    """Set the learning rate of the next step."""
    for group in engine.optimizer.param_groups:
        group["lr"] = rate


def gathered(parameters: Iterable[nn.Parameter], stage: int, write: bool = False) -> AbstractContextManager[None]:
    """A block in which ZeRO-3's parameters are complete; with `write`, what rank 0 changes reaches all processes."""
    if stage < 3:
        return nullcontext()
    context: AbstractContextManager[None] = deepspeed.zero.GatheredParameters(
        list(parameters), modifier_rank=0 if write else None
    )
    return context


def full_state(model: nn.Module, stage: int, keep: bool, only_trained: bool = False) -> dict[str, Tensor]:
    """All parameters and buffers by name, on the CPU, where `keep` (rank 0); every process must call it.

    With `only_trained` no frozen parameters and no buffers.
    """
    state: dict[str, Tensor] = {}
    # A parameter at a time: no process ever holds more than one complete parameter beside its partition.
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if only_trained and not parameter.requires_grad:
            continue
        with gathered([parameter], stage):
            if keep:
                state[name] = parameter.detach().cpu().clone()
    if keep and not only_trained:
        for path, module in model.named_modules():
            for name, buffer in module.named_buffers(recurse=False):
                if name not in module._non_persistent_buffers_set:
                    state[f"{path}.{name}".lstrip(".")] = buffer.detach().cpu().clone()
    return state
