"""The shapes of requests and replies: the pipeline's own, OpenRLHF's remote reward model, and vLLM's.

A shape takes a request's JSON apart into work and gives a function that makes the reply from the scores.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rewardline.scoring.rows import Item, Json, UnscorableError, check_text, item_of
from rewardline.scoring.server.batcher import Scored, Text, Work

SIDES = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))
"""What vLLM calls a prompt and its answers."""


class RequestError(Exception):
    """What is wrong with a request."""


class Parsed(NamedTuple):
    """The work of a request, and what makes its reply."""

    works: list[Work]
    reply: Callable[[Sequence[Scored]], Any]


Shape = Callable[[Any, str], Parsed]
"""From a request's JSON and the model's name."""


def rows(body: Any, model: str) -> Parsed:
    """A row as `score.py` takes it, or a list of rows; or vLLM's score, by its keys.

    The reply has the scores by the names that `score.py` gives them. In a list, a row that cannot be scored gets an
    `error`.
    """
    if isinstance(body, dict) and any(first in body and second in body for first, second in SIDES):
        return _vllm_score(body, model)
    several = body if isinstance(body, list) else [body]
    if not several:
        raise RequestError("the list has no rows")
    items: list[Item | UnscorableError] = []
    for row in several:
        if not isinstance(row, dict):
            raise RequestError("must be a row, {prompt, answers}, or a list of rows")
        try:
            items.append(item_of(row))
        except UnscorableError as error:
            items.append(error)

    def reply(scored: Sequence[Scored]) -> Any:
        found = iter(scored)
        results = [_result(item, None if isinstance(item, UnscorableError) else next(found)) for item in items]
        if isinstance(body, list):
            return results
        if "error" in results[0]:
            raise RequestError(results[0]["error"])
        return results[0]

    return Parsed([item for item in items if isinstance(item, Item)], reply)


def _result(item: Item | UnscorableError, scored: Scored | None) -> Json:
    if isinstance(item, UnscorableError):
        return {"error": str(item)}
    scores = scored.scores if scored else []
    return {"error": str(scores)} if isinstance(scores, UnscorableError) else item.named(scores)


def openrlhf(body: Any, _model: str) -> Parsed:
    """{query: [text, ...]}, each a prompt with its response, whole; prompts and labels may stand beside it."""
    queries = body.get("query") if isinstance(body, dict) else None
    works: list[Work] = [Text(text, ended=True) for text in _texts(queries, "query")]

    def reply(scored: Sequence[Scored]) -> Json:
        rewards = _numbers(scored)
        return {"rewards": rewards, "scores": rewards, "extra_logs": {}}

    return Parsed(works, reply)


def vllm_classify(body: Any, model: str) -> Parsed:
    """{input: text or [text, ...]} or {messages}; `probs` of the reply is the score alone."""

    def entry(index: int, score: float) -> Json:
        return {"index": index, "label": "LABEL_0", "probs": [score], "num_classes": 1}

    return _vllm(_inputs(body), model, "classify", entry)


def vllm_pooling(body: Any, model: str) -> Parsed:
    """{input: text or [text, ...]} or {messages}; `data` of each entry of the reply is the score alone."""

    def entry(index: int, score: float) -> Json:
        return {"index": index, "object": "pooling", "data": [score]}

    return _vllm(_inputs(body), model, "pool", entry)


def _vllm_score(body: Json, model: str) -> Parsed:
    """Prompts and answers: one with each of several, or as many of either."""
    first, second = next(sides for sides in SIDES if sides[0] in body and sides[1] in body)
    prompts, answers = _texts(body[first], first), _texts(body[second], second)
    if len(prompts) == 1:
        prompts = prompts * len(answers)
    if len(prompts) != len(answers):
        raise RequestError(f"`{first}` has {len(prompts)} texts, `{second}` {len(answers)}; give one or as many")
    works: list[Work] = []
    for prompt, answer in zip(prompts, answers, strict=True):
        try:
            works.append(item_of({"prompt": prompt, "answer": answer}))
        except UnscorableError as error:
            raise RequestError(str(error)) from error

    def entry(index: int, score: float) -> Json:
        return {"index": index, "object": "score", "score": score}

    return _vllm(works, model, "score", entry)


def _vllm(works: list[Work], model: str, kind: str, entry: Callable[[int, float], Json]) -> Parsed:
    def reply(scored: Sequence[Scored]) -> Json:
        tokens = sum(found.tokens for found in scored)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None}
        return {
            "id": f"{kind}-{uuid.uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": model,
            "data": [entry(index, score) for index, score in enumerate(_numbers(scored))],
            "usage": usage,
        }

    return Parsed(works, reply)


def _inputs(body: Any) -> list[Work]:
    if isinstance(body, dict) and "messages" in body:
        try:
            return [item_of({"messages": body["messages"]})]
        except UnscorableError as error:
            raise RequestError(str(error)) from error
    value = body.get("input") if isinstance(body, dict) else None
    return [Text(text, ended=False) for text in _texts(value, "input")]


def _texts(value: Any, name: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise RequestError(f"`{name}` must be a text or a list of texts")
    try:
        for text in texts:
            check_text(text)
    except UnscorableError as error:
        raise RequestError(f"`{name}` {error}") from None
    return texts


def _numbers(scored: Sequence[Scored]) -> list[float]:
    """One score of each; a reply has no place for what is wrong with one."""
    numbers = []
    for index, found in enumerate(scored):
        if isinstance(found.scores, UnscorableError):
            raise RequestError(f"text {index}: {found.scores}")
        numbers.append(found.scores[0])
    return numbers
