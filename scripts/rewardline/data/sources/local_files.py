"""The files of this machine that a configuration names."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rewardline.core.errors import UserError


def expand_files(patterns: Sequence[str]) -> list[str]:
    """The files that paths and globs name, in the order given, each glob's matches sorted, without repetitions.

    Raises:
        UserError: a pattern matches no file.
    """
    files: dict[str, None] = {}
    for pattern in patterns:
        magic = glob.has_magic(pattern) and not Path(pattern).exists()  # data[1].jsonl may be a file's own name
        matches = sorted(glob.glob(pattern, recursive=True)) if magic else [pattern]
        matches = [match for match in matches if Path(match).is_file()]
        if not matches and Path(pattern).is_dir():
            raise UserError(f"{pattern} is a folder; name its files, as in {Path(pattern) / '*.jsonl'}")
        if not matches:
            kind = "matches no file" if magic else "does not exist"
            raise UserError(f"{pattern} {kind}; correct the path, which is relative to the folder you run from")
        for match in matches:
            if "{" in match or "}" in match:
                raise UserError(f"{match} has braces in its name, which snakemake reads as a wildcard; rename it")
        files.update(dict.fromkeys(matches))
    return list(files)


def local_model_files(model: dict[str, Any]) -> list[str]:
    """The files of a model (its entry in the configuration) that lies on this machine, none for one from elsewhere.

    Raises:
        UserError: it should lie on this machine, and does not.
    """
    if "gguf" in model:
        return [] if "wheel" in model["gguf"] else expand_files([model["gguf"]["file"]])
    path = model.get("path", "")
    if path and Path(path).is_dir():
        files = [file for file in Path(path).iterdir() if file.is_file() and not file.name.startswith(".")]
        return expand_files(sorted(map(str, files)))
    if path.startswith((".", "/", "~")):
        raise UserError(f"path: {path} is not a folder")
    return []
