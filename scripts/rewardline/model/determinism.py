"""Deterministic kernels on a GPU: a training run that is repeated, or resumed, has the same weights bit for bit.

On a CPU that is so anyway. Needed beside this: workspaces of cuBLAS that are not shared (see `runtime.prepare`), one
attention kernel for all starts instead of the fastest, and no compiled layers, which are tuned to the first rows.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rewardline.core.errors import UserError

log = logging.getLogger(__name__)


def start(deterministic: bool, device: torch.device) -> None:
    """Have PyTorch take deterministic kernels alone if the device needs to be told, and say what holds."""
    if device.type == "cpu":
        return
    # Not with warn_only, which leaves the gradients of FlashAttention as they are.
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads such memory
    torch.backends.cudnn.benchmark = False
    log.info(
        "kernels are deterministic: a resumed run has the same weights bit for bit on the same hardware"
        if deterministic
        else "sums have no fixed order: a resumed run agrees up to rounding, unless training.deterministic is set"
    )


@contextmanager
def explained() -> Iterator[None]:
    """A block in which an operator without a deterministic kernel is a `UserError` that names it."""
    try:
        yield
    except RuntimeError as error:
        name, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not found:
            raise
        raise UserError(
            f"training.deterministic: {name} has no deterministic kernel on this GPU; set it to false: the run "
            "resumes from its checkpoint, and agrees up to rounding"
        ) from error
