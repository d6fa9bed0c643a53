"""The frame around every stage's command line: logging, progress, and errors that a person can act on."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, Protocol, TextIO

from tqdm import tqdm

log = logging.getLogger("rewardline")
_terminal: TextIO = sys.stderr
TERMINAL = "REWARDLINE_TERMINAL"


class UserError(Exception):
    """Something the user can mend. Shown as one message that says what, where and how; never as a traceback."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


class ProgressBar(Protocol):
    """What `progress` hands out."""

    def update(self, n: int) -> object:
        """Count `n` more units as done."""

    def set_postfix_str(self, text: str, refresh: bool = True) -> object:
        """Show `text` behind the rate; without `refresh` when the bar is drawn next."""


class _Lines:
    """A stream for tqdm that turns each redrawn bar into a line of its own, for pipes and files."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if text := text.replace("\r", "").strip():
            self._stream.write(text + "\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def parser(doc: str | None) -> argparse.ArgumentParser:
    """An argument parser whose help is the script's docstring, with the option that every stage has."""
    result = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    result.add_argument("--log", type=Path, help="write messages to this file instead of the terminal")
    return result


def start_logging(path: Path | None, append: bool = False, keep_stdout: bool = False) -> None:
    """Send messages, and all that libraries print, to `path`; only progress stays on the terminal.

    Without a path messages go to stderr. `keep_stdout`: stdout is for the program's results, and stays what it is.
    """
    global _terminal
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _terminal = _open_terminal()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | (0 if append else os.O_TRUNC), 0o644)
        for stream in (sys.stderr,) if keep_stdout else (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(descriptor, 2 if stream is sys.stderr else 1)
        os.close(descriptor)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    log.handlers = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


def _open_terminal() -> TextIO:
    """The stream for progress: this program's own stderr, or that of the program which launched it."""
    try:
        return Path(os.environ[TERMINAL]).open("a", encoding="utf-8")
    except (KeyError, OSError):
        return os.fdopen(os.dup(2), "w")


def terminal_of_children() -> dict[str, str]:
    """What to add to the environment of programs that shall show their progress where this one does."""
    return {TERMINAL: f"/proc/{os.getpid()}/fd/{_terminal.fileno()}"}


@contextmanager
def progress(
    label: str, total: int | None = None, unit: str = "row", start: int = 0, hidden: bool = False
) -> Iterator[ProgressBar]:
    """A bar with rate and time left on a terminal; elsewhere a plain line every ten seconds.

    `total` and `start` are in `unit`s. `hidden` shows nothing, for all but one of several processes.
    """
    terminal = _terminal.isatty()
    bar: tqdm[Any] = tqdm(
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
        ascii=not terminal,
        disable=hidden,
    )
    try:
        yield bar
    finally:
        bar.close()


def run(main: Callable[[list[str] | None], int]) -> NoReturn:
    """Run a stage's `main` as the program: a `UserError` becomes one message and exit code 1."""
    try:
        code = main(None)
    except (UserError, OSError) as error:
        log.debug("", exc_info=True)
        _fail(explain(error) or "")
        code = 1
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def explain(error: BaseException) -> str | None:
    """What to tell a person of an error that is not the program's own: a `UserError`, or one of the system."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    return None


def _fail(message: str) -> None:
    if not log.handlers:
        start_logging(None)
    log.error("error: %s", message)
