"""Prompts on the command line, each with its answers, and the table of their scores."""

import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from rewardline.core.errors import UserError
from rewardline.scoring.rows import AnswerScores, UnscorableError, columns, parse_row

if TYPE_CHECKING:
    from rewardline.scoring.ensemble import AnyScorer

WIDTH = 100


def pair_up(options: Sequence[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Each prompt with its answers, from (`prompt` or `answer`, text) in the order of the command line.

    An answer belongs to the prompt before it, or to the first prompt.

    Raises:
        UserError: a prompt has no text or no answers.
    """
    prompts: list[str] = []
    answers: list[list[str]] = [[]]
    for kind, text in options:
        if kind == "answer":
            answers[-1].append(text)
        else:
            if prompts:
                answers.append([])
            prompts.append(text)
    if options and not (all(prompt.strip() for prompt in prompts) and prompts and all(answers)):
        raise UserError("each --prompt needs some text and at least one --answer")
    return list(zip(prompts, answers, strict=False))


def score_table(scorer: "AnyScorer", prompts: Sequence[tuple[str, list[str]]]) -> str:
    """Query, answer and score in columns, the best answer to each prompt first.

    Of an ensemble with ± the spread; of a model with attributes with these below.

    Raises:
        UserError: an answer cannot be scored.
    """
    column = (WIDTH - 14) // 2
    rule = "-" * WIDTH
    lines = [f"{'query':<{column}}  {'answer':<{column}}  {'score':>8}", rule]
    try:
        rows = [parse_row({"prompt": prompt, "answers": answers}) for prompt, answers in prompts]
    except UnscorableError as error:
        raise UserError(f"--prompt with --answer: {error}") from error
    scored = scorer.score(*columns(rows))
    for (prompt, answers), scores in zip(prompts, scored, strict=True):
        if isinstance(scores, UnscorableError):
            raise UserError(f"{prompt}: {scores}")
        for answer, score, notes in sorted(zip(answers, scores, _notes(scores), strict=True), key=lambda one: -one[1]):
            numbers = [f"{score:>8.4f}{notes[0]}", *notes[1:]]
            cells = textwrap.wrap(prompt, column), textwrap.wrap(answer, column), numbers
            for query, text, number in zip_longest(*cells, fillvalue=""):
                lines.append(f"{query:<{column}}  {text:<{column}}  {number}".rstrip())
            lines.append(rule)
    return "\n".join(lines)


def _notes(scores: Sequence[float]) -> list[list[str]]:
    """For each score, what comes after it, and what in the lines below."""
    if not isinstance(scores, AnswerScores):
        return [[""] for _ in scores]
    if scores.beside.keys() == {"mean", "std"}:
        return [[f" ±{std:.4f}"] for std in scores.beside["std"]]
    lines = [[f"{value:>8.4f} {name}" for value in values] for name, values in scores.beside.items()]
    return [["", *below] for below in zip(*lines, strict=True)]
