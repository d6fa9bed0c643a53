"""Exit codes and signal handlers of training programs."""

import os
import signal
from collections.abc import Callable

PREEMPTED = 75
"""Exit code after a SIGTERM (EX_TEMPFAIL of sysexits.h): work is saved, and the same command resumes from it."""
INTERRUPTED = 130
"""Exit code after a Ctrl-C, as of any program that a SIGINT ends."""


def on_stop(handler: Callable[[int, object], None]) -> None:
    """Have a SIGTERM and a Ctrl-C call `handler` with the signal's number."""
    signal.signal(signal.SIGTERM, handler)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as in the background of a shell
        signal.signal(signal.SIGINT, handler)


def leave(number: int, _: object) -> None:
    """End on a SIGTERM or a Ctrl-C: the handler while a training run has nothing to save.

    At once and like a kill, as an exception would be lost in a library that catches all, or in a finalizer.
    """
    os._exit(INTERRUPTED if number == signal.SIGINT else PREEMPTED)
