"""What the server accepts, and how it makes batches: the options of `serve.py`."""

import argparse
from dataclasses import dataclass

from rewardline.core.errors import UserError

GRACE = 60
"""Seconds that requests have to end after a SIGTERM."""


@dataclass(frozen=True)
class Limits:
    """Bytes of a body, answers of a request, answers that wait, requests at once, and seconds for a body to arrive.

    `window`: seconds that an idle model waits for further requests; `batch`: most answers computed at once.
    """

    body: int
    answers: int
    queue: int
    requests: int
    seconds: float
    window: float
    batch: int


def add_limit_options(options: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = options.add_argument
    add("--max-body", type=int, default=8 << 20, metavar="BYTES", help="largest body of a request")
    add("--max-answers", type=int, default=1024, metavar="N", help="most answers of a request")
    add("--max-queue", type=int, default=4096, metavar="N", help="most answers that wait; 429 beyond")
    add("--max-requests", type=int, default=1024, metavar="N", help="most at once; 503 beyond")
    add("--max-seconds", type=float, default=30, metavar="S", help="longest for a body to arrive; 408 beyond")
    add("--batch", type=int, default=512, metavar="N", help="most answers computed at once")
    add("--window", type=float, default=5, metavar="MS", help="how long an idle model waits for further requests")


def limits_of(args: argparse.Namespace) -> Limits:
    """The limits that the options give.

    Raises:
        UserError: an option has a value that makes no server.
    """
    for name in ("max_body", "max_answers", "max_queue", "max_requests", "batch"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1")
    if args.max_queue < args.max_answers:
        raise UserError(f"--max-queue {args.max_queue}: must hold a request's --max-answers {args.max_answers}")
    if not 0 <= args.window <= 10_000:
        raise UserError(f"--window {args.window}: must be from 0 to 10000 milliseconds")
    if not 0 < args.max_seconds < GRACE:
        raise UserError(f"--max-seconds {args.max_seconds}: must be above 0 and below {GRACE}")
    return Limits(
        body=args.max_body,
        answers=args.max_answers,
        queue=args.max_queue,
        requests=args.max_requests,
        seconds=args.max_seconds,
        window=args.window / 1000,
        batch=args.batch,
    )
