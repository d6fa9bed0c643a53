"""The state of an engine: fp32 weights and Adam's moments, however ZeRO partitions them.

A process has fragments of parameters, named by parameter and offset, so that any number of processes and any ZeRO stage
can load what another one saved. The names of DeepSpeed's attributes are those of the pinned version.
"""

from dataclasses import dataclass

import torch
from deepspeed import DeepSpeedEngine
from torch import Tensor

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Fragment:
    """Elements of a flattened parameter from `start` on that this process keeps.

    `tensors` has views of the engine's own memory, float32 (or bf16 with `state_precision: bf16`) [elements]: `weight`
    and the moments of Adam.
    """

    name: str
    start: int
    tensors: dict[str, Tensor]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return self.tensors["weight"].numel()


@dataclass(frozen=True)
class Counters:
    """Adam's count of steps, which leaves out those that overflowed in fp16, fp16's loss scaler, DeepSpeed's steps."""

    adam_step: float
    loss_scaler: dict[str, bool | int | float]
    global_steps: int


def fragments(engine: DeepSpeedEngine) -> list[Fragment]:
    """This process's fragments of all trained parameters, in the model's order; equal on all processes at stage 0."""
    _ensure_moments(engine)
    stage, optimizer, result = engine.zero_optimization_stage(), engine.optimizer, []
    for name, parameter in engine.module.named_parameters():
        if not parameter.requires_grad:
            continue
        if stage == 0:
            result.append(Fragment(name, 0, _views(engine, parameter, 0, parameter.numel())))
        elif stage == 3:
            group, offset, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
            start = size * optimizer._get_param_partition_rank(parameter)
            real = min(size, parameter.ds_numel - start)  # the last partitions end in padding
            if real > 0:
                flat = optimizer.fp32_partitioned_groups_flat[group]
                result.append(Fragment(name, start, _views(engine, flat, offset, real)))
        elif (mapping := parameter._hp_mapping) is not None:  # else another process keeps all of it
            flat = optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
            address = mapping.get_hp_fragment_address()
            views = _views(engine, flat, address.start, address.numel)
            result.append(Fragment(name, mapping.lp_fragment_address.start, views))
    return result


def _views(engine: DeepSpeedEngine, tensor: Tensor, start: int, count: int) -> dict[str, Tensor]:
    """Elements from `start` on of a flattened tensor that Adam updates, and of its moments."""
    state = engine.basic_optimizer.state[tensor]
    tensors = {"weight": tensor.data, **{key: state[key] for key in MOMENTS}}
    return {key: value.view(-1).narrow(0, start, count) for key, value in tensors.items()}


def _optimized(engine: DeepSpeedEngine) -> list[Tensor]:
    """The tensors that Adam itself updates."""
    stage = engine.zero_optimization_stage()
    if stage == 3:
        return list(engine.optimizer.fp32_partitioned_groups_flat)
    if stage:
        return list(engine.optimizer.single_partition_of_fp32_groups)
    return [parameter for parameter in engine.module.parameters() if parameter.requires_grad]


def _ensure_moments(engine: DeepSpeedEngine) -> None:
    """Create the state that Adam otherwise creates at its first step."""
    for tensor in _optimized(engine):
        state = engine.basic_optimizer.state[tensor]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=tensor.device)
            for key in MOMENTS:
                state[key] = torch.zeros_like(tensor.data)


def counters(engine: DeepSpeedEngine) -> Counters:
    """The engine's counters."""
    _ensure_moments(engine)
    step = engine.basic_optimizer.state[_optimized(engine)[0]]["step"]
    scaler = vars(getattr(engine.optimizer, "loss_scaler", object)) if engine.zero_optimization_stage() else {}
    scale = {key: value for key, value in scaler.items() if isinstance(value, int | float)}
    return Counters(float(step), scale, engine.global_steps)


def apply_state(engine: DeepSpeedEngine, counts: Counters) -> None:
    """Set the counters, and have the engine continue from its changed `fragments`; every process must call it."""
    for tensor in _optimized(engine):
        engine.basic_optimizer.state[tensor]["step"].fill_(counts.adam_step)
    engine.global_steps = counts.global_steps
    stage, optimizer = engine.zero_optimization_stage(), engine.optimizer
    if stage:
        vars(optimizer.loss_scaler).update(counts.loss_scaler)
    if stage in (1, 2):
        optimizer.update_lp_params()
    elif stage == 3:
        optimizer._partition_all_parameters()
        for group in range(len(optimizer.fp32_partitioned_groups_flat)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
        if optimizer.persistent_parameters:
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)
