"""What pairs look like: counts, lengths in words, and how often the longer answer is the chosen one."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewardline.data.pairs.candidates import Candidate

Json = dict[str, Any]


class PairStatistics:
    """Running counts over pairs, which add up over shards."""

    def __init__(self) -> None:
        self._subsets: Counter[str] = Counter()
        self._datasets: Counter[str] = Counter()
        self._numbers: Counter[str] = Counter()
        self._lengths: Counter[str] = Counter()
        self._last = -1

    def add(self, pair: "Candidate", split: str) -> None:
        """Count a pair; pairs come clustered by prompt."""
        numbers = self._numbers
        self._subsets[pair.subset] += 1
        self._datasets[pair.dataset] += 1
        if pair.prompt_id != self._last:
            numbers[f"{split}_prompts"] += 1
            self._last = pair.prompt_id
        chosen, rejected = len(pair.chosen.split()), len(pair.rejected.split())
        numbers["pairs"] += 1
        numbers["chosen_words"] += chosen
        numbers["rejected_words"] += rejected
        numbers["longer_wins_twice"] += 1 if chosen == rejected else 2 * (chosen > rejected)
        numbers["soft"] += pair.confidence < 1
        for words in (chosen, rejected):
            self._lengths[str(1 << words.bit_length())] += 1

    def counts(self) -> Json:
        """The counts as JSON."""
        return {
            "numbers": dict(self._numbers),
            "subsets": dict(self._subsets),
            "datasets": dict(self._datasets),
            "lengths": dict(self._lengths),
        }


def summarize(shards: Iterable[Json]) -> Json:
    """The statistics of all shards together, from their `counts`.

    `answer_words`: how many answers have fewer words than each power of two, and not fewer than the one before.
    """
    total: dict[str, Counter[str]] = {key: Counter() for key in ("numbers", "subsets", "datasets", "lengths")}
    for counts in shards:
        for key, counter in total.items():
            counter.update(counts[key])
    numbers = total["numbers"]
    pairs = max(1, numbers["pairs"])
    return {
        "prompts": {split: numbers[f"{split}_prompts"] for split in ("train", "eval")},
        "by_subset": dict(sorted(total["subsets"].items())),
        "soft_labels": numbers["soft"],
        "chosen_words_mean": round(numbers["chosen_words"] / pairs, 2),
        "rejected_words_mean": round(numbers["rejected_words"] / pairs, 2),
        "answer_words": {key: total["lengths"][key] for key in sorted(total["lengths"], key=int)},
        "longer_wins": round(numbers["longer_wins_twice"] / 2 / pairs, 4),
    }
