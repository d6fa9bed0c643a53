"""A scorer behind HTTP, on Starlette and uvicorn: requests are checked, batched, scored and counted for Prometheus.

FastAPI would add no more than the parsing of bodies, but reads a body in full before it can be refused as too large.
"""

import asyncio
import gc
import hmac
import json
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import JsonValue
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rewardline.scoring.ensemble import AnyScorer
from rewardline.scoring.rows import UnscorableError
from rewardline.scoring.server.batcher import Batcher, FullError, count_answers, count_characters, score_items
from rewardline.scoring.server.limits import Limits
from rewardline.scoring.server.protocols import (
    ParsedRequest,
    Protocol,
    RequestError,
    openrlhf,
    rows,
    vllm_classify,
    vllm_pooling,
)

log = logging.getLogger(__name__)


def protocols(reads_names: bool) -> dict[str, Protocol]:
    """The protocol of each path; `reads_names`: see `rows`."""
    own = partial(rows, reads_names=reads_names)
    return {
        "/score": own,
        "/v1/score": own,
        "/get_reward": openrlhf,
        "/classify": vllm_classify,
        "/pooling": vllm_pooling,
    }


RETRY = {"Retry-After": "1"}


@dataclass
class _Held:
    """The characters that a request holds in memory."""

    characters: int = 0


