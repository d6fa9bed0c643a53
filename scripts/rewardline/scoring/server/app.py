"""A scorer behind HTTP: requests are checked, batched and scored, and counted for Prometheus."""

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rewardline.scoring.scorer import Scorer
from rewardline.scoring.server.batcher import Batcher, FullError, count_answers, score_works
from rewardline.scoring.server.protocols import (
    Parsed,
    RequestError,
    Shape,
    openrlhf,
    rows,
    vllm_classify,
    vllm_pooling,
)

log = logging.getLogger(__name__)

SHAPES: dict[str, Shape] = {
    "/score": rows,
    "/v1/score": rows,
    "/get_reward": openrlhf,
    "/classify": vllm_classify,
    "/pooling": vllm_pooling,
}


@dataclass(frozen=True)
class Limits:
    """What the server takes: bytes of a body, answers of a request, answers that wait, requests at once.

    `seconds`: how long a body may take to come. And how it batches them: `window` in seconds; `batch` is how many
    answers are computed at once.
    """

    body: int = 8 << 20
    answers: int = 1024
    queue: int = 4096
    requests: int = 1024
    seconds: float = 30
    window: float = 0.005
    batch: int = 512


class RefusedError(Exception):
    """A request that is not served: its status, and why."""

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Metrics:
    """What is counted."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: Any = {"registry": self.registry}
        self.requests = Counter("rewardline_requests", "Requests by path and status", ["path", "status"], **own)
        self.seconds = Histogram("rewardline_request_seconds", "From a request's arrival to its reply", ["path"], **own)
        self.answers = Counter("rewardline_answers", "Answers and texts scored", **own)
        self.tokens = Counter("rewardline_tokens", "Tokens of what was scored, prompts for each answer", **own)
        self.waiting = Gauge("rewardline_waiting_answers", "Answers that wait or are computed", **own)
        self.cut = Gauge(
            "rewardline_cut_texts", "Prompts and whole texts cut at their beginning, since the start", **own
        )
        sizes = [2**k for k in range(13)]
        self.batches = Histogram("rewardline_batch_answers", "Answers computed at once", buckets=sizes, **own)


class Service:
    """The endpoints of one scorer."""

    def __init__(self, scorer: Scorer, limits: Limits, token: bytes | None = None) -> None:
        """`token`: what clients must send as bearer token; None asks for none."""
        self._scorer = scorer
        self._limits = limits
        self._token = token
        self.metrics = Metrics()
        self._batcher: Batcher | None = None
        self._active = 0

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [Route(path, partial(self._serve, shape), methods=["POST"]) for path, shape in SHAPES.items()]
        routes += [Route("/health", self._health), Route("/metrics", self._metrics)]
        return Starlette(routes=routes, lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        batcher = Batcher(
            partial(score_works, self._scorer),
            window=self._limits.window,
            most=self._limits.batch,
            limit=self._limits.queue,
            on_batch=self.metrics.batches.observe,
        )
        async with batcher:
            self._batcher = batcher
            self.metrics.waiting.set_function(lambda: batcher.waiting)
            self.metrics.cut.set_function(lambda: self._scorer.cut)
            yield

    async def _serve(self, shape: Shape, request: Request) -> Response:
        start = perf_counter()
        path = request.url.path
        self._active += 1
        try:
            if self._active > self._limits.requests:
                raise RefusedError(503, "too many requests at once; try again", Retry_After="1")
            self._authorize(request)
            parsed = self._parse(shape, await self._body(request))
            response: Response = JSONResponse(await self._unless_gone(request, self._scored(parsed)))
        except RefusedError as refused:
            response = JSONResponse({"error": str(refused)}, refused.status, refused.headers)
        except ClientDisconnect:
            response = Response(status_code=499)
        except Exception:
            log.exception("%s failed", path)
            response = JSONResponse({"error": "the server failed; its log says why"}, 500)
        finally:
            self._active -= 1
        self.metrics.requests.labels(path, response.status_code).inc()
        self.metrics.seconds.labels(path).observe(perf_counter() - start)
        return response

    def _authorize(self, request: Request) -> None:
        if self._token is None:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), self._token):
            raise RefusedError(
                401, "needs the server's token as `Authorization: Bearer ...`", WWW_Authenticate="Bearer"
            )

    async def _body(self, request: Request) -> Any:
        """The JSON of a request, which is not read further than the limit."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RefusedError(415, "send JSON, with `Content-Type: application/json`")
        most = self._limits.body
        large = RefusedError(
            413, f"the body is larger than {most} bytes; send fewer answers at once", Connection="close"
        )
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > most:
            raise large
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.seconds):
                async for part in request.stream():
                    body += part
                    if len(body) > most:
                        raise large
        except TimeoutError:
            reason = f"the body took longer than {self._limits.seconds:g} seconds; send it faster"
            raise RefusedError(408, reason, Connection="close") from None
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise RefusedError(400, f"the body is not JSON: {error}") from error

    def _parse(self, shape: Shape, body: Any) -> Parsed:
        try:
            parsed = shape(body, self._scorer.name)
        except RequestError as error:
            raise RefusedError(422, str(error)) from error
        count = count_answers(parsed.works)
        if count > self._limits.answers:
            raise RefusedError(413, f"has {count} answers; send at most {self._limits.answers} at once")
        return parsed

    async def _unless_gone(self, request: Request, reply: Coroutine[Any, Any, Any]) -> Any:
        """The reply, or `ClientDisconnect`: what a trainer has given up on, and asks again, is not computed twice."""
        scoring, gone = asyncio.ensure_future(reply), asyncio.ensure_future(request.receive())
        try:
            await asyncio.wait((scoring, gone), return_when=asyncio.FIRST_COMPLETED)
            if not scoring.done():
                raise ClientDisconnect
            return scoring.result()
        finally:
            scoring.cancel()
            gone.cancel()

    async def _scored(self, parsed: Parsed) -> Any:
        assert self._batcher is not None
        try:
            found = await self._batcher.submit(parsed.works) if parsed.works else []
            reply = parsed.reply(found)
        except FullError as error:
            raise RefusedError(429, "too many answers wait already; try again", Retry_After="1") from error
        except RequestError as error:
            raise RefusedError(422, str(error)) from error
        self.metrics.answers.inc(sum(len(one.scores) for one in found if isinstance(one.scores, list)))
        self.metrics.tokens.inc(sum(one.tokens for one in found))
        return reply

    async def _health(self, _: Request) -> Response:
        """Whether scores can be had: 200, or 503 after a batch that the model could not compute."""
        healthy = self._batcher is not None and self._batcher.healthy
        state = {"status": "ok" if healthy else "failing", "model": self._scorer.name}
        return JSONResponse({**state, "max_length": self._scorer.max_length}, 200 if healthy else 503)

    async def _metrics(self, request: Request) -> Response:
        try:
            self._authorize(request)
        except RefusedError as refused:
            return JSONResponse({"error": str(refused)}, refused.status, refused.headers)
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)
