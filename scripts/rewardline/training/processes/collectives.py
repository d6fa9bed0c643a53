"""Collective operations of the processes of a training run; every process must call each of them."""

from collections.abc import Callable
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from rewardline.core.runtime import rank, world_size

T = TypeVar("T")


def run_on_all(action: Callable[[], T], *errors: type[Exception]) -> list[T]:
    """Run `action` on every process; the results of all processes, by rank.

    Raises:
        OSError, or one of `errors`: `action` raised it on some process. Then it is raised on all of them.
    """
    result: T | None = None
    failure: tuple[type[Exception], str] | None = None
    try:
        result = action()
    except OSError as error:
        failure = (OSError, error.strerror or str(error))
    except errors as error:
        failure = (type(error), str(error))
    outcomes = [(result, failure)] * world_size()
    if world_size() > 1:
        dist.all_gather_object(outcomes, (result, failure))
    for _, failed in outcomes:
        if failed is not None:
            kind, message = failed
            raise kind(message)
    return [cast(T, value) for value, _ in outcomes]


def run_on_first(action: Callable[[], T]) -> T:
    """Run `action` on rank 0; its result, on every process. Raises as `run_on_all` does."""
    return cast(T, run_on_all(lambda: action() if rank() == 0 else None)[0])


def all_agree(condition: Callable[[], bool]) -> bool:
    """Whether `condition` holds on every process."""
    return all(run_on_all(condition))


def on_any(*flags: bool, device: torch.device) -> list[bool]:
    """Which of `flags` are set on some process."""
    if world_size() == 1:  # nothing to ask for, and nothing to wait for
        return list(flags)
    counts = sum_over_processes(torch.tensor([float(flag) for flag in flags], device=device))
    return [count > 0 for count in counts.tolist()]


def sum_over_processes(values: Tensor) -> Tensor:
    """`values`, replaced by their sum over all processes."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values
