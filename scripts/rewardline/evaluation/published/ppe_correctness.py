"""Preference Proxy Evaluations, correctness (Frick et al. 2024, arXiv 2410.14872)."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from rewardline.core.settings import JsonObject
from rewardline.data.formats.settings import BenchmarkRows
from rewardline.evaluation.metrics.best_of import expected_best
from rewardline.evaluation.published.base import Measured, ScoredRow, SectionedBenchmark, mean
from rewardline.evaluation.published.rankings import Floats, scores_and_golds
from rewardline.evaluation.results import Section


class PPECorrectness(SectionedBenchmark):
    """Right answers among 32 of one model, checked by the benchmark that the question comes from."""

    name = "ppe_correctness"
    title = "PPE, correctness"
    measures = "right against wrong answers of one model in MMLU-Pro, MATH, GPQA, MBPP+ and IFEval"
    figures = (
        "`accuracy`: the share of a prompt's pairs of a right and a wrong answer whose right one has the greater score,"
        " a tie half (this is the ROC AUC of the prompt, and what the published accuracy estimates from sampled pairs);"
        " `maximum` and `end`: the greatest and the last value of the best-of-k curve, k = 1 to 32; `error`: the mean"
        " over k of the best possible minus the reached value. Of several subsets each has its accuracy; `overall` is"
        " their mean."
    )
    size = "2,555 prompts with 32 answers"
    license = "of the five sources, see the datasets"
    source = "[lmarena-ai/PPE-MMLU-Pro-Best-of-K](https://huggingface.co/datasets/lmarena-ai/PPE-MMLU-Pro-Best-of-K) \
and -MATH-, -GPQA-, -MBPP-Plus-, -IFEval-, arXiv 2410.14872"
    reading: ClassVar[JsonObject] = {
        "format": "ranked",
        "fields": {"prompt": "prompt", "answers": "response_*", "scores": "scores"},
    }
    shape = BenchmarkRows(name=name)

    def score(self, rows: Sequence[ScoredRow]) -> float:
        """The mean of the prompts' accuracies."""
        return mean([_auc(row) for row in rows])

    def measure(self, rows: Sequence[ScoredRow]) -> Measured:
        """The accuracy by subset, and the figures of the best-of-k curve."""
        overall, subsets = super().measure(rows)
        sections = {"accuracy": Section(score=overall, n=len(rows)), **(subsets if len(subsets) > 1 else {})}
        lists = [scores_and_golds(row) for row in rows]
        if lists:
            sizes = range(1, min(len(scores) for scores, _ in lists) + 1)
            reached, possible = (
                np.mean([expected_best(by, golds, sizes) for by, golds in pairs], axis=0)
                for pairs in (lists, [(golds, golds) for _, golds in lists])
            )
            figures = {"maximum": reached.max(), "end": reached[-1], "error": (possible - reached).mean()}
            sections |= {name: Section(score=float(value), n=len(rows)) for name, value in figures.items()}
        return Measured(overall, sections)


def _auc(row: ScoredRow) -> float:
    scores, golds = scores_and_golds(row)
    better: Floats = np.sign(np.subtract.outer(scores, scores))[np.greater.outer(golds, golds)]
    return float((better + 1).mean() / 2)
