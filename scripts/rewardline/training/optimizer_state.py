"""What an engine knows beside the model's shape: fp32 weights and Adam's moments, whichever way ZeRO shares them out.

A process sees the runs of elements that it keeps, named by parameter and place, so that what one number of processes or
one ZeRO stage saved can be loaded by any other. The names of DeepSpeed's attributes are those of the pinned version.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Json = dict[str, Any]
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Fragment:
    """Elements `start` and following of a flattened parameter, as far as this process keeps them.

    `tensors` holds views of the engine's own memory, float32 [elements]: `weight` and the moments of Adam.
    """

    name: str
    start: int
    tensors: dict[str, Tensor]

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return self.tensors["weight"].numel()


def fragments(engine: Any) -> list[Fragment]:
    """What this process keeps of every trained parameter, in the model's order; equal on all processes at stage 0."""
    _ensure_moments(engine)
    views = (_views_0, _views_1_and_2, _views_1_and_2, _views_3)[engine.zero_optimization_stage()]
    found = []
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            found += [Fragment(name, start, tensors) for start, tensors in views(engine, parameter)]
    return found


Views = Iterator[tuple[int, dict[str, Tensor]]]


def _views_0(engine: Any, parameter: nn.Parameter) -> Views:
    state = engine.basic_optimizer.state[parameter]
    yield 0, {"weight": parameter.data.view(-1), **{key: state[key].view(-1) for key in MOMENTS}}


def _views_1_and_2(engine: Any, parameter: Any) -> Views:
    mapping = parameter._hp_mapping
    if mapping is not None:  # else another process keeps all of it
        flat = engine.optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
        place = mapping.get_hp_fragment_address()
        yield mapping.lp_fragment_address.start, _narrow(engine, flat, place.start, place.numel)


def _views_3(engine: Any, parameter: Any) -> Views:
    optimizer = engine.optimizer
    group, offset, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
    start = size * optimizer._get_param_partition_rank(parameter)
    real = min(size, parameter.ds_numel - start)  # the last processes' parts end in padding
    if real > 0:
        yield start, _narrow(engine, optimizer.fp32_partitioned_groups_flat[group], offset, real)


def _narrow(engine: Any, flat: Tensor, start: int, count: int) -> dict[str, Tensor]:
    state = engine.basic_optimizer.state[flat]
    whole = {"weight": flat.data, **{key: state[key] for key in MOMENTS}}
    return {key: value.narrow(0, start, count) for key, value in whole.items()}


def _optimized(engine: Any) -> list[Tensor]:
    """The tensors that Adam itself sees."""
    stage = engine.zero_optimization_stage()
    if stage == 3:
        return list(engine.optimizer.fp32_partitioned_groups_flat)
    if stage:
        return list(engine.optimizer.single_partition_of_fp32_groups)
    return [parameter for parameter in engine.module.parameters() if parameter.requires_grad]


def _ensure_moments(engine: Any) -> None:
    """Give Adam the state that it otherwise makes at its first step."""
    for tensor in _optimized(engine):
        state = engine.basic_optimizer.state[tensor]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=tensor.device)
            for key in MOMENTS:
                state[key] = torch.zeros_like(tensor.data)


def counters(engine: Any) -> Json:
    """Adam's count of steps, which skips those that overflowed in fp16, and the state of fp16's loss scaler."""
    _ensure_moments(engine)
    step = engine.basic_optimizer.state[_optimized(engine)[0]]["step"]
    scaler = vars(getattr(engine.optimizer, "loss_scaler", object)) if engine.zero_optimization_stage() else {}
    scale = {key: value for key, value in scaler.items() if isinstance(value, int | float)}
    return {"adam_step": float(step), "loss_scaler": scale, "global_steps": engine.global_steps}


def apply_state(engine: Any, counts: Json) -> None:
    """Have the engine go on from the tensors that were written into its `fragments`; every process must call it."""
    for tensor in _optimized(engine):
        engine.basic_optimizer.state[tensor]["step"].fill_(counts["adam_step"])
    engine.global_steps = counts["global_steps"]
    stage, optimizer = engine.zero_optimization_stage(), engine.optimizer
    if stage:
        vars(optimizer.loss_scaler).update(counts["loss_scaler"])
    if stage in (1, 2):
        optimizer.update_lp_params()
    elif stage == 3:
        optimizer._partition_all_parameters()
        for group in range(len(optimizer.fp32_partitioned_groups_flat)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
        if optimizer.persistent_parameters:
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)
