"""The protocols of requests and replies: the pipeline's own, OpenRLHF's remote reward model, and vLLM's.

A protocol parses the JSON of a request into items to score, and a function that makes the reply from their scores.
"""

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, cast

from pydantic import JsonValue

from rewardline.core.settings import JsonObject
from rewardline.scoring.rows import INPUTS, AnswerScores, PromptAnswers, UnscorableError, check_text, parse_row
from rewardline.scoring.server.batcher import FullText, Item, Scored, TokenIds

log = logging.getLogger(__name__)
SIDES = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))
"""Keys of a prompt and its answers in vLLM's requests."""


class RequestError(Exception):
    """What is wrong with a request."""


class ParsedRequest(NamedTuple):
    """The items of a request, and the function that makes its reply."""

    items: list[Item]
    reply: Callable[[Sequence[Scored]], object]


Protocol = Callable[[JsonValue, str], ParsedRequest]
"""From a request's JSON and the model's name; raises `RequestError` or `UnscorableError`."""


def rows(body: JsonValue, model: str, reads_names: bool = False) -> ParsedRequest:
    """A row as for `score.py`, or a list of rows; or vLLM's score, by its keys.

    The reply has the scores by the names that `score.py` gives them. In a list, a row that cannot be scored gets an
    `error`. `reads_names`: see `parse_row`.
    """
    if isinstance(body, dict) and any(first in body and second in body for first, second in SIDES):
        return _vllm_score(body, model)
    is_list = isinstance(body, list)  # the reply must not hold the body, which takes many times its length in memory
    several = body if isinstance(body, list) else [body]
    if not several:
        raise RequestError("the list has no rows")
    parsed: list[PromptAnswers | UnscorableError] = []
    for row in several:
        if not isinstance(row, dict):
            raise RequestError("must be a row, {prompt, answers}, or a list of rows")
        try:
            item = parse_row(row, reads_names)
            if item.ignored:
                _say_once(item.ignored)
            parsed.append(item)
        except UnscorableError as error:
            parsed.append(error.with_traceback(None))

    def reply(scored: Sequence[Scored]) -> object:
        remaining = iter(scored)
        results: list[object] = []
        for row in parsed:
            scores = row if isinstance(row, UnscorableError) else next(remaining).scores
            if isinstance(row, PromptAnswers) and not isinstance(scores, UnscorableError):
                results.append(row.named(scores))
            elif is_list:
                results.append({"error": str(scores)})
            else:
                raise RequestError(str(scores))
        return results if is_list else results[0]

    return ParsedRequest([row for row in parsed if isinstance(row, PromptAnswers)], reply)


@lru_cache(maxsize=64)
def _say_once(ignored: str) -> None:
    log.warning("%s in a row, and in others like it", ignored)


def openrlhf(body: JsonValue, _model: str) -> ParsedRequest:
    """{query: [text, ...]}, each a prompt with its response; prompts and labels beside it are ignored."""
    queries = body.get("query") if isinstance(body, dict) else None
    items: list[Item] = [FullText(text, ended=True) for text in _texts(queries, "query")]

    def reply(scored: Sequence[Scored]) -> object:
        rewards = _numbers(scored)
        beside = [one.scores.beside if isinstance(one.scores, AnswerScores) else {} for one in scored]
        kinds = beside[0] if beside else {}
        logs = {f"reward_{kind}": [one[kind][0] for one in beside] for kind in kinds}
        return {"rewards": rewards, "scores": rewards, "extra_logs": logs}

    return ParsedRequest(items, reply)


def vllm_classify(body: JsonValue, model: str) -> ParsedRequest:
    """{input: text, token ids, or a list of either} or {messages}; `probs` of the reply is the score alone."""

    def entry(index: int, score: float) -> JsonObject:
        return {"index": index, "label": "LABEL_0", "probs": [score], "num_classes": 1}

    return _vllm(_inputs(body), model, "classify", entry)


def vllm_pooling(body: JsonValue, model: str) -> ParsedRequest:
    """{input: text, token ids, or a list of either} or {messages}; `data` of each entry of the reply is the score."""

    def entry(index: int, score: float) -> JsonObject:
        return {"index": index, "object": "pooling", "data": [score]}

    return _vllm(_inputs(body), model, "pool", entry)


def _vllm_score(body: JsonObject, model: str) -> ParsedRequest:
    """Prompts and answers: one with each of several, or as many of either."""
    first, second = next(sides for sides in SIDES if sides[0] in body and sides[1] in body)
    prompts, answers = _texts(body[first], first), _texts(body[second], second)
    if len(prompts) == 1:
        prompts = prompts * len(answers)
    if len(prompts) != len(answers):
        raise RequestError(f"`{first}` has {len(prompts)} texts, `{second}` {len(answers)}; give one or as many")
    items: list[Item] = [
        parse_row({"prompt": one, "answer": other}) for one, other in zip(prompts, answers, strict=True)
    ]

    def entry(index: int, score: float) -> JsonObject:
        return {"index": index, "object": "score", "score": score}

    return _vllm(items, model, "score", entry)


def _vllm(items: list[Item], model: str, kind: str, entry: Callable[[int, float], JsonObject]) -> ParsedRequest:
    def reply(scored: Sequence[Scored]) -> object:
        tokens = sum(one.tokens for one in scored)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None}
        return {
            "id": f"{kind}-{uuid.uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": model,
            "data": [entry(index, score) for index, score in enumerate(_numbers(scored))],
            "usage": usage,
        }

    return ParsedRequest(items, reply)


def _inputs(body: JsonValue) -> list[Item]:
    if isinstance(body, dict) and "messages" in body:
        return [parse_row({name: body[name] for name in ("messages", *INPUTS) if name in body})]
    value = body.get("input") if isinstance(body, dict) else None
    several = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
    if all(isinstance(ids, list) and ids and all(type(token) is int for token in ids) for ids in several):
        return [TokenIds(cast("list[int]", ids)) for ids in several]
    return [FullText(text, ended=False) for text in _texts(value, "input")]


def _texts(value: JsonValue, name: str) -> list[str]:
    values = value if isinstance(value, list) else [value]
    texts = [text for text in values if isinstance(text, str) and text]
    if not texts or len(texts) < len(values):
        raise RequestError(f"`{name}` must be a text or a list of texts")
    try:
        for text in texts:
            check_text(text)
    except UnscorableError as error:
        raise RequestError(f"`{name}` {error}") from None
    return texts


def _numbers(scored: Sequence[Scored]) -> list[float]:
    """The score of each item; these replies have no field for an error of one of them."""
    numbers = []
    for index, one in enumerate(scored):
        if isinstance(one.scores, UnscorableError):
            raise RequestError(f"text {index}: {one.scores}")
        numbers.append(one.scores[0])
    return numbers
