"""IF-RewardBench (Wen et al. 2026, arXiv 2603.04738)."""

import math
from collections.abc import Sequence
from typing import ClassVar

from rewardline.core.settings import JsonObject
from rewardline.data.formats.settings import BenchmarkRows
from rewardline.evaluation.published.base import Measured, ScoredRow, SectionedBenchmark, mean
from rewardline.evaluation.results import Section


class IFRewardBench(SectionedBenchmark):
    """Graphs of preferences between answers that follow instructions more or less well."""

    name = "if_rewardbench"
    title = "IF-RewardBench"
    measures = "how well several answers follow instructions: single turns, several turns, system prompts"
    figures = (
        "Kendall's tau-b of a graph: right minus wrong preferences, by the root of those that are not ties times all."
        " Three kinds of instruction, each the mean of its graphs, and their mean; `accuracy` is the same of the share"
        " of right preferences, a tie is none."
    )
    size = "842 graphs"
    license = "none stated"
    source = "[thu-coai/IF-RewardBench](https://github.com/thu-coai/IF-RewardBench), arXiv 2603.04738"
    sections = ("Single_Turn", "Multi_Turn", "System_Prompt")
    reading: ClassVar[JsonObject] = {
        "format": "graph",
        "fields": {
            "prompt": "messages", "answers": "responses", "preferences": "preference_graph",
            "subset": "instruction_type",
        },
    }  # fmt: skip
    shape = BenchmarkRows(name=name, subsets=list(sections))

    def score(self, rows: Sequence[ScoredRow]) -> float:
        """The mean of tau-b over graphs."""
        return mean([_tau(row) for row in rows])

    def measure(self, rows: Sequence[ScoredRow]) -> Measured:
        """Kendall's tau-b, and the accuracy."""
        overall, sections = super().measure(rows)
        accuracy = [mean([_right(row) / len(row.edges) for row in part]) for part in self.by_section(rows).values()]
        return Measured(overall, sections | {"accuracy": Section(score=mean(accuracy), n=len(rows))})


def _right(row: ScoredRow) -> int:
    return sum(row.chosen[i].score > row.rejected[j].score for i, j in row.edges)


def _tau(row: ScoredRow) -> float:
    right = _right(row)
    wrong = sum(row.chosen[i].score < row.rejected[j].score for i, j in row.edges)
    return (right - wrong) / max(1.0, math.sqrt((right + wrong) * len(row.edges)))
