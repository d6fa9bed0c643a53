"""Files of a model's folder: names of those without code, and weights in pickles, read without executing anything."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rewardline.core.errors import UserError, refused_by_system

PICKLES = "pytorch_model*.bin"


def file_patterns(*, code: bool, pickles: bool) -> list[str]:
    """Patterns of the names of a model's data files, and of its code and pickled weights where those are wanted."""
    data = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    return [*data, *(["*.py"] if code else []), *([PICKLES] if pickles else [])]


def read_pickles(paths: Sequence[Path]) -> dict[str, Tensor]:
    """All weights of `pytorch_model*.bin` files by name, memory-mapped.

    Raises:
        UserError: a file is damaged, or torch's restricted unpickler, which executes nothing, cannot read it.
    """
    weights: dict[str, Tensor] = {}
    for path in paths:
        try:
            weights.update(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
        except Exception as error:
            if refused_by_system(error):
                raise
            raise UserError(
                f"{path.name} cannot be read without executing code that it contains, or is damaged; find the model's "
                "weights as safetensors"
            ) from error
    return weights
