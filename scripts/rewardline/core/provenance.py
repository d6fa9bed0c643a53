"""Which files of the project a program consists of, and a hash of their content.

A program consists of itself, of every project module that it imports, directly or not, of the `__init__.py` of the
packages that hold them, and of the templates that these modules use.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = "rewardline"
TEMPLATES = "templates"
"""Name of a folder whose files count for the modules beside it that name it."""


class ImportStatementError(Exception):
    """An import statement whose module cannot be known from the statement alone."""


@cache
def program_files(program: Path) -> tuple[Path, ...]:
    """The files that a program, or a module of the package, consists of, sorted.

    Imports inside functions count; those under `if TYPE_CHECKING:` do not.

    Raises:
        ImportStatementError: a relative import, or the import of a package instead of a module.
    """
    root = _root(program)
    found: set[Path] = set()
    waiting = [program]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        if path.suffix == ".py":
            waiting.extend(_used_files(path, root))
    return tuple(sorted(found))


def code_digest(*programs: Path, without: Iterable[str] = ()) -> str:
    """A hash of the files that programs or modules consist of: of content and of paths below the root.

    `without`: names of packages of the library whose modules do not count.
    """
    root = _root(programs[0])
    sha = hashlib.sha256()
    left_out = [root / PACKAGE / name for name in without]
    for path in sorted({path for program in programs for path in program_files(program)}):
        if any(path.is_relative_to(folder) for folder in left_out):
            continue
        content = path.read_bytes()
        sha.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return sha.hexdigest()[:16]


def _root(path: Path) -> Path:
    """The folder that the package is imported from: the nearest one above `path` that is no package itself."""
    folder = path.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


@cache
def _used_files(path: Path, root: Path) -> tuple[Path, ...]:
    """The project files that a module needs to be imported, and its templates."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    files: list[Path] = []
    nodes = list(_walk(tree))
    for node in nodes:
        for name in _imported(node, path):
            files += _module_files(name, root, f"{path}:{getattr(node, 'lineno', 0)}")
    if any(isinstance(node, ast.Constant) and node.value == TEMPLATES for node in nodes):
        folder = path.parent / TEMPLATES
        files += sorted(file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return tuple(files)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only type checkers read."""
    yield node
    children: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        children = node.orelse
    for child in children:
        yield from _walk(child)


def _imported(node: ast.AST, path: Path) -> list[tuple[str, str | None]]:
    """What an import statement takes from the package: (module, None), or (module or package, name in it)."""
    if isinstance(node, ast.Import):
        return [(alias.name, None) for alias in node.names if alias.name.split(".")[0] == PACKAGE]
    if isinstance(node, ast.ImportFrom):
        if node.level:
            raise ImportStatementError(f"{path}:{node.lineno}: relative import; write `from {PACKAGE}...`")
        if node.module and node.module.split(".")[0] == PACKAGE:
            return [(node.module, alias.name) for alias in node.names]
    return []


def _module_files(imported: tuple[str, str | None], root: Path, where: str) -> list[Path]:
    """The file of an imported module, and the `__init__.py` of each package above it."""
    name, attribute = imported
    parts = name.split(".")
    files = [
        init for depth in range(1, len(parts) + 1) if (init := root.joinpath(*parts[:depth], "__init__.py")).is_file()
    ]
    module, package = root.joinpath(*parts).with_suffix(".py"), root.joinpath(*parts)
    if module.is_file():
        return [*files, module]
    if attribute is not None and (module := package / f"{attribute}.py").is_file():
        return [*files, module]
    # A module that is reached as an attribute of its package stands in no import statement.
    if attribute is None or (package / attribute / "__init__.py").is_file():
        raise ImportStatementError(f"{where}: imports a package; import the module that is used")
    return files
