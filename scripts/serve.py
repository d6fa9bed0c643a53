"""Serve the scores of a reward model over HTTP, for trainers that ask a remote one. See docs/serving.md.

    python scripts/serve.py --model results/models/demo-seed0
    curl -s localhost:8000/score -H 'Content-Type: application/json' -d '{"prompt": "2 + 2?", "answers": ["4.", "5."]}'

It listens on this machine alone unless --host says otherwise. If the environment variable REWARDLINE_TOKEN is set,
clients must send its value as bearer token. On a SIGTERM it answers what it has accepted and ends.
"""

import ipaddress
import os
import signal
import socket

from rewardline.core.cli import StageParser, log, run
from rewardline.core.errors import UserError
from rewardline.scoring.options import add_model_options, load_scorer

TOKEN = "REWARDLINE_TOKEN"
GRACE = 60  # seconds that requests have to end after a SIGTERM


def bound(host: str, port: int) -> socket.socket:
    """A socket of that address, taken but not listening: clients are refused until the model is there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: cannot listen there: {error}; choose another") from error
    return found


def listen(taken: socket.socket) -> None:
    """Let clients in. Another server may have come first, where both had taken the address."""
    try:
        taken.listen(2048)
    except OSError as error:
        host, port = taken.getsockname()[:2]
        raise UserError(f"--host {host} --port {port}: cannot listen there: {error}; choose another") from error


def loopback(listening: socket.socket) -> bool:
    """Whether a socket is for this machine alone."""
    return ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


def main(argv: list[str] | None = None) -> int:
    """Serve until a signal."""
    options = StageParser(__doc__)
    add_model_options(options)
    options.add_argument("--host", default="127.0.0.1", help="address to listen on; 127.0.0.1 is this machine alone")
    options.add_argument("--port", type=int, default=8000, help="port to listen on; 0 takes a free one")
    options.add_argument("--max-body", type=int, default=8 << 20, metavar="BYTES", help="largest body of a request")
    options.add_argument("--max-answers", type=int, default=1024, metavar="N", help="most answers of a request")
    options.add_argument("--max-queue", type=int, default=4096, metavar="N", help="most answers that wait; 429 beyond")
    options.add_argument("--max-requests", type=int, default=1024, metavar="N", help="most at once; 503 beyond")
    options.add_argument(
        "--max-seconds", type=float, default=30, metavar="S", help="longest for a body to come; 408 beyond"
    )
    options.add_argument("--batch", type=int, default=512, metavar="N", help="most answers computed at once")
    options.add_argument("--window", type=float, default=5, metavar="MS", help="how long an idle model waits for more")
    args = options.start(argv)
    for name in ("max_body", "max_answers", "max_queue", "max_requests", "batch"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1")
    if args.max_queue < args.max_answers:
        raise UserError(f"--max-queue {args.max_queue}: must hold a request's --max-answers {args.max_answers}")
    if not 0 <= args.window <= 10_000:
        raise UserError(f"--window {args.window}: must be from 0 to 10000 milliseconds")
    if not 0 < args.max_seconds < GRACE:
        raise UserError(f"--max-seconds {args.max_seconds}: must be above 0 and below {GRACE}")
    if not 0 <= args.port <= 65535:
        raise UserError(f"--port {args.port}: must be from 0 to 65535")
    token = os.environ.get(TOKEN)
    if token is not None and not token.strip():
        raise UserError(f"{TOKEN} is set but empty; unset it, or give it a value")
    listening = bound(args.host, args.port)
    if token is None and not loopback(listening):
        log.warning("anyone who reaches %s can ask for scores; set %s to ask for a token", args.host, TOKEN)
    scorer = load_scorer(args)

    import uvicorn

    from rewardline.scoring.server.app import Limits, Service

    limits = Limits(
        body=args.max_body,
        answers=args.max_answers,
        queue=args.max_queue,
        requests=args.max_requests,
        seconds=args.max_seconds,
        window=args.window / 1000,
        batch=args.batch,
    )
    app = Service(scorer, limits, os.fsencode(token.strip()) if token else None).app()
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    listen(listening)
    host, port = listening.getsockname()[:2]
    log.info("serving %s on http://%s:%d", args.model, f"[{host}]" if ":" in host else host, port)
    # uvicorn raises the signal again after it has ended well; that end is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listening])
    log.info("stopped")
    return 0


if __name__ == "__main__":
    run(main)
