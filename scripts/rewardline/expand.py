"""Globs in lists of files."""

import glob
from collections.abc import Sequence
from pathlib import Path

from rewardline.cli import UserError


def expand_files(patterns: Sequence[str]) -> list[str]:
    """The files that paths and globs name, in the order given, each glob's matches sorted, without repetitions.

    Raises:
        UserError: a pattern matches no file.
    """
    files: dict[str, None] = {}
    for pattern in patterns:
        matches = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else [pattern]
        matches = [match for match in matches if Path(match).is_file()]
        if not matches:
            kind = "matches no file" if glob.has_magic(pattern) else "does not exist"
            raise UserError(f"{pattern} {kind}; correct the path, which is relative to the folder you run from")
        for match in matches:
            if "{" in match or "}" in match:
                raise UserError(f"{match} has braces in its name, which snakemake reads as a wildcard; rename it")
        files.update(dict.fromkeys(matches))
    return list(files)
