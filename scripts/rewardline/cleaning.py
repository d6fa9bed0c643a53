"""The cleaning of the pairs of a mixture, a group of similar prompts at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

from rewardline.candidates import Candidate, prompt_words
from rewardline.contamination import Leak
from rewardline.identity import Hashes, normalize, position, word_hashes
from rewardline.similarity import distinct_shingles, jaccard

COMPARED = 200
"""Pairs of a group that a further one is compared with before it counts as new: keeps large groups linear."""


@dataclass(frozen=True)
class Policy:
    """What happens to the pairs of a mixture.

    `eval_below`: a group of prompts whose position lies below is held out. `weights` by data set: below 1 that share of
    its training prompts is taken. `caps`: the position below which a prompt of a capped data set is taken.
    `near_duplicates`: least similarity of answers that count as nearly the same, None for equal ones alone.
    """

    seed: int
    eval_below: float
    weights: dict[str, float]
    caps: dict[str, float] = field(default_factory=dict)
    near_duplicates: float | None = None


@dataclass
class Cleaned:
    """The pairs of a group of prompts after cleaning, and what was left out of them with its reason."""

    train: list[Candidate] = field(default_factory=list)
    eval: list[Candidate] = field(default_factory=list)
    rejects: list[tuple[Candidate, str, str]] = field(default_factory=list)


def clean(
    group: int, candidates: list[Candidate], policy: Policy, leak: Callable[[int, Hashes], Leak | None]
) -> Cleaned:
    """Deduplicate, split and sample the pairs of a group: all those whose prompts are equal or nearly the same.

    Of equal pairs the first stays, and of pairs that are nearly the same in both answers. Pairs that contradict each
    other (A over B and B over A) all go, since nothing says which label is right. The group stands on one side of the
    split as a whole. A training pair whose prompt stands in a benchmark goes. `leak` says which.
    """
    result = Cleaned()
    kept: list[Candidate] = []
    for _, pairs in groupby(sorted(candidates, key=lambda pair: pair.order), key=attrgetter("prompt_id")):
        kept += _without_conflicts(list(pairs), result)
    if policy.near_duplicates is not None:
        kept = list(_without_near_duplicates(kept, policy.near_duplicates, result))
    if position(f"split {policy.seed}", group) < policy.eval_below:
        result.eval = kept
        return result
    for prompt_id, pairs in groupby(kept, key=attrgetter("prompt_id")):
        some = list(pairs)
        found = leak(prompt_id, prompt_words(some[0].prompt))
        for pair in some:
            weight = policy.weights[pair.dataset]
            place = position(f"sample {policy.seed} {pair.dataset}", prompt_id)
            if found is not None:
                result.rejects.append((pair, "in_benchmark", found.detail))
            elif weight < 1 and place >= weight:
                result.rejects.append((pair, "not_sampled", f"the mixture takes a share of {weight:g}"))
            elif place >= policy.caps.get(pair.dataset, 1.0):
                result.rejects.append((pair, "over_cap", "the mixture has a cap on this data set"))
            else:
                result.train.append(pair)
    return result


def _without_conflicts(pairs: list[Candidate], result: Cleaned) -> list[Candidate]:
    first: dict[str, Candidate] = {}
    for pair in pairs:
        kept = first.setdefault(pair.pair_id, pair)
        if kept is not pair:
            result.rejects.append((pair, "duplicate", f"equal to {kept.where}"))
    consistent = []
    for pair in first.values():
        other = first.get(pair.reverse_id)
        if other is None:
            consistent.append(pair)
        else:
            result.rejects.append((pair, "contradiction", f"{other.where} prefers the other answer"))
    return consistent


def _without_near_duplicates(pairs: list[Candidate], least: float, result: Cleaned) -> Iterator[Candidate]:
    """Drop a pair when an earlier one is nearly the same in prompt, chosen and rejected.

    A pair whose own answers are that similar to each other is about the small difference between them, and stays.
    """
    texts = _Texts(least)
    kept: list[Candidate] = []
    for pair in pairs:
        like = None
        if kept and not texts.alike(pair.chosen, pair.rejected):
            like = next((other for other in reversed(kept[-COMPARED:]) if texts.near(pair, other)), None)
        if like is None:
            kept.append(pair)
            yield pair
        else:
            result.rejects.append((pair, "near_duplicate", f"nearly equal to {like.where}"))


class _Texts:
    """Compares the texts of a group; what is found out of each, and of each two, is kept."""

    def __init__(self, least: float) -> None:
        self._least = least
        self._read: dict[str, tuple[str, Hashes]] = {}
        self._alike: dict[tuple[str, str], bool] = {}

    def near(self, one: Candidate, other: Candidate) -> bool:
        """Whether two pairs are nearly the same."""
        return (
            self.alike(one.chosen, other.chosen)
            and self.alike(one.rejected, other.rejected)
            and (one.prompt_id == other.prompt_id or self.alike(one.prompt, other.prompt))
        )

    def alike(self, one: str, other: str) -> bool:
        """Whether two texts are equal but for case, punctuation and spacing, or share most of their word pairs."""
        if one == other:
            return True
        if (one, other) not in self._alike:
            self._alike[one, other] = self._compare(one, other)
        return self._alike[one, other]

    def _compare(self, one: str, other: str) -> bool:
        (first, words), (second, others) = self._words(one), self._words(other)
        return first == second or jaccard(words, others) >= self._least

    def _words(self, text: str) -> tuple[str, Hashes]:
        if text not in self._read:
            self._read[text] = normalize(text), distinct_shingles(word_hashes(text))
        return self._read[text]
