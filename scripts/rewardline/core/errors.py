"""Errors that the user can fix."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from pydantic import ValidationError

_LACK: Final = re.compile(r".*(map segment|annot allocate memory|can't allocate memory).*")
FEW_NAMES, MANY_NAMES = 20, 100
_LONG_LIST: Final = re.compile(r"((?:[\w.'\"/-]+, ){3})((?:[\w.'\"/-]+, ){20,})(?=[\w.'\"/-])")


class UserError(Exception):
    """A problem that the user can fix: one message that says what, where and how, shown without a traceback."""


def first_line(error: BaseException) -> str:
    """The message of an error in one line: its first line, or the name of its class if it has none.

    A line that ends with a colon is continued by the next; of a long list of names only the first ones are kept.
    Of a pydantic `ValidationError` it has the first three problems, each with its key.
    """
    if isinstance(error, ValidationError):
        problems = [(".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors()]
        shown = [f"{key}: {message}" if key else message for key, message in problems[:3]]
        more = [f"and {len(problems) - 3} more"] if len(problems) > 3 else []
        return "; ".join([*shown, *more])
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = lines.pop(0)
    while text.endswith(":") and lines:  # the reason itself follows
        text += f" {lines.pop(0)}"
    return _LONG_LIST.sub(lambda found: f"{found[1]}... and {found[2].count(',')} more, ", text)


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the nearest known one, of a long list three; else all of a few."""
    names = [str(name) for name in known]
    if len(names) > MANY_NAMES:
        return f"; the nearest of {len(names):,} known: {', '.join(get_close_matches(word, names, n=3, cutoff=0.0))}"
    if matches := get_close_matches(word, names, n=1, cutoff=0.4):
        return f"; did you mean {matches[0]}?"
    return f"; known: {listing(names) or 'none'}"


def listing(names: Iterable[str]) -> str:
    """Names in a row; of many the first ones, and how many more there are."""
    known = [str(name) for name in names]
    more = f" and {len(known) - FEW_NAMES:,} more" if len(known) > FEW_NAMES else ""
    return ", ".join(known[:FEW_NAMES]) + more


def refused_by_system(error: BaseException) -> bool:
    """Whether the system refuses what reading a file needs (memory, permission, open files), and not the file."""
    refused = isinstance(error, OSError) and error.errno is not None and not isinstance(error, FileNotFoundError)
    return refused or lack_of_memory(error) is not None


def lack_of_memory(error: BaseException) -> str | None:
    """The line in which an error says, in the words of Python, the loader or torch, that memory is lacking."""
    if isinstance(error, MemoryError):
        return first_line(error)
    found = _LACK.search(str(error))
    return found and found[0].strip()


def explain(error: BaseException) -> str | None:
    """The message to show for a `UserError` or an error of the operating system; None for all others."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    return None
