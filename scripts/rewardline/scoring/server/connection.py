"""Connections that wait for no client for ever."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


def impatient_connection(seconds: float) -> type[H11Protocol]:
    """The class of HTTP connections that are closed when a request has begun and its head is not there in time.

    Also when a client takes that long to send the body of a request that has its reply already. uvicorn itself limits
    only how long a connection may idle between two requests.
    """

    class ImpatientConnection(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _watch(self) -> None:
            replying = self.cycle is not None and not self.cycle.response_complete
            if replying or self.timeout_keep_alive_task is not None:
                self._stop()
            elif self._deadline is None:
                self._deadline = self.loop.call_later(seconds, self.transport.close)

        def _stop(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return ImpatientConnection
