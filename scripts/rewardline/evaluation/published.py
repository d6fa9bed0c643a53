"""How published benchmarks compute their figures from scores.

All require strictly greater scores: a tie counts as wrong unless stated otherwise.

- `rewardbench` (Lambert et al. 2024, arXiv 2403.13787): accuracy of 23 subsets; a section is their mean, weighted by
  the published numbers of prompts, math-prm as 984, so that it counts as much as code; the score is the mean of the
  four sections. The prior sets are left out, as they are not in the dataset.
- `rewardbench2` (Malik et al. 2025, arXiv 2506.01937): the share of prompts whose right answer has the best score of
  four, 1/k where k answers share the best; subset Ties by accuracy and margins; the score is the mean of the six.
- `rm_bench` (Liu et al. 2024, arXiv 2410.16184): each of three styles of the chosen answer against each of the rejected
  one: hard where the rejected one has the richer style, normal in the same style, else easy; by domain and overall.
- `judgebench` (Tan et al. 2024, arXiv 2410.12784): accuracy by category and of all pairs; a tie is a vote for answer B.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import numpy as np

from rewardline.core.errors import UserError
from rewardline.data.benchmarks import PROMPTS, SECTIONS, STYLES, TIES, section_of
from rewardline.data.schema import AnswerPosition
from rewardline.evaluation.results import PublishedFigures, Section
from rewardline.evaluation.scores import read_table


class PublishedPair(TypedDict):
    """The columns of `scores.parquet` that the figures are computed from."""

    subset: str
    file: str
    row: int
    place: AnswerPosition
    chosen_score: float
    rejected_score: float


@dataclass
class ScoredRow:
    """A row of a benchmark: the scores of its chosen and rejected answers, by their indices."""

    item: str
    answers: int
    chosen: dict[int, float] = field(default_factory=dict)
    rejected: dict[int, float] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every answer of the row has a score."""
        return len(self.chosen) + len(self.rejected) == self.answers


def published_figures(scores: Path, scoring: str, left_out: Mapping[str, int]) -> PublishedFigures:
    """`figures` of a `scores.parquet`."""
    pairs = read_table(scores, tuple(PublishedPair.__annotations__)).to_pylist()
    return figures(pairs, scoring, dict(sorted(left_out.items())))


def figures(pairs: Iterable[PublishedPair], scoring: str, left_out: Mapping[str, int]) -> PublishedFigures:
    """The figures of a published benchmark.

    Args:
        pairs: the scored pairs of the benchmark.
        scoring: one of `SECTIONS`.
        left_out: number of rows and pairs of the benchmark without a score, by reason.

    Raises:
        UserError: a subset that the benchmark does not have, by file and row.
    """
    by_section: dict[str, list[PublishedPair]] = {name: [] for name in SECTIONS[scoring]}
    for pair in pairs:
        section = section_of(pair["subset"], scoring)
        if section is None:
            where = f"{pair['file']}:{pair['row']}"
            raise UserError(f"{where}: {pair['subset']!r} is no subset of {scoring}; take out `scoring`")
        by_section[section].append(pair)
    incomplete = 0
    sections: dict[str, Section] = {}
    hardness: dict[str, list[float]] = {}
    for section, members in by_section.items():
        rows = [] if scoring in ("rewardbench", "judgebench") else _rows(members)
        complete = [row for row in rows if row.complete]
        incomplete += len(rows) - len(complete)
        count = len(complete) if rows else len(members)
        if not count:
            continue
        if scoring == "rewardbench":
            score = _weighted(members, PROMPTS[section])
        elif scoring == "judgebench":
            score = _mean([_prefers_better(pair) for pair in members])
        elif scoring == "rm_bench":
            by_style = _by_style(complete)
            for name, value in by_style.items():
                hardness.setdefault(name, []).append(value)
            score = _mean(list(by_style.values()))
        else:
            score = ties_score(complete) if section == TIES else _mean([best_of(row) for row in complete])
        sections[section] = Section(score=score, n=count)
    overall = _mean([section.score for section in sections.values()])
    if scoring == "judgebench":
        overall = _mean([_prefers_better(pair) for members in by_section.values() for pair in members])
    scored = sum(section.n for section in sections.values())
    return PublishedFigures(
        arithmetic=scoring,
        overall=overall if sections else math.nan,
        sections=sections | {name: Section(score=_mean(scores), n=scored) for name, scores in hardness.items()},
        missing=[name for name in by_section if name not in sections],
        incomplete=incomplete,
        left_out=dict(left_out),
    )


