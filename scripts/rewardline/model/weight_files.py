"""Files of a model's folder: those that hold no code, and weights in pickles, read without executing anything."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rewardline.core.errors import UserError

DATA_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
CODE_FILES = "*.py"
PICKLES = "pytorch_model*.bin"


def read_pickles(paths: Sequence[Path]) -> dict[str, Tensor]:
    """All weights of `pytorch_model*.bin` files by name, mapped from them where the format allows it.

    torch's restricted unpickler executes nothing that they contain.

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