class ServerMetrics:
    """The metrics for Prometheus."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter("rewardline_requests", "Requests by path and status", ["path", "status"], registry=own)
        self.seconds = Histogram(
            "rewardline_request_seconds", "From a request's arrival to its reply", ["path"], registry=own
        )
        self.answers = Counter("rewardline_answers", "Answers and texts scored", registry=own)
        self.tokens = Counter("rewardline_tokens", "Tokens scored, those of a prompt for each answer", registry=own)
        self.waiting = Gauge("rewardline_waiting_answers", "Answers that wait or are computed", registry=own)
        self.cut = Gauge("rewardline_cut_texts", "Prompts and texts cut at their beginning, since start", registry=own)
        sizes = [2**k for k in range(13)]
        self.batches = Histogram("rewardline_batch_answers", "Answers computed at once", buckets=sizes, registry=own)


class Service:
    """The endpoints of one scorer."""

    def __init__(self, scorer: AnyScorer, limits: Limits, token: bytes | None = None) -> None:
        """`token`: what clients must send as bearer token; None asks for none."""
        self._scorer = scorer
        self._limits = limits
        self._token = token
        self.metrics = ServerMetrics()
        self._batcher: Batcher | None = None
        self._active = 0
        self._characters = 0
        """Of all requests that are read or wait, a prompt's for each of its answers; bytes as long as they are read."""

    def app(self) -> Starlette:
        """The ASGI application."""
        known = protocols(self._scorer.reads_names)
        routes = [Route(path, partial(self._serve, protocol), methods=["POST"]) for path, protocol in known.items()]
        routes += [Route("/health", self._health), Route("/metrics", self._metrics)]
        return Starlette(routes=routes, lifespan=self._lifespan, exception_handlers={HTTPException: _refusal})

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        batcher = Batcher(
            partial(score_items, self._scorer),
            window=self._limits.window / 1000,
            batch=self._limits.batch,
            limit=self._limits.max_queue,
            on_batch=self.metrics.batches.observe,
        )
        async with batcher:
            self._batcher = batcher
            self.metrics.waiting.set_function(lambda: batcher.waiting)
            self.metrics.cut.set_function(lambda: self._scorer.cut)
            yield

    async def _serve(self, protocol: Protocol, request: Request) -> Response:
        start = perf_counter()
        path = request.url.path
        held = _Held()
        self._active += 1
        try:
            if self._active > self._limits.max_requests:
                raise HTTPException(503, "too many requests at once; try again", RETRY)
            self._authorize(request)
            parsed = self._parse(protocol, await self._body(request, held))
            self._hold(held, max(held.characters, count_characters(parsed.items)))
            response: Response = JSONResponse(await self._unless_gone(request, self._scored(parsed)))
        except HTTPException as error:
            response = await _refusal(request, error)
        except ClientDisconnect:
            response = Response(status_code=499)
        except Exception:
            log.exception("%s failed", path)
            response = JSONResponse({"error": "the server failed; its log says why"}, 500)
        finally:
            self._active -= 1
            self._characters -= held.characters
        self.metrics.requests.labels(path, response.status_code).inc()
        self.metrics.seconds.labels(path).observe(perf_counter() - start)
        return response

    def _authorize(self, request: Request) -> None:
        if self._token is None:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), self._token):
            reason = "needs the server's token as `Authorization: Bearer ...`"
            raise HTTPException(401, reason, {"WWW-Authenticate": "Bearer"})

    def _hold(self, held: "_Held", characters: int) -> None:
        """Have a request hold so many characters in memory, unless they are too many."""
        most = self._limits.max_characters
        if characters > most:
            reason = f"has {characters} characters, a prompt's for each answer; send at most {most} at once"
            raise HTTPException(413, reason)
        if self._characters - held.characters + characters > most:
            raise HTTPException(429, "too much text waits already; try again", {**RETRY, "Connection": "close"})
        self._characters += characters - held.characters
        held.characters = characters

    async def _body(self, request: Request, held: "_Held") -> JsonValue:
        """The JSON of a request, of which no more than the limit is read."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(415, "send JSON, with `Content-Type: application/json`")
        most = self._limits.max_body
        reason = f"the body is larger than {most} bytes; send fewer answers at once"
        large = HTTPException(413, reason, {"Connection": "close"})
        length = int(request.headers.get("content-length", "0"))  # uvicorn refuses one that is no number
        if length > most:
            raise large
        self._hold(held, length)  # before a byte of the body is read
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.max_seconds):
                async for part in request.stream():
                    body += part
                    if len(body) > most:
                        raise large
                    self._hold(held, max(held.characters, len(body)))
        except TimeoutError:
            reason = f"the body took longer than {self._limits.max_seconds:g} seconds; send it faster"
            raise HTTPException(408, reason, {"Connection": "close"}) from None
        gc.disable()  # it would search the growing lists of a body of millions of them again and again
        try:
            value: JsonValue = json.loads(body)
            return value
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, f"the body is not JSON: {error}") from error
        finally:
            gc.enable()

    def _parse(self, protocol: Protocol, body: JsonValue) -> ParsedRequest:
        self._check_answers(len(body) if isinstance(body, list) else 0)  # rows that cannot be scored count too
        try:
            parsed = protocol(body, self._scorer.name)
        except (RequestError, UnscorableError) as error:
            raise HTTPException(422, str(error)) from error
        self._check_answers(count_answers(parsed.items))
        return parsed

    def _check_answers(self, count: int) -> None:
        if count > self._limits.max_answers:
            raise HTTPException(413, f"has {count} answers; send at most {self._limits.max_answers} at once")

    async def _unless_gone(self, request: Request, reply: Coroutine[None, None, object]) -> object:
        """The reply, or `ClientDisconnect`: a request that its client gave up, and repeats, is not computed twice."""
        scoring, gone = asyncio.ensure_future(reply), asyncio.ensure_future(request.receive())
        try:
            await asyncio.wait((scoring, gone), return_when=asyncio.FIRST_COMPLETED)
            if not scoring.done():
                raise ClientDisconnect
            return scoring.result()
        finally:
            scoring.cancel()
            gone.cancel()

    async def _scored(self, parsed: ParsedRequest) -> object:
        assert self._batcher is not None
        try:
            scored = await self._batcher.submit(parsed.items) if parsed.items else []
            reply = parsed.reply(scored)
        except FullError as error:
            raise HTTPException(429, "too many answers wait already; try again", RETRY) from error
        except RequestError as error:
            raise HTTPException(422, str(error)) from error
        self.metrics.answers.inc(sum(len(one.scores) for one in scored if isinstance(one.scores, list)))
        self.metrics.tokens.inc(sum(one.tokens for one in scored))
        return reply

    async def _health(self, _: Request) -> Response:
        """Whether the server can score: 200, or 503 after a batch that the model could not compute."""
        healthy = self._batcher is not None and self._batcher.healthy
        state = {"status": "ok" if healthy else "failing", "model": self._scorer.name}
        return JSONResponse({**state, "max_length": self._scorer.max_length}, 200 if healthy else 503)

    async def _metrics(self, request: Request) -> Response:
        self._authorize(request)
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)


async def _refusal(_: Request, error: Exception) -> Response:
    """The reply to a request that is refused."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
