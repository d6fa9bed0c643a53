"""Which project files a program consists of: itself and, transitively, the project modules that it imports."""

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = "rewardline"


@cache
def program_files(program: Path) -> tuple[Path, ...]:
    """`program` and every module of the package that it imports, directly or not, sorted.

    The package lies beside the program, or holds it. Imports inside functions count too.
    """
    root = program.parent.parent if program.parent.name == PACKAGE else program.parent
    found: set[Path] = set()
    waiting = [program]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        waiting.extend(_imports(path, root))
    return tuple(sorted(found))


def program_digest(program: Path) -> str:
    """A hash of the content of `program_files`, whatever the folder they lie in."""
    sha = hashlib.sha256()
    for path in program_files(program):
        sha.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return sha.hexdigest()[:16]


@cache
def _imports(path: Path, root: Path) -> list[Path]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    files: list[Path] = []
    for name in names:
        parts = name.split(".")
        if parts[0] != PACKAGE:
            continue
        for depth in range(1, len(parts) + 1):
            base = root.joinpath(*parts[:depth])
            files += [file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()]
    return files
