"""The socket that the server listens on, and the server loop until a SIGTERM."""

import gc
import ipaddress
import logging
import signal
import socket
from typing import TYPE_CHECKING

from rewardline.core.errors import UserError
from rewardline.scoring.server.limits import GRACE

if TYPE_CHECKING:
    from starlette.applications import Starlette

log = logging.getLogger(__name__)
_COLLECT_AFTER = 700
"""New objects after which Python looks for cycles: those of a request that fails may hold its body."""


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address, not yet listening: clients are refused until the model is loaded.

    Raises:
        UserError: the address cannot be bound.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port}: must be from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise _refused(host, port, error) from error
    return bound


def listen(bound: socket.socket) -> None:
    """Accept clients. Where two servers are bound to the address, only the first can listen.

    Raises:
        UserError: another program listens there.
    """
    try:
        bound.listen(2048)
    except OSError as error:
        host, port = bound.getsockname()[:2]
        raise _refused(host, port, error) from error


def _refused(host: str, port: int, error: OSError) -> UserError:
    return UserError(f"--host {host} --port {port}: cannot listen there: {error}; choose another")


def is_loopback(bound: socket.socket) -> bool:
    """Whether a socket is for this machine alone."""
    return ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback


def run_server(app: "Starlette", bound: socket.socket, model: str, max_seconds: float) -> None:
    """Serve requests until a SIGTERM or SIGINT.

    `model`: its name for the log; `max_seconds`: how long a client may take to send the head of a request.
    """
    import uvicorn

    from rewardline.scoring.server.connection import impatient_connection

    config = uvicorn.Config(
        app,
        http=impatient_connection(max_seconds),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    gc.freeze()  # the model and the libraries stay
    gc.set_threshold(_COLLECT_AFTER)
    listen(bound)
    host, port = bound.getsockname()[:2]
    log.info("serving %s on http://%s:%d", model, f"[{host}]" if ":" in host else host, port)
    # uvicorn raises the signal again after a graceful shutdown, which is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    uvicorn.Server(config).run(sockets=[bound])
    log.info("stopped")
