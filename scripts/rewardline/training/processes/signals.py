"""Exit codes and signal handlers of training programs."""

import ctypes
import os
import signal
from collections.abc import Callable

PREEMPTED = 75
"""Exit code after a SIGTERM (EX_TEMPFAIL of sysexits.h): work is saved, and the same command resumes from it."""
INTERRUPTED = 130
"""Exit code after a Ctrl-C, as of any program that a SIGINT ends."""
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however it ends."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def leave_on_terminate() -> None:
    """Until a training run has its own way to save, end on a SIGTERM with the code that asks for a retry.

    A Ctrl-C ends the program too. Both at once and like a kill, as an exception would be lost in a library that
    catches all, or in a finaliser.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(PREEMPTED))
    interrupt_at_once()


def interrupt_at_once() -> None:
    """From now on a Ctrl-C ends the program at once."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as in the background of a shell
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))


def on_stop(handler: Callable[[int, object], None]) -> None:
    """Have a SIGTERM and a Ctrl-C call `handler` with the signal's number."""
    signal.signal(signal.SIGTERM, handler)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)
