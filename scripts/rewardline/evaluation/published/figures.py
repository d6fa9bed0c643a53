"""The figures of a published benchmark: of the scores, of trivial baselines, and the best-of-n curve."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np

from rewardline.core.errors import UserError
from rewardline.evaluation.metrics.best_of import best_of_n_divergence, expected_best
from rewardline.evaluation.metrics.intervals import mean_interval
from rewardline.evaluation.published.base import Benchmark, PublishedPair, ScoredAnswer, ScoredRow
from rewardline.evaluation.published.rankings import scores_and_golds
from rewardline.evaluation.published.registry import BENCHMARKS
from rewardline.evaluation.results import Baseline, BestOfNCurve, BestOfNPoint, PublishedFigures
from rewardline.evaluation.scores import read_batches

BASELINES: Final[Mapping[str, Callable[[int, ScoredAnswer], float]]] = {
    "longest": lambda _, answer: answer.tokens,
    "shortest": lambda _, answer: -answer.tokens,
    "first": lambda index, _: -index,
}
"""Scores that see nothing of an answer but its length, or its index in the row."""


def published_figures(scores: Path, scoring: str, left_out: Mapping[str, int]) -> PublishedFigures:
    """`figures` of a `scores.parquet`."""
    batches = read_batches(scores, tuple(PublishedPair.__annotations__))
    pairs = chain.from_iterable(batch.to_pylist() for batch in batches)
    return figures(pairs, scoring, dict(sorted(left_out.items())))


def figures(pairs: Iterable[PublishedPair], scoring: str, left_out: Mapping[str, int]) -> PublishedFigures:
    """The figures of a published benchmark.

    Args:
        pairs: the scored pairs of the benchmark.
        scoring: one of `BENCHMARKS`.
        left_out: number of rows and pairs of the benchmark without a score, by reason.

    Raises:
        UserError: a subset that the benchmark does not have, by file and row.
    """
    benchmark = BENCHMARKS[scoring]
    rows = _rows(pairs, benchmark)
    complete = [row for row in rows if row.complete]
    overall, sections = benchmark.measure(complete)
    return PublishedFigures(
        arithmetic=scoring,
        overall=overall,
        sections=sections,
        missing=[name for name in benchmark.sections if name not in sections],
        incomplete=len(rows) - len(complete),
        left_out=dict(left_out),
        baselines={name: _baseline(benchmark, complete, name) for name in BASELINES},
        curve=best_of_n_curve(complete),
    )


def _rows(pairs: Iterable[PublishedPair], benchmark: Benchmark) -> list[ScoredRow]:
    """The rows that pairs belong to."""
    rows: dict[tuple[str, int, str], ScoredRow] = {}
    for pair in pairs:
        subset, place = pair["subset"], pair["place"]
        if benchmark.section_of(subset) is None:
            where = f"{pair['file']}:{pair['row']}"
            raise UserError(f"{where}: {subset!r} is no subset of {benchmark.name}; take out `scoring`")
        key = pair["file"], pair["row"], subset
        if key not in rows:
            rows[key] = ScoredRow(subset, pair["prompt_id"], place["item"], place["answers"])
        rows[key].add(pair)
    return list(rows.values())


def _baseline(benchmark: Benchmark, rows: Sequence[ScoredRow], name: str) -> Baseline:
    """The figures of a rule that sees no content.

    Rows with a list of good and one of bad answers have no first answer: their order says which is the better one.
    """
    if name == "first" and any(row.has_two_lists for row in rows):
        return Baseline(overall=math.nan, sections={})
    overall, sections = benchmark.measure([row.rescored(BASELINES[name]) for row in rows])
    return Baseline(overall=overall, sections={part: section.score for part, section in sections.items()})


def best_of_n_curve(rows: Sequence[ScoredRow]) -> BestOfNCurve | None:
    """The gold score of the answer with the greatest score of n, for n = 1, 2, 4, ... and all answers.

    n goes up to the number of answers that at least half of the rows have; rows with fewer are left out, so that all
    points are of the same prompts. None where that is fewer than three, or where the data gives answers no gold score.
    """
    lists = [(row.prompt, *scores_and_golds(row)) for row in rows]
    lists = [one for one in lists if np.isfinite(one[2]).all()]
    if not lists:
        return None
    most = sorted((len(golds) for _, _, golds in lists), reverse=True)[(len(lists) - 1) // 2]
    if most < 3:
        return None
    used = [one for one in lists if len(one[2]) >= most]
    sizes = [*(2**k for k in range(most.bit_length()) if 2**k < most), most]
    numbers = {prompt: n for n, prompt in enumerate(dict.fromkeys(prompt for prompt, _, _ in used))}
    prompts = np.array([numbers[prompt] for prompt, _, _ in used])
    reached, possible, scored = (
        np.stack([expected_best(scores, values, sizes) for scores, values in columns])
        for columns in (
            [(scores, golds) for _, scores, golds in used],
            [(golds, golds) for _, _, golds in used],
            [(scores, scores) for _, scores, _ in used],
        )
    )
    least = min(float(golds.min()) for _, _, golds in used)
    span = max(float(golds.max()) for _, _, golds in used) - least
    points = []
    for k, size in enumerate(sizes):
        low, high = mean_interval((reached[:, k] - least) / span, prompts) if span else (0.0, 0.0)
        points.append(
            BestOfNPoint(
                n=size,
                kl=best_of_n_divergence(size),
                gold=float(reached[:, k].mean()),
                gold_low=least + span * low,
                gold_high=least + span * high,
                best=float(possible[:, k].mean()),
                score=float(scored[:, k].mean()),
            )
        )
    return BestOfNCurve(prompts=len(used), left_out=len(rows) - len(used), points=points)
