"""Files on web servers, through the standard library: proxies as in the environment, credentials from ~/.netrc."""

import base64
import http.client
import netrc
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from rewardline.core.errors import UserError, first_line
from rewardline.core.files import local_path
from rewardline.data.remote.addresses import shown
from rewardline.data.remote.versions import NotReachableError, NotThereError, Version

TIMEOUT: Final = 10.0
"""Seconds until a server that does not answer counts as unreachable."""
_BLOCK: Final = 1 << 20
_NO_HEAD: Final = (400, 403, 405, 501)
"""What servers answer that have no HEAD."""


def look_up(address: str) -> Version:
    """The version of the file; raises as `open_file`."""
    try:
        with _opened(address, "HEAD") as response:
            return _version(response)
    except _RefusedError as error:
        if error.status not in _NO_HEAD:
            raise
    with _opened(address) as response:
        return _version(response)


@contextmanager
def open_file(address: str, start: int, version: Version) -> Iterator[tuple[int, Iterator[bytes]]]:
    """The position of the first byte, and blocks of bytes from there on.

    The position is `start` if the server can begin there and the file is still of this version, else 0.

    Raises:
        NotThereError, NotReachableError: also while blocks are read.
    """
    state = version.etag or version.modified
    headers = {"Range": f"bytes={start}-", "If-Range": state} if start and state else {}
    with ExitStack() as stack:
        try:
            response = stack.enter_context(_opened(address, headers=headers))
        except _RefusedError as error:  # of a length that nothing says, all is there
            if not headers or error.status != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            response = stack.enter_context(_opened(address))
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise UserError(
                f"{shown(address)}: the server sends it with Content-Encoding {response.headers['Content-Encoding']}, "
                "though asked not to; download it and write the path of the copy"
            )
        yield start if response.status == http.client.PARTIAL_CONTENT else 0, _blocks(address, response)


class _RefusedError(NotReachableError):
    """The server answers, but does not give the file."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def _blocks(address: str, response: http.client.HTTPResponse) -> Iterator[bytes]:
    with _explained(address):
        while block := response.read(_BLOCK):
            yield block
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)


@contextmanager
def _opened(
    address: str, method: str = "GET", headers: dict[str, str] | None = None
) -> Iterator[http.client.HTTPResponse]:
    """The answer to a request. Content is not asked for compressed, so that its length is that of the file."""
    given = {"Accept-Encoding": "identity", "User-Agent": "rewardline", **(headers or {})}
    request = Request(quote(address, safe="%/:=&?~#+!$,;'@()*[]"), headers=given, method=method)
    if credentials := _credentials(urlsplit(address).hostname or ""):
        request.add_unredirected_header("Authorization", credentials)  # which no other host gets
    with _explained(address):
        response = urlopen(request, timeout=TIMEOUT)
    with response:
        yield response


def _version(response: http.client.HTTPResponse) -> Version:
    get = response.headers.get
    length = get("Content-Length") if get("Content-Encoding", "identity") == "identity" else None
    size = int(length) if length and length.isdecimal() else None
    return Version(etag=get("ETag"), modified=None if get("ETag") else get("Last-Modified"), size=size)


def _credentials(host: str) -> str | None:
    """The value of the header for a host in ~/.netrc, or in the file that NETRC names."""
    path = local_path(os.environ.get("NETRC", "~/.netrc"))
    try:
        found = netrc.netrc(path).authenticators(host)
    except OSError:
        return None
    except netrc.NetrcParseError as error:
        raise UserError(f"{path} cannot be read: line {error.lineno}. Correct it") from None  # it may quote a password
    return found and "Basic " + base64.b64encode(f"{found[0]}:{found[2]}".encode()).decode()


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Turn errors of a request into errors with a remedy."""
    name = shown(address)
    try:
        yield
    except HTTPError as error:
        error.close()
        if error.code in (404, 410):
            raise NotThereError(f"{name} is not there (HTTP {error.code}); correct the address") from error
        if error.code in (401, 403, 407):
            raise _RefusedError(
                f"{name}: access is refused (HTTP {error.code}). Put the credentials of its host into ~/.netrc, or into"
                " the file that NETRC names",
                error.code,
            ) from error
        raise _RefusedError(f"{name}: the server answers HTTP {error.code}; try again later", error.code) from error
    except (URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) and isinstance(error.reason, BaseException) else error
        raise NotReachableError(
            f"{name} cannot be reached: {first_line(reason)}. Check the address and the network (proxies: HTTPS_PROXY),"
            " or copy the file here and write its path"
        ) from error
