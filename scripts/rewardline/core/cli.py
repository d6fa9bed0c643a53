"""The command line of a stage: options, logging, and errors as messages."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from rewardline.core import progress
from rewardline.core.errors import UserError, explain

log = logging.getLogger("rewardline")


def parser(doc: str | None) -> argparse.ArgumentParser:
    """An argument parser whose help is the script's docstring, with the option that every stage has."""
    result = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    result.add_argument("--log", type=Path, help="write messages to this file instead of the terminal")
    return result


def settings_argument(text: str) -> dict[str, Any]:
    """The value of a `--settings` option: a JSON object, or `@` and the path of a file that holds one."""
    source = Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
    try:
        value = json.loads(source)
    except json.JSONDecodeError as error:
        raise UserError(f"--settings is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError("--settings must be a JSON object")
    return value


def start_logging(path: Path | None, append: bool = False, keep_stdout: bool = False) -> None:
    """Send messages, and all that libraries print, to `path`; only progress stays on the terminal.

    Without a path messages go to stderr. `keep_stdout`: stdout is for the program's results, and stays what it is.
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


def _fail(message: str) -> None:
    if not log.handlers:
        start_logging(None)
    log.error("error: %s", message)
