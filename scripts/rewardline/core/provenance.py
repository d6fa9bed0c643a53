"""The files of the project that a program consists of, and a hash of their content.

A program consists of itself, of all modules of the package that it imports, directly or not, of the `__init__.py` of
the packages that hold them, and of the templates that these modules use.
"""

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

PACKAGE = "rewardline"
TEMPLATES = "templates"
"""Name of a folder whose files count for the modules beside it that name it."""
_NAMES_TEMPLATES = re.compile(f"""["']{TEMPLATES}["']""")
_IMPORT = re.compile(
    rf"^[ \t]*(from {PACKAGE}[\w.]* import (?:\([^()#]*\)|[\w, ]+)|import {PACKAGE}[\w. ]*)(?:#.*)?$", re.M
)
_FOR_TYPE_CHECKERS = re.compile(r"^if (?:typing\.)?TYPE_CHECKING:\n(?:[ \t].*\n|\n)*", re.M)
_OTHER_CONDITION = re.compile(r"if .*TYPE_CHECKING")
_RELATIVE = re.compile(r"^[ \t]*from[ \t]*\.", re.M)


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
    files = [file for node in _imports(text, path) for file in _imported_files(node, path, root)]
    if _NAMES_TEMPLATES.search(text):
        templates = (path.parent / TEMPLATES).rglob("*")
        files += [file for file in templates if file.is_file() and "__pycache__" not in file.parts]
    return tuple(dict.fromkeys(files))


def _imports(text: str, path: Path) -> Iterable[ast.AST]:
    """The statements of a module among which are all that import from the package.

    To parse all modules takes half a second of each start. So only those lines are parsed that are imports of the
    package, if nothing else could be one.
    """
    read = _FOR_TYPE_CHECKERS.sub(lambda block: "\n" * block[0].count("\n"), text) if "TYPE_CHECKING" in text else text
    mentions = [line for line in read.split("\n") if PACKAGE in line and ("import" in line or "from" in line)]
    found = list(_IMPORT.finditer(read))
    unclear = "\\\n" in read or _OTHER_CONDITION.search(read) or _RELATIVE.search(read)
    if len(found) == len(mentions) and not unclear and not any(read.count('"""', 0, one.start()) % 2 for one in found):
        lines = [""] * (read.count("\n") + 1)
        for one in found:
            row = read.count("\n", 0, one.start())
            lines[row : row + one[1].count("\n") + 1] = one[1].split("\n")
        text = "\n".join(lines)
    return _statements(ast.parse(text, filename=str(path)).body)


def _statements(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """All statements, also those inside others, but those that only type checkers read."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from _statements(node.orelse)
        else:
            for name in ("body", "handlers", "cases", "orelse", "finalbody"):
                yield from _statements(getattr(node, name, ()))


def _imported_files(node: ast.AST, path: Path, root: Path) -> Iterator[Path]:
    """The modules of the package that an import statement names, and the `__init__.py` of their packages."""
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
            files = next(filter(None, (_module_files(name, root) for name in names)), None)
            if files is None:
                raise ImportStatementError(f"{path}:{node.lineno}: imports a package; import the module that is used")
            yield from files


@cache
def _module_files(name: str, root: Path) -> tuple[Path, ...]:
    """A module and the `__init__.py` of its packages; none for a package, and for a name in a module."""
    parts = name.split(".")
    path = root.joinpath(*parts).with_suffix(".py")
    packages = (root.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts)))
    return (path, *packages) if path.is_file() else ()
