"""LLMBar (Zeng et al. 2023, arXiv 2310.07641)."""

from collections.abc import Sequence
from typing import ClassVar

from rewardline.core.settings import JsonObject
from rewardline.data.formats.settings import BenchmarkRows
from rewardline.evaluation.published.base import Measured, ScoredRow, SectionedBenchmark, mean
from rewardline.evaluation.results import Section


class LLMBar(SectionedBenchmark):
    """One output that follows the instruction, and one that deviates but may look better."""

    name = "llmbar"
    title = "LLMBar"
    measures = "instruction following against outputs that only look better"
    figures = (
        "Accuracy by subset; `Adversarial` is the mean of the four adversarial ones, `overall` of all five. A tie"
        " counts half, as the mean of both orders. If rows name no subset, their file or its folder does."
    )
    size = "419 pairs"
    license = "MIT"
    source = "[princeton-nlp/LLMBar](https://github.com/princeton-nlp/LLMBar) (`Dataset/LLMBar`), arXiv 2310.07641"
    sections = ("Natural", "Neighbor", "GPTInst", "GPTOut", "Manual")
    reading: ClassVar[JsonObject] = {
        "format": "preference",
        "fields": {"prompt": "input", "answer_a": "output_1", "answer_b": "output_2", "preference": "label"},
        "values": {"first": 1, "second": 2},
    }
    shape = BenchmarkRows(name=name, subsets=list(sections))

    def score(self, rows: Sequence[ScoredRow]) -> float:
        """The accuracy."""
        return mean([row.half_credit for row in rows])

    def measure(self, rows: Sequence[ScoredRow]) -> Measured:
        """The subsets, and the mean of the adversarial ones."""
        overall, sections = super().measure(rows)
        parts = [section for name, section in sections.items() if name != "Natural"]
        if parts:
            adversarial = Section(score=mean([part.score for part in parts]), n=sum(part.n for part in parts))
            sections = {**sections, "Adversarial": adversarial}
        return Measured(overall, sections)
