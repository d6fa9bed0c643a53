"""Command lines of stages: options, logging, and error messages."""

import argparse
import gc
import io
import logging
import os
import resource
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from rewardline.core import progress
from rewardline.core.errors import UserError, explain, first_line, lack_of_memory
from rewardline.core.files import local_path

log = logging.getLogger("rewardline")
S = TypeVar("S", bound=BaseModel)
COLLECT_AFTER = 20_000
"""New objects after which Python looks for cycles among the young ones.

By default it does after some hundreds, which takes a quarter of the time to import torch, transformers and deepspeed:
almost all of the million objects that they make are kept.
"""


class StageParser(argparse.ArgumentParser):
    """The options of a stage: `--log`, and `--settings` if it has settings. Its help is the program's docstring."""

    def __init__(self, doc: str | None, settings: type[BaseModel] | None = None) -> None:
        """`settings`: class of the value of `--settings`."""
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
        self.register("type", Path, local_path)
        self.add_argument("--log", type=Path, help="write messages to this file instead of the terminal")
        if settings is not None:
            self.add_argument(
                "--settings", required=True, type=partial(parse_settings, settings), help="settings as JSON, or @FILE"
            )

    def start(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """The parsed options; messages go to `--log` from now on."""
        options = self.parse_args(arguments)
        start_logging(options.log)
        return options


def parse_settings(kind: type[S], text: str) -> S:
    """Settings from the value of `--settings`: a JSON object, or `@` and the path of a file with one.

    Raises:
        UserError: it is not JSON, or has wrong keys or values.
    """
    source = local_path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
    try:
        return kind.model_validate_json(source)
    except ValidationError as error:
        raise UserError(f"--settings are not those of this stage: {first_line(error)}") from error


def start_logging(path: Path | None, append: bool = False, keep_stdout: bool = False) -> None:
    """Send messages, and all that libraries print, to the file `path`; only progress bars stay on the terminal.

    Without a path messages go to stderr. `keep_stdout`: stdout has the program's results and is not redirected.
    """
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        progress.keep_terminal()
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


def _failed(message: str) -> int:
    if not log.handlers:
        start_logging(None)
    log.error("error: %s", message)
    return 1


def _message(error: BaseException) -> str | None:
    """What to tell the user of an error; None for one that is a fault of the program."""
    if isinstance(error, FileNotFoundError) and not _has_working_directory():
        return "the working directory has been deleted; change to one that exists"
    if (message := explain(error)) is not None:
        return message
    if isinstance(error, MemoryError | SystemError | ImportError | RuntimeError):
        lack = lack_of_memory(error)
        if isinstance(error, SystemError) and memory_limit() is not None:
            lack = first_line(error)
        return lack and f"there is not enough memory: {lack}{_memory_limit()}"
    return None


def _has_working_directory() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


def _memory_limit() -> str:
    if (limit := memory_limit()) is None:
        return "; free some, or let fewer jobs run at once"
    return f"; the address space of a process is limited to {limit} MiB: raise it with `ulimit -v`"


def memory_limit() -> int | None:
    """The MiB that `ulimit -v` limits the address space of a process to; None if it does not."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit >> 20


def print_anything() -> None:
    """Have stdout print what its encoding lacks as escapes, as stderr does, instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def run(main: Callable[[list[str] | None], int]) -> NoReturn:
    """Run `main` and exit with its code; an error that the user can fix is one message and exit code 1."""
    print_anything()
    gc.set_threshold(COLLECT_AFTER)
    try:
        code = main(None)
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        if (message := _message(error)) is None:
            raise
        code = _failed(message)
    gc.freeze()  # the interpreter would look for cycles among all objects again before it ends, for more than a second
    sys.exit(code)


def _show_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    if (message := _message(error)) is None:
        sys.__excepthook__(kind, error, traceback)
    else:
        _failed(message)


# Programs import their libraries before they call `run`, and that may fail for the same reasons.
sys.excepthook = _show_uncaught
