"""Errors that a person can act on."""


class UserError(Exception):
    """Something the user can mend. Shown as one message that says what, where and how; never as a traceback."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def explain(error: BaseException) -> str | None:
    """What to tell a person of an error that is not the program's own: a `UserError`, or one of the system."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    return None
