"""RewardBench 2 (Malik et al. 2025, arXiv 2506.01937)."""

import math
from collections.abc import Sequence
from typing import ClassVar, Final

import numpy as np

from rewardline.core.settings import JsonObject
from rewardline.data.formats.settings import BenchmarkRows
from rewardline.evaluation.published.base import ScoredRow, SectionedBenchmark

TIES: Final = "Ties"


class RewardBench2(SectionedBenchmark):
    """How often the right one of four answers has the best score; subset Ties by accuracy and margins."""

    name = "rewardbench2"
    title = "RewardBench 2"
    measures = "facts, precise instructions, math, safety, focus, and questions with several right answers"
    figures = (
        "How often the correct one of four answers has the best score, 1/k if k answers share it; `Ties` by accuracy"
        " and margins; the mean of the six subsets."
    )
    size = "1,865 prompts with 4 answers or more"
    license = "ODC-BY"
    source = "[allenai/reward-bench-2](https://huggingface.co/datasets/allenai/reward-bench-2), arXiv 2506.01937"
    sections = ("Factuality", "Precise IF", "Math", "Safety", "Focus", TIES)
    reading: ClassVar[JsonObject] = {
        "format": "good_bad",
        "fields": {"good": "chosen", "bad": "rejected", "subset": "subset", "item": "id"},
    }
    shape = BenchmarkRows(
        name=name,
        subsets=list(sections),
        pattern=f"(?i){'|'.join(sections)}",
        items={TIES: (r"(ref|tied):\d+", "are called ref:<number> and tied:<number>")},
    )

    def section_of(self, subset: str) -> str | None:
        """The section of a subset, in any case."""
        return next((name for name in self.sections if name.lower() == subset.lower()), None)

    def score(self, rows: Sequence[ScoredRow]) -> float:
        """The score of a section."""
        return ties_score(rows) if self.section_of(rows[0].subset) == TIES else _mean([best_of(row) for row in rows])


def best_of(row: ScoredRow) -> float:
    """1/k if the first chosen answer is one of the k with the best score, else 0."""
    scores = [answer.score for answer in row.answers]
    best = max(scores)
    return 1.0 / scores.count(best) if row.chosen[0].score == best else 0.0


def ties_score(rows: Sequence[ScoredRow]) -> float:
    """Subset Ties: rows `ref:<k>` have one right answer, rows `tied:<k>` to a like prompt several.

    0.3 of the accuracy of each kind (every right answer above every wrong one), and over the prompts that have both
    kinds 0.2 of how often the margin of right over wrong answers exceeds the spread among the right ones, 0.2 of how
    often the smaller of both rows' margins does, and 0.01 of the mean of tanh(smaller margin / spread - 1), which is
    1 or -1 where the spread is 0, and 0 where the margin is 0 too.
    """
    margins: dict[str, dict[int, float]] = {"ref": {}, "tied": {}}
    spreads: dict[int, float] = {}
    for row in rows:
        kind, number = row.item.split(":")
        margins[kind][int(number)] = row.least_chosen - row.best_rejected
        if kind == "tied" and len(row.chosen) > 1:
            spreads[int(number)] = max(answer.score for answer in row.chosen.values()) - row.least_chosen
    both = [number for number in spreads if number in margins["ref"]]
    smaller = {number: min(margins["ref"][number], margins["tied"][number]) for number in both}
    ratios = [
        math.tanh(smaller[number] / spreads[number] - 1) if spreads[number] else float(np.sign(smaller[number]))
        for number in both
    ]
    return (
        0.3 * _mean([margin > 0 for margin in margins["tied"].values()])
        + 0.3 * _mean([margin > 0 for margin in margins["ref"].values()])
        + 0.2 * _mean([margins["tied"][number] > spreads[number] for number in both])
        + 0.2 * _mean([smaller[number] > spreads[number] for number in both])
        + 0.01 * _mean(ratios)
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
