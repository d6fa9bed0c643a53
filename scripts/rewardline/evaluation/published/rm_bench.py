"""RM-Bench (Liu et al. 2024, arXiv 2410.16184)."""

from collections.abc import Sequence
from typing import ClassVar, Final

import numpy as np

from rewardline.core.settings import JsonObject
from rewardline.data.formats.settings import BenchmarkRows
from rewardline.evaluation.published.base import Benchmark, Measured, ScoredRow, mean
from rewardline.evaluation.results import Section

STYLES: Final = 3


class RMBench(Benchmark):
    """Each of three styles of the chosen answer against each of the rejected one, by domain and by hardness."""

    name = "rm_bench"
    title = "RM-Bench"
    measures = "errors of content in answers whose style is plainer, the same or richer"
    figures = (
        "Three styles of the chosen answer against three of the rejected one: `hard`, `normal` and `easy`, and accuracy"
        " by domain."
    )
    size = "1,327 prompts with 3 + 3 answers"
    license = "ODC-BY"
    source = "[THU-KEG/RM-Bench](https://huggingface.co/datasets/THU-KEG/RM-Bench), arXiv 2410.16184"
    sections = ("chat", "math", "code", "safety")
    reading: ClassVar[JsonObject] = {
        "format": "good_bad",
        "fields": {"good": "chosen", "bad": "rejected", "subset": "domain"},
    }
    shape = BenchmarkRows(
        name=name,
        subsets=list(sections),
        pattern=f"({'|'.join(sections)}).*",
        answers=2 * STYLES,
        answers_as=f"RM-Bench has {STYLES} chosen and {STYLES} rejected ones, by style",
    )

    def measure(self, rows: Sequence[ScoredRow]) -> Measured:
        """Each domain is the mean of its hardnesses, and each hardness that of the domains."""
        sections: dict[str, Section] = {}
        hardness: dict[str, list[float]] = {}
        for section, members in self.by_section(rows).items():
            by_style = _by_style(members)
            sections[section] = Section(score=mean(list(by_style.values())), n=len(members))
            for name, value in by_style.items():
                hardness.setdefault(name, []).append(value)
        overall = mean([section.score for section in sections.values()])
        return Measured(overall, sections | {name: Section(score=mean(v), n=len(rows)) for name, v in hardness.items()})


def _by_style(rows: Sequence[ScoredRow]) -> dict[str, float]:
    """The accuracy where the rejected answer's style is richer (hard), the same, and plainer (easy)."""
    wins = np.zeros((STYLES, STYLES))
    for row in rows:
        chosen, rejected = (np.array([side[k].score for k in range(STYLES)]) for side in (row.chosen, row.rejected))
        wins += chosen[:, None] > rejected[None, :]
    wins /= len(rows)
    off_diagonal = STYLES * (STYLES - 1) / 2
    return {
        "hard": float(np.triu(wins, 1).sum() / off_diagonal),
        "normal": float(np.diag(wins).mean()),
        "easy": float(np.tril(wins, -1).sum() / off_diagonal),
    }
