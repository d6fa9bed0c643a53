"""Rows to score: their prompts and answers, and the names of their scores."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rewardline.core.settings import JsonObject
from rewardline.data.conversation import MAX_CHARACTERS
from rewardline.data.sources.rows import INVALID_TEXT
from rewardline.tokens.templates import Prompt

ROLES = ("system", "user", "assistant")
COLUMNS = ("prompt", "messages", "answers", "answer", "chosen", "rejected")
"""The columns of a row that are read."""


class UnscorableError(Exception):
    """The reason why a row or a text cannot be scored, and the remedy."""


class PromptAnswers(NamedTuple):
    """A prompt, its answers, and the names of their scores: one for all of a list, else one each."""

    prompt: Prompt
    answers: list[str]
    names: tuple[str, ...]

    def named(self, scores: Sequence[float]) -> JsonObject:
        """The scores by their names."""
        return {"scores": list(scores)} if self.names == ("scores",) else dict(zip(self.names, scores, strict=True))


def score_names(columns: Sequence[str]) -> tuple[str, ...]:
    """The names of all scores that rows with these columns can get."""
    names = []
    if "answers" in columns:
        names.append("scores")
    if "answer" in columns or "messages" in columns:
        names.append("score")
    if "chosen" in columns and "rejected" in columns:
        names += ["chosen_score", "rejected_score"]
    return tuple(names)


def parse_row(row: Mapping[str, object]) -> PromptAnswers:
    """The prompt and the answers of a row: {prompt, answers}, {prompt, answer}, {prompt, chosen, rejected}, {messages}.

    A prompt is a text or a list of messages. An answer is a text, a message of the assistant, or a complete dialogue
    that ends with one; in `messages` the last message is the answer.

    Raises:
        UnscorableError: something is missing, or is not text.
    """
    values, names = _answers(row)
    prompt = None if row.get("prompt") is None else _prompt(row["prompt"])
    answers = []
    for value in values:
        before, answer = _answer(value)
        if before:
            if prompt is None:
                prompt = before
            elif before != prompt:
                raise UnscorableError("its answers are dialogues that do not begin with its prompt; give answers only")
        answers.append(answer)
    if not prompt:
        raise UnscorableError("has no `prompt`, which must be a text or a list of messages with role and content")
    for text in [*answers, *(turn["content"] for turn in prompt)]:
        if text.startswith(INVALID_TEXT):
            raise UnscorableError(f"cannot be read: {text.removeprefix(INVALID_TEXT)}")
        check_text(text)
    return PromptAnswers(prompt, answers, names)


def check_text(text: str) -> None:
    """Raise `UnscorableError` for a text that is too long or not valid Unicode."""
    if len(text) > MAX_CHARACTERS:
        raise UnscorableError(f"has a text of {len(text):,} characters; {MAX_CHARACTERS:,} are allowed")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UnscorableError("has a lone surrogate, which is not text") from None


def _answers(row: Mapping[str, object]) -> tuple[Sequence[object], tuple[str, ...]]:
    if (answers := row.get("answers")) is not None:
        if not isinstance(answers, list) or not answers:
            raise UnscorableError("its `answers` must be a list with at least one answer")
        return answers, ("scores",)
    if (answer := row.get("answer")) is not None:
        return [answer], ("score",)
    if (chosen := row.get("chosen")) is not None and (rejected := row.get("rejected")) is not None:
        return [chosen, rejected], ("chosen_score", "rejected_score")
    if (messages := row.get("messages")) is not None:
        if not isinstance(messages, list) or len(messages) < 2:
            raise UnscorableError("its `messages` must be a list of a prompt's messages and the assistant's answer")
        return [messages], ("score",)
    raise UnscorableError("has neither `answer` nor `answers` nor `chosen` and `rejected` nor `messages`")


def _prompt(value: object) -> Prompt:
    if isinstance(value, str):
        if not value.strip():
            raise UnscorableError("its `prompt` is empty")
        return [{"role": "user", "content": value}]
    return _messages(value, "its `prompt` must be a text or a list of messages with role and content")


def _messages(value: object, otherwise: str) -> Prompt:
    """The messages of a list; `otherwise` is the reason given for anything else."""
    if not isinstance(value, list) or not value:
        raise UnscorableError(otherwise)
    for turn in value:
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
            raise UnscorableError(otherwise)
        if turn.get("role") not in ROLES:
            role = repr(turn.get("role"))[:50]
            raise UnscorableError(f"has a message of the role {role}; known are {', '.join(ROLES)}")
    return [{"role": turn["role"], "content": turn["content"]} for turn in value]


def _answer(value: object) -> tuple[Prompt, str]:
    """The messages before an answer in its value, and the answer."""
    if isinstance(value, str):
        return [], value
    turns = _messages([value] if isinstance(value, dict) else value, "its answers must be texts")
    if turns[-1]["role"] != "assistant":
        raise UnscorableError("its last message must be the assistant's, which is the answer to score")
    return turns[:-1], turns[-1]["content"]
