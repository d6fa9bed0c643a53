"""What a mixture's pairs look like: counts, lengths, and how often the longer answer is the chosen one."""

from collections import Counter
from typing import Any

from rewardline.pairs import Candidate


class PairStatistics:
    """Running counts over pairs; lengths are in words."""

    def __init__(self) -> None:
        self.rows_used = 0
        self._subsets: Counter[str] = Counter()
        self._prompts: dict[str, int] = {"train": 0, "eval": 0}
        self._last = ""
        self._words: Counter[str] = Counter()
        self._longer = 0.0
        self._pairs = 0

    def add(self, pair: Candidate, split: str) -> None:
        """Count a pair; pairs come clustered by prompt."""
        self._pairs += 1
        self._subsets[pair.subset] += 1
        if pair.prompt_id != self._last:
            self._prompts[split] += 1
            self._last = pair.prompt_id
        chosen, rejected = len(pair.chosen.split()), len(pair.rejected.split())
        self._words["chosen"] += chosen
        self._words["rejected"] += rejected
        self._longer += 0.5 if chosen == rejected else float(chosen > rejected)

    def summary(self) -> dict[str, Any]:
        """The statistics as JSON."""
        pairs = max(1, self._pairs)
        return {
            "prompts": self._prompts,
            "by_subset": dict(sorted(self._subsets.items())),
            "chosen_words_mean": round(self._words["chosen"] / pairs, 2),
            "rejected_words_mean": round(self._words["rejected"] / pairs, 2),
            "longer_wins": round(self._longer / pairs, 4),
        }
