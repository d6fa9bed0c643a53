"""RewardMATH (Kim et al. 2024, arXiv 2410.01729)."""

from collections.abc import Sequence
from typing import ClassVar

from rewardline.core.settings import JsonObject
from rewardline.data.formats.settings import BenchmarkRows
from rewardline.evaluation.published.base import Benchmark, Measured, ScoredRow, share


class RewardMATH(Benchmark):
    """One right solution against nine wrong ones."""

    name = "rewardmath"
    title = "RewardMATH"
    measures = "the right one of ten solutions of a math problem"
    figures = (
        "`accuracy`: how often the right solution has a greater score than each of the nine wrong ones; `with ties`: or"
        " an equal one; `MRR`: the mean reciprocal rank of the right solution, below those of equal score. `overall` is"
        " the accuracy."
    )
    size = "483 problems with 1 + 9 solutions"
    license = "MIT"
    source = "[kimsh0507/RewardMATH_official](https://github.com/kimsh0507/RewardMATH_official) \
(`RewardMATH_direct.json`), arXiv 2410.01729"
    reading: ClassVar[JsonObject] = {
        "format": "labelled",
        "fields": {
            "prompt": "problem", "answer": "={eval_solution}", "label": "solution_type", "group": "problem_id",
            "subset": "subject",
        },
        "values": {"good": "chosen", "bad": "rejected"},
    }  # fmt: skip
    shape = BenchmarkRows(name=name)

    def measure(self, rows: Sequence[ScoredRow]) -> Measured:
        """The three figures."""
        accuracy = share(rows, lambda row: row.won)
        ties = share(rows, lambda row: row.least_chosen >= row.best_rejected)
        return Measured(accuracy.score, {"accuracy": accuracy, "with ties": ties, "MRR": share(rows, reciprocal_rank)})


def reciprocal_rank(row: ScoredRow) -> float:
    """1 / rank of the best chosen answer among all; rejected ones with an equal score come before it."""
    best = max(answer.score for answer in row.chosen.values())
    return 1 / (1 + sum(answer.score >= best for answer in row.rejected.values()))
