"""RMB (Zhou et al. 2024, arXiv 2410.09893)."""

from collections.abc import Sequence
from typing import ClassVar

from rewardline.core.settings import JsonObject
from rewardline.data.formats.settings import BenchmarkRows
from rewardline.evaluation.published.base import ScoredRow, SectionedBenchmark, mean


class RMB(SectionedBenchmark):
    """Pairs, and lists whose best answer must win against all others; helpfulness and harmlessness."""

    name = "rmb"
    title = "RMB"
    measures = "helpfulness in 12 tasks and harmlessness in 12 areas, by pairs and by best-of-n"
    figures = (
        "Four sections and their mean: pairs and best-of-n lists of both goals. A pair or list counts as right if the"
        " chosen answer has a greater score than each rejected one."
    )
    size = "about 18,000 pairs and 3,786 lists of 3 to 7 answers"
    license = "none stated"
    source = "[Zhou-Zoey/RMB-Reward-Model-Benchmark](https://github.com/Zhou-Zoey/RMB-Reward-Model-Benchmark), \
arXiv 2410.09893"
    sections = ("Pairwise_set/Helpfulness", "Pairwise_set/Harmlessness", "BoN_set/Helpfulness", "BoN_set/Harmlessness")
    # The good answer is `chosen` or `bon_best`, the bad ones are `reject` or `loser_list`.
    reading: ClassVar[JsonObject] = {
        "format": "good_bad",
        "fields": {"prompt": "conversation_input", "subset": "category_path"},
    }
    shape = BenchmarkRows(name=name, subsets=list(sections), pattern=f"({'|'.join(sections)}).*")

    def score(self, rows: Sequence[ScoredRow]) -> float:
        """The share of pairs or lists whose chosen answer wins."""
        return mean([row.won for row in rows])
