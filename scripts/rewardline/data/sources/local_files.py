"""The files that a configuration names."""

import glob
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from rewardline.core.errors import UserError, nearest
from rewardline.data.remote.addresses import is_remote


def expand_files(patterns: Sequence[str], elsewhere: Mapping[str, Sequence[str]] = MappingProxyType({})) -> list[str]:
    """The files that paths and globs name, in the order given, each glob's matches sorted, without repetitions.

    Addresses stand for themselves; `elsewhere` has the addresses that a pattern of them matches.

    Raises:
        UserError: a pattern matches no file.
    """
    files: dict[str, None] = {}
    for pattern in patterns:
        if is_remote(pattern):
            files.update(dict.fromkeys(elsewhere.get(pattern, [pattern])))
            continue
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


def check_pins(pinned: Iterable[str], files: Sequence[str]) -> None:
    """Raise `UserError` if something is pinned that is none of the files, so that its content would not be checked."""
    for name in pinned:
        if name not in files:
            raise UserError(f"sha256 names {name}, which is none of them{nearest(name, files)}")
