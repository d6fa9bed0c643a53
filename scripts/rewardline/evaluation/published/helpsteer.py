"""Answers rated by attributes, as in HelpSteer (Wang et al. 2023, arXiv 2311.09528) and HelpSteer2 (2406.08673)."""

from collections.abc import Sequence
from typing import ClassVar

from rewardline.core.settings import JsonObject
from rewardline.data.formats.settings import BenchmarkRows
from rewardline.evaluation.published.base import ScoredRow, SectionedBenchmark, mean
from rewardline.evaluation.published.rankings import scores_and_golds, tau_b


class HelpSteer(SectionedBenchmark):
    """Which attributes of answers the scores follow: a ranking of the answers to a prompt by each."""

    name = "helpsteer"
    title = "HelpSteer"
    measures = "which rated attributes the scores follow: helpfulness, correctness, coherence, complexity, verbosity"
    figures = (
        "Kendall's tau-b between the scores and the ratings of a prompt's answers, a mean over prompts for each of the"
        " `attributes`, whose name is the subset; `overall` is their mean. Their weights have no effect. Prompts whose"
        " answers all have the same rating are left out."
    )
    size = "1,038 answers to 519 prompts (HelpSteer2, validation)"
    license = "CC-BY-4.0"
    source = "[nvidia/HelpSteer2](https://huggingface.co/datasets/nvidia/HelpSteer2), arXiv 2406.08673"
    reading: ClassVar[JsonObject] = {
        "format": "labelled",
        "attributes": {"helpfulness": 1, "correctness": 1, "coherence": 1, "complexity": 1, "verbosity": 1},
    }
    shape = BenchmarkRows(name=name, each_attribute=True)

    def score(self, rows: Sequence[ScoredRow]) -> float:
        """The mean of Kendall's tau-b."""
        return mean([tau_b(*scores_and_golds(row)) for row in rows])
