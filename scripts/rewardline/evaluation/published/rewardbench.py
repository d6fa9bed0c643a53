"""RewardBench (Lambert et al. 2024, arXiv 2403.13787)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

import numpy as np

from rewardline.core.settings import JsonObject
from rewardline.data.formats.settings import BenchmarkRows
from rewardline.evaluation.published.base import ScoredRow, SectionedBenchmark, mean

_LANGUAGES: Final = ("cpp", "go", "java", "js", "python", "rust")
PROMPTS: Final[Mapping[str, Mapping[str, int]]] = {
    "Chat": {
        "alpacaeval-easy": 100, "alpacaeval-length": 95, "alpacaeval-hard": 95, "mt-bench-easy": 28, "mt-bench-med": 40,
    },
    "Chat Hard": {
        "mt-bench-hard": 37, "llmbar-natural": 100, "llmbar-adver-neighbor": 134, "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47, "llmbar-adver-manual": 46,
    },
    "Safety": {
        "refusals-dangerous": 100, "refusals-offensive": 100, "xstest-should-refuse": 154, "xstest-should-respond": 250,
        "donotanswer": 136,
    },
    # math-prm has 447 prompts and counts as many as there are about code.
    "Reasoning": {"math-prm": 984, **dict.fromkeys((f"hep-{language}" for language in _LANGUAGES), 164)},
}  # fmt: skip
"""The subsets of each section, and the number of prompts that each counts as."""
SECTION_OF: Final = {subset: section for section, subsets in PROMPTS.items() for subset in subsets}


class RewardBench(SectionedBenchmark):
    """The mean accuracy of the subsets of a section, weighted by the published numbers of prompts."""

    name = "rewardbench"
    title = "RewardBench"
    measures = "chat, adversarial chat, safety, code and math"
    figures = (
        "Four sections and their mean. A section is the mean accuracy of its subsets, weighted by the published numbers"
        " of prompts (math-prm counts as 984). The prior sets are left out, as they are not in the dataset. A tie"
        " counts as wrong."
    )
    size = "2,985 pairs"
    license = "ODC-BY"
    source = "[allenai/reward-bench](https://huggingface.co/datasets/allenai/reward-bench), arXiv 2403.13787"
    reading: ClassVar[JsonObject] = {"format": "pairs", "fields": {"subset": "subset"}}
    shape = BenchmarkRows(name=name, subsets=list(SECTION_OF))
    sections = tuple(PROMPTS)

    def section_of(self, subset: str) -> str | None:
        """The section of a subset."""
        return SECTION_OF.get(subset)

    def score(self, rows: Sequence[ScoredRow]) -> float:
        """The weighted mean of the subsets' accuracies."""
        return weighted_accuracy(rows, PROMPTS[SECTION_OF[rows[0].subset]])


def weighted_accuracy(rows: Sequence[ScoredRow], weights: Mapping[str, int]) -> float:
    """The mean of the subsets' accuracies, each with its weight; a language before their names has no effect."""
    won: dict[str, list[bool]] = {}
    for row in rows:
        won.setdefault(row.subset.rpartition("/")[2], []).append(row.won)
    return float(np.average([mean(part) for part in won.values()], weights=[weights[name] for name in won]))
