"""JudgeBench (Tan et al. 2024, arXiv 2410.12784)."""

from collections.abc import Sequence
from typing import ClassVar

from rewardline.core.settings import JsonObject
from rewardline.data.formats.settings import BenchmarkRows
from rewardline.evaluation.published.base import Measured, ScoredRow, SectionedBenchmark, mean


class JudgeBench(SectionedBenchmark):
    """Accuracy by category and of all pairs."""

    name = "judgebench"
    title = "JudgeBench"
    measures = "correctness in knowledge, reasoning, math and code"
    figures = "Accuracy by category and of all pairs. A tie counts as a vote for answer B, as in its code."
    size = "350 pairs (split gpt), 270 (split claude)"
    license = "MIT"
    source = "[ScalerLab/JudgeBench](https://huggingface.co/datasets/ScalerLab/JudgeBench), arXiv 2410.12784"
    sections = ("mmlu-pro", "livebench-reasoning", "livebench-math", "livecodebench")
    reading: ClassVar[JsonObject] = {
        "format": "preference",
        "fields": {
            "prompt": "question", "answer_a": "response_A", "answer_b": "response_B", "preference": "label",
            "subset": "source",
        },
        "values": {"first": "A>B", "second": "B>A"},
    }  # fmt: skip
    shape = BenchmarkRows(name=name, subsets=list(sections), pattern=f"({'|'.join(sections)}).*")

    def score(self, rows: Sequence[ScoredRow]) -> float:
        """How often the better answer wins; the published code gives a tie to answer B."""
        return mean([row.won or (row.half_credit > 0 and 1 in row.chosen) for row in rows])

    def measure(self, rows: Sequence[ScoredRow]) -> Measured:
        """The categories, and the accuracy of all pairs."""
        return Measured(self.score(rows), super().measure(rows).sections)
