"""Tokenizers in a program without PyTorch, whose import takes most of the time that transformers need to start."""

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec


def hide_torch() -> None:
    """Have transformers take PyTorch for a package that is not installed, in a process that only tokenizes.

    They have no option for it, but ask once whether it is there. Without effect where they are imported already.
    """
    if "transformers" in sys.modules:
        return
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"  # that there are no models
    find_spec = importlib.util.find_spec

    def find_others(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "torch" else find_spec(name, package)

    importlib.util.find_spec = find_others
    try:
        from transformers.utils import import_utils

        import_utils.is_torch_available()
    finally:
        importlib.util.find_spec = find_spec
