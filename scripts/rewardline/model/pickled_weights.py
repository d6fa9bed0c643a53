"""Weights from pickled files (`pytorch_model*.bin`), read by torch's restricted reader, which executes nothing."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rewardline.core.errors import UserError


def read_bins(paths: Sequence[Path]) -> dict[str, Tensor]:
    """All weights of the files by name, mapped from them where the format allows it.

    Raises:
        UserError: a file is damaged, or cannot be read without executing what it contains.
    """
    weights: dict[str, Tensor] = {}
    for path in paths:
        try:
            weights.update(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
        except Exception as error:
            raise UserError(
                f"{path.name} cannot be read without executing code that it contains, or is damaged; find the model's "
                "weights as safetensors"
            ) from error
    return weights
