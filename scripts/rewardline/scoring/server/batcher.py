"""Requests that arrive together are scored together: a queue of bounded length, and one thread for the model."""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

from rewardline.data.turns import turns_of
from rewardline.scoring.ensemble import AnyScorer
from rewardline.scoring.rows import PromptAnswers, UnscorableError, columns
from rewardline.tokens.store import Comparison

_CHARACTERS_OF_TOKEN, _CHARACTERS_OF_TURN = 8, 32
"""As how many characters a token id counts against the limit of memory, and the markers around a turn."""


class FullText(NamedTuple):
    """A complete text to score, prompt and answer; `ended`: see `tokens.published_text.TextEncoder`."""

    text: str
    ended: bool


class TokenIds(NamedTuple):
    """The tokens of a complete text to score, of the model's own tokenizer."""

    ids: list[int]


Item = PromptAnswers | FullText | TokenIds
"""What is scored; a request has one or several."""


class Scored(NamedTuple):
    """The scores of an item, or why there are none; `tokens` is the number of tokens of its texts."""

    scores: list[float] | UnscorableError
    tokens: int


class FullError(Exception):
    """The queue is full."""


def count_answers(items: Sequence[Item]) -> int:
    """The number of answers of some items; a text counts as one."""
    return sum(len(item.answers) if isinstance(item, PromptAnswers) else 1 for item in items)


def count_characters(items: Sequence[Item]) -> int:
    """The characters of the texts of some items: a prompt, with its tools, and each of its answers is a text."""
    return sum(map(_characters, items))


def _characters(item: Item) -> int:
    if isinstance(item, FullText):
        return len(item.text)
    if isinstance(item, TokenIds):
        return _CHARACTERS_OF_TOKEN * len(item.ids)
    prompt = sum(len(turn["content"]) + _CHARACTERS_OF_TURN for turn in item.prompt)
    if item.inputs:  # which the chat template may write before each answer
        prompt += len(json.dumps([item.inputs.tools, dict(item.inputs.variables)]))
    answers = (_CHARACTERS_OF_TURN * len(turns_of(answer)) + len(answer) for answer in item.answers)
    return len(item.answers) * prompt + sum(answers)


def score_items(scorer: AnyScorer, items: Sequence[Item]) -> list[Scored]:
    """Score items together, in the order given."""
    prompts = [item for item in items if isinstance(item, PromptAnswers)]
    answers = iter(scorer.encode(*columns(prompts)))
    texts: dict[bool, list[str]] = {False: [], True: []}
    for item in items:
        if isinstance(item, FullText):
            texts[item.ended].append(item.text)
    full = {ended: iter(scorer.encode_texts(texts[ended], ended)) for ended in texts}
    ids = iter(scorer.encode_ids([item.ids for item in items if isinstance(item, TokenIds)]))
    encoded = []
    for item in items:
        of_text = full[item.ended] if isinstance(item, FullText) else ids
        encoded.append(next(answers if isinstance(item, PromptAnswers) else of_text))
    tokens = [
        sum(len(item.prefix) + len(tail) for tail in item.tails) if isinstance(item, Comparison) else 0
        for item in encoded
    ]
    return [Scored(*pair) for pair in zip(scorer.score_encoded(encoded), tokens, strict=True)]


@dataclass(eq=False)
class _Request:
    items: Sequence[Item]
    size: int
    result: asyncio.Future[list[Scored]]


class Batcher:
    """Collects requests into batches for the model's thread; an async context manager.

    Requests that arrive while the model computes are the next batch; one that finds it idle waits `window` seconds for
    others. `batch`: most answers of a batch; `limit`: most answers that wait or are computed.
    """

    def __init__(
        self,
        score: Callable[[Sequence[Item]], list[Scored]],
        *,
        window: float = 0.005,
        batch: int = 512,
        limit: int = 4096,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`score` is called in the model's thread; `on_batch` gets the number of answers of each batch."""
        self._score = score
        self._window = window
        self._batch = batch
        self._limit = limit
        self._on_batch = on_batch
        self._queue: deque[_Request] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._loop: asyncio.Task[None] | None = None
        self.waiting = 0
        """Answers in the queue or in computation."""
        self.healthy = True
        """Whether the model could compute the last batch."""

    async def __aenter__(self) -> "Batcher":
        self._loop = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None:
            self._loop.cancel()
            with suppress(asyncio.CancelledError):
                await self._loop
        for request in self._queue:
            request.result.cancel()
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def submit(self, items: Sequence[Item]) -> list[Scored]:
        """The scores of a request, once they are computed. One that is cancelled while it waits is not computed.

        Raises:
            FullError: too many answers wait already.
        """
        size = count_answers(items)
        if self.waiting + size > self._limit:
            raise FullError
        request = _Request(items, size, asyncio.get_running_loop().create_future())
        self._queue.append(request)
        self.waiting += size
        self._arrived.set()
        try:
            return await request.result
        finally:
            if request in self._queue:
                self._queue.remove(request)
                self.waiting -= size

    async def _run(self) -> None:
        while True:
            if not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
                if self.waiting < self._batch:
                    await asyncio.sleep(self._window)
                if not self._queue:
                    continue
            batch = [self._queue.popleft()]
            size = batch[0].size
            while self._queue and size + self._queue[0].size <= self._batch:
                batch.append(self._queue.popleft())
                size += batch[-1].size
            self._on_batch(size)
            try:
                await self._compute(batch)
            finally:
                self.waiting -= size

    async def _compute(self, batch: list[_Request]) -> None:
        """Score requests together; where that fails, each alone, so that none fails because of another."""
        items = [item for request in batch for item in request.items]
        try:
            scored = await asyncio.get_running_loop().run_in_executor(self._thread, self._score, items)
        except Exception as error:
            if len(batch) > 1:
                for request in batch:
                    await self._compute([request])
                return
            self.healthy = False
            if not batch[0].result.done():
                batch[0].result.set_exception(error)
            return
        self.healthy = True
        results = iter(scored)
        for request in batch:
            scores = [next(results) for _ in request.items]
            if not request.result.done():
                request.result.set_result(scores)
