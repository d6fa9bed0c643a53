"""Several answers with a score each, as in UltraFeedback (Cui et al. 2023, arXiv 2310.01377)."""

from collections.abc import Sequence
from typing import ClassVar

from rewardline.core.settings import JsonObject
from rewardline.data.formats.settings import BenchmarkRows
from rewardline.evaluation.published.base import Benchmark, Measured, ScoredRow, mean
from rewardline.evaluation.published.rankings import Floats, ndcg, scores_and_golds, tau_b
from rewardline.evaluation.results import Section


class UltraFeedback(Benchmark):
    """How well scores rank several answers, for any data with a score or a rank for each answer."""

    name = "ultrafeedback"
    title = "UltraFeedback"
    measures = "the order of four answers by the ratings of GPT-4, or of any ranked answers"
    figures = (
        "`Kendall`: the mean of Kendall's tau-b between the scores and those of the data; `nDCG`; `best`: how often the"
        " answer with the greatest score has the best one in the data. `overall` is `Kendall`. Prompts whose answers"
        " all have the same score in the data are left out."
    )
    size = "63,967 prompts with 4 answers"
    license = "MIT"
    source = "[openbmb/UltraFeedback](https://huggingface.co/datasets/openbmb/UltraFeedback), arXiv 2310.01377"
    reading: ClassVar[JsonObject] = {"format": "ranked"}
    shape = BenchmarkRows(name=name, score_keys=("fine-grained_score",))  # `overall_score` is another, which has errors

    def measure(self, rows: Sequence[ScoredRow]) -> Measured:
        """The three figures."""
        lists = [scores_and_golds(row) for row in rows]
        figures = {"Kendall": tau_b, "nDCG": ndcg, "best": _best}
        sections = {
            name: Section(score=mean([figure(*both) for both in lists]), n=len(lists))
            for name, figure in figures.items()
        }
        return Measured(sections["Kendall"].score, sections)


def _best(scores: Floats, golds: Floats) -> float:
    """How often an answer with the greatest score has the greatest gold score; equal scores share it."""
    return float((golds[scores == scores.max()] == golds.max()).mean())
