"""Requests that arrive together are scored together: a queue of bounded length, and one thread for the model."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

from rewardline.scoring.rows import Item, UnscorableError
from rewardline.scoring.scorer import Scorer


class Text(NamedTuple):
    """A whole text to score; `ended`: see `rewardline.model_text.TextEncoder`."""

    text: str
    ended: bool


Work = Item | Text


class Scored(NamedTuple):
    """The scores of an item's answers or of a text, or why there are none; `tokens` is what they have together."""

    scores: list[float] | UnscorableError
    tokens: int


class FullError(Exception):
    """There is no room in the queue."""


def count_answers(works: Sequence[Work]) -> int:
    """How many answers works have together; a text counts as one."""
    return sum(len(work.answers) if isinstance(work, Item) else 1 for work in works)


def score_works(scorer: Scorer, works: Sequence[Work]) -> list[Scored]:
    """Score items and texts together, in the order given."""
    items = [work for work in works if isinstance(work, Item)]
    encoded = iter(scorer.encode([item.prompt for item in items], [item.answers for item in items]))
    texts = {
        ended: iter(scorer.encode_texts([w.text for w in works if isinstance(w, Text) and w.ended == ended], ended))
        for ended in (False, True)
    }
    ready = [next(encoded if isinstance(work, Item) else texts[work.ended]) for work in works]
    tokens = [
        0 if isinstance(found, UnscorableError) else sum(len(found.prefix) + len(tail) for tail in found.tails)
        for found in ready
    ]
    return [Scored(*pair) for pair in zip(scorer.score_encoded(ready), tokens, strict=True)]


@dataclass(eq=False)
class _Job:
    works: Sequence[Work]
    size: int
    done: asyncio.Future[list[Scored]]


class Batcher:
    """Collects the work of several requests for the model's thread; to be used as an async context.

    Work that arrives while the model computes is computed next, together; work that finds it idle waits `window`
    seconds for company. `most`: answers computed at once; `limit`: answers that may wait or be computed.
    """

    def __init__(
        self,
        score: Callable[[Sequence[Work]], list[Scored]],
        *,
        window: float = 0.005,
        most: int = 512,
        limit: int = 4096,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`score` scores some work in the model's thread; `on_batch` is told how many answers each batch has."""
        self._score = score
        self._window = window
        self._most = most
        self._limit = limit
        self._on_batch = on_batch
        self._jobs: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._loop: asyncio.Task[None] | None = None
        self.waiting = 0
        """How many answers wait or are computed."""
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
        for job in self._jobs:
            job.done.cancel()
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def submit(self, works: Sequence[Work]) -> list[Scored]:
        """The scores of some work, when they are there. Work that is cancelled while it waits is not computed.

        Raises:
            FullError: too many answers wait already.
        """
        size = count_answers(works)
        if self.waiting + size > self._limit:
            raise FullError
        job = _Job(works, size, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self.waiting += size
        self._arrived.set()
        try:
            return await job.done
        finally:
            if job in self._jobs:
                self._jobs.remove(job)
                self.waiting -= size

    async def _run(self) -> None:
        while True:
            if not self._jobs:
                self._arrived.clear()
                await self._arrived.wait()
                if self.waiting < self._most:
                    await asyncio.sleep(self._window)
                if not self._jobs:
                    continue
            batch = [self._jobs.popleft()]
            size = batch[0].size
            while self._jobs and size + self._jobs[0].size <= self._most:
                batch.append(self._jobs.popleft())
                size += batch[-1].size
            self._on_batch(size)
            try:
                await self._compute(batch)
            finally:
                self.waiting -= size

    async def _compute(self, jobs: list[_Job]) -> None:
        """Score jobs together; where that fails, each alone, so that none fails for another's sake."""
        works = [work for job in jobs for work in job.works]
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, self._score, works)
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    await self._compute([job])
                return
            self.healthy = False
            if not jobs[0].done.done():
                jobs[0].done.set_exception(error)
            return
        self.healthy = True
        results = iter(found)
        for job in jobs:
            mine = [next(results) for _ in job.works]
            if not job.done.done():
                job.done.set_result(mine)