def _prefers_better(pair: PublishedPair) -> bool:
    """JudgeBench: whether the better answer wins; its code gives a tie to answer B."""
    if pair["chosen_score"] == pair["rejected_score"]:
        return pair["place"]["chosen"] == 1
    return pair["chosen_score"] > pair["rejected_score"]


def _weighted(pairs: Sequence[PublishedPair], weights: Mapping[str, int]) -> float:
    """RewardBench: the mean of the subsets' accuracies, each weighted by its published number of prompts."""
    correct: dict[str, list[bool]] = {}
    for pair in pairs:
        correct.setdefault(pair["subset"], []).append(pair["chosen_score"] > pair["rejected_score"])
    return float(np.average([np.mean(part) for part in correct.values()], weights=[weights[name] for name in correct]))


def _rows(pairs: Iterable[PublishedPair]) -> Sequence[ScoredRow]:
    """The rows that pairs belong to."""
    rows: dict[tuple[str, int], ScoredRow] = {}
    for pair in pairs:
        place = pair["place"]
        row = rows.setdefault((pair["file"], pair["row"]), ScoredRow(place["item"], place["answers"]))
        row.chosen[place["chosen"]] = pair["chosen_score"]
        row.rejected[place["rejected"]] = pair["rejected_score"]
    return list(rows.values())


def _by_style(rows: Sequence[ScoredRow]) -> dict[str, float]:
    """RM-Bench: the accuracy where the rejected answer's style is richer (hard), the same, and plainer (easy)."""
    wins = np.zeros((STYLES, STYLES))
    for row in rows:
        chosen, rejected = (np.array([side[k] for k in range(STYLES)]) for side in (row.chosen, row.rejected))
        wins += chosen[:, None] > rejected[None, :]
    wins /= len(rows)
    off_diagonal = STYLES * (STYLES - 1) / 2
    return {
        "hard": float(np.triu(wins, 1).sum() / off_diagonal),
        "normal": float(np.diag(wins).mean()),
        "easy": float(np.tril(wins, -1).sum() / off_diagonal),
    }


def best_of(row: ScoredRow) -> float:
    """RewardBench 2: 1/k if the first chosen answer is one of the k with the best score, else 0."""
    answers = [*row.chosen.values(), *row.rejected.values()]
    best = max(answers)
    return 1.0 / answers.count(best) if row.chosen[0] == best else 0.0


def ties_score(rows: Sequence[ScoredRow]) -> float:
    """RewardBench 2, subset Ties: rows `ref:<k>` have one right answer, rows `tied:<k>` to a like prompt several.

    0.3 of the accuracy of each kind (every right answer above every wrong one), and over the prompts that have both
    kinds 0.2 of how often the margin of right over wrong answers exceeds the spread among the right ones, 0.2 of how
    often the smaller of both rows' margins does, and 0.01 of the mean of tanh(smaller margin / spread - 1), which is
    1 or -1 where the spread is 0, and 0 where the margin is 0 too.
    """
    margins: dict[str, dict[int, float]] = {"ref": {}, "tied": {}}
    spreads: dict[int, float] = {}
    for row in rows:
        kind, number = row.item.split(":")
        right, wrong = list(row.chosen.values()), list(row.rejected.values())
        margins[kind][int(number)] = min(right) - max(wrong)
        if kind == "tied" and len(right) > 1:
            spreads[int(number)] = max(right) - min(right)
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
