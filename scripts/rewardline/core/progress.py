"""Progress bars on a terminal, also for programs whose output goes to a log file; elsewhere plain lines."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TextIO

from tqdm import tqdm

TERMINAL = "REWARDLINE_TERMINAL"
"""Environment variable: the file on which child processes show their progress."""
_terminal: TextIO = sys.stderr


class _Lines:
    """A stream for tqdm that writes each update of a bar as a new line, for pipes and files."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = ""

    def write(self, text: str) -> int:
        if (text := text.replace("\r", "").strip()) and text != self._last:  # tqdm writes the end of a bar twice
            self._stream.write(text + "\n")
            self._last = text
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def keep_terminal() -> None:
    """Keep showing progress where stderr goes now, or where the parent process shows it, after stderr is redirected."""
    global _terminal
    try:
        _terminal = Path(os.environ[TERMINAL]).open("a", encoding="utf-8")  # noqa: SIM115 - open until the program ends
    except (KeyError, OSError):
        _terminal = os.fdopen(os.dup(2), "w", errors="backslashreplace")


def terminal_of_children() -> dict[str, str]:
    """Environment variables of child processes that show their progress where this process does."""
    return {TERMINAL: f"/proc/{os.getpid()}/fd/{_terminal.fileno()}"}


@contextmanager
def progress(
    label: str, total: int | None = None, unit: str = "row", start: int = 0, hidden: bool = False
) -> Iterator["tqdm[NoReturn]"]:
    """A bar with rate and remaining time on a terminal; elsewhere a plain line every ten seconds.

    `total` and `start` are in `unit`s. `hidden` shows nothing, as on all ranks but 0.
    """
    terminal = _terminal.isatty()
    with tqdm(
        total=total,
        initial=start,
        desc=label,
        unit=unit,
        unit_scale=total is None or total >= 10_000,
        file=_terminal if terminal else _Lines(_terminal),
        mininterval=0.5 if terminal else 10.0,
        maxinterval=10.0,
        dynamic_ncols=terminal,
        ncols=None if terminal else 100,
        leave=not terminal,
        delay=0.0 if terminal else 2.0,
        ascii=None if terminal else True,  # None: what the encoding of the terminal allows
        disable=hidden,
    ) as bar:
        yield bar
