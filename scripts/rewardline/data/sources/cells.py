"""Cells of a table that spell lists and objects, as JSON or as Python writes them."""

import ast
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from rewardline.data.sources.rows import FLAW, decode

Parser = Callable[[str], Any]
_LONGEST = 1 << 20  # characters of a cell that Python's parser is given


def parser_of(cells: Sequence[str]) -> tuple[Parser, str] | None:
    """What parses every one of a column's cells that is not empty, and its name; None for a column of plain texts."""
    given = [cell for cell in cells if cell.strip()]
    if not given or not all(cell.lstrip().startswith(("[", "{")) for cell in given):
        return None
    for parse, name in ((decode, "JSON"), (_python, "Python literals")):
        try:
            if all(isinstance(parse(cell), list | dict) for cell in given):
                return parse, name
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def parsed(cell: str, parse: Parser) -> Any:
    """What a cell spells; a cell that does not, where the others of its column do, is a flaw."""
    if not cell.strip():
        return cell
    try:
        return parse(cell)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return FLAW + "it does not spell a list or an object, as its column does elsewhere"


def _python(cell: str) -> Any:
    if len(cell) > _LONGEST:
        raise ValueError
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        return ast.literal_eval(cell.strip())
