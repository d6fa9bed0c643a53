"""A web server whose files, headers and faults a test chooses."""

import base64
import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FileServer(ThreadingHTTPServer):
    """Serves `files`, with entity tags, dates or neither, and ranges."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.status: dict[str, int] = {}
        self.cut: list[int] = []
        """After how many bytes the next answers with content break off."""
        self.ranges = self.has_head = self.has_tags = self.has_length = True
        self.login: str | None = None
        self.header: dict[str, str] = {}
        """Headers of every answer."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """A client that leaves is no fault."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FileServer

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        server, path = self.server, self.path.partition("?")[0]
        server.requests.append(f"{self.command} {self.path}")
        server.headers.append(dict(self.headers))
        status = server.status.get(path, 200 if path in server.files else 404)
        if not (body or server.has_head):
            status = 405
        login = server.login and "Basic " + base64.b64encode(server.login.encode()).decode()
        if login and self.headers["Authorization"] != login:
            status = 401
        content = server.files.get(path, b"") if status == 200 else b"no"
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        headers = {"ETag": tag} if server.has_tags else {}
        begin = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if status == 200 and begin and server.ranges and self.headers["If-Range"] == tag:
            status, start = 206, int(begin[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content = content[start:]
            if not content:
                status, content = 416, b"no"
        if server.has_length:
            headers["Content-Length"] = str(len(content))
        else:
            headers["Transfer-Encoding"] = "chunked"
            content = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
        self.send_response(status)
        for name, value in {**headers, **server.header}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            cut = server.cut.pop(0) if server.cut and status in (200, 206) else None
            self.wfile.write(content[:cut])
            if cut is not None:
                self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def serving(port: int = 0) -> Iterator[FileServer]:
    """A server of files that runs until the block ends, on a free port if it is 0."""
    server = FileServer(port)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
