"""Errors that the user can fix."""

from pydantic import ValidationError


class UserError(Exception):
    """A problem that the user can fix: one message that says what, where and how, shown without a traceback."""


def first_line(error: BaseException) -> str:
    """The message of an error in one line: its first line, or the name of its class if it has none.

    Of a pydantic `ValidationError` it has the first three problems, each with its key.
    """
    if isinstance(error, ValidationError):
        problems = [(".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors()]
        shown = [f"{key}: {message}" if key else message for key, message in problems[:3]]
        more = [f"and {len(problems) - 3} more"] if len(problems) > 3 else []
        return "; ".join([*shown, *more])
    return str(error).strip().partition("\n")[0] or type(error).__name__


def explain(error: BaseException) -> str | None:
    """The message to show for a `UserError` or an error of the operating system; None for all others."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    return None
