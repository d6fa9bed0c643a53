"""The files of the project that a program consists of, and a hash of their content.

A program consists of itself, of all modules of the package that it imports, directly or not, of the `__init__.py` of
the packages that hold them, and of the templates that these modules use.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Sequence
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
    files: set[Path] = set()
    waiting = [program]
    while waiting:
        path = waiting.pop()
        if path not in files:
            files.add(path)
            waiting += _used_files(path, root)
    return tuple(sorted(files))


def code_digest(*programs: Path, without: Iterable[str] = ()) -> str:
    """A hash of the files of programs or modules: of their content and of their paths relative to the root.

    `without`: names of packages of the library whose modules do not count.
    """
    root = _root(programs[0])
    sha = hashlib.sha256()
    excluded = [root / PACKAGE / name for name in without]
    for path in sorted({path for program in programs for path in program_files(program)}):
        if not any(path.is_relative_to(folder) for folder in excluded):
            content = path.read_bytes()
            sha.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return sha.hexdigest()[:16]


def _root(path: Path) -> Path:
    """The folder that the package is imported from: the nearest one above `path` that is not a package."""
    return next(folder for folder in path.parents if not (folder / "__init__.py").is_file())


@cache
def _used_files(path: Path, root: Path) -> tuple[Path, ...]:
    """The modules that a module imports, the `__init__.py` of their packages, and its templates."""
    if path.suffix != ".py":
        return ()
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, filename=str(path))
    modules = [module for node in _statements(tree.body) for module in _imported_modules(node, path, root)]
    packages = {parent for module in modules for parent in module.relative_to(root).parents[:-1]}
    files = [*modules, *(root / package / "__init__.py" for package in packages)]
    if TEMPLATES in text and any(isinstance(node, ast.Constant) and node.value == TEMPLATES for node in ast.walk(tree)):
        templates = (path.parent / TEMPLATES).rglob("*")
        files += [file for file in templates if file.is_file() and "__pycache__" not in file.parts]
    return tuple(files)


def _statements(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """All statements, also those inside others, but those that only type checkers read."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from _statements(node.orelse)
        else:
            for name in ("body", "handlers", "cases", "orelse", "finalbody"):
                yield from _statements(getattr(node, name, ()))


def _imported_modules(node: ast.AST, path: Path, root: Path) -> Iterator[Path]:
    """The modules of the package that an import statement names."""
    if isinstance(node, ast.Import):
        choices = [[alias.name] for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.level:
        raise ImportStatementError(f"{path}:{node.lineno}: relative import; write `from {PACKAGE}...`")
    elif isinstance(node, ast.ImportFrom):
        choices = [[f"{node.module}", f"{node.module}.{alias.name}"] for alias in node.names]
    else:
        return
    for names in choices:
        if names[0].partition(".")[0] == PACKAGE:
            paths = (root.joinpath(*name.split(".")).with_suffix(".py") for name in names)
            module = next((file for file in paths if file.is_file()), None)
            if module is None:
                raise ImportStatementError(f"{path}:{node.lineno}: imports a package; import the module that is used")
            yield module
