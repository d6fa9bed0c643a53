"""The cleaning of the pairs of a mixture, a group of similar prompts at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import attrgetter

import numpy as np

from rewardline.candidates import Candidate, prompt_words
from rewardline.contamination import Leak
from rewardline.identity import Hashes, normalize, position, word_hashes
from rewardline.similarity import distinct_shingles, jaccard, signatures

COMPARED = 200
"""Pairs of a group that a further one is compared with before it counts as new: keeps large groups linear."""
ESTIMATE = 0.2
"""How far below the least similarity an estimate may lie for texts to be compared exactly: four standard deviations."""


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
    group: int,
    candidates: list[Candidate],
    policy: Policy,
    leak: Callable[[int, Callable[[], Hashes]], Leak | None],
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
        result.eval = [pair for pair in kept if pair.confidence > 0.5]
        result.rejects += [(pair, "tie", "a tie can be trained on only") for pair in kept if pair.confidence <= 0.5]
        return result
    for prompt_id, pairs in groupby(kept, key=attrgetter("prompt_id")):
        some = list(pairs)
        found = leak(prompt_id, partial(prompt_words, some[0].prompt))
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
    if len(pairs) < 2:
        yield from pairs
        return
    texts = _Texts(pairs, least)
    kept: list[int] = []
    for number, pair in enumerate(pairs):
        like = None
        if kept and not texts.alike(pair.chosen, pair.rejected):
            like = texts.near(number, kept[-COMPARED:])
        if like is None:
            kept.append(number)
            yield pair
        else:
            result.rejects.append((pair, "near_duplicate", f"nearly equal to {pairs[like].where}"))


class _Texts:
    """Compares the pairs of a group: by the signatures of their answers, and exactly where these are alike."""

    def __init__(self, pairs: list[Candidate], least: float) -> None:
        self._pairs, self._least = pairs, least
        answers = list(dict.fromkeys(text for pair in pairs for text in (pair.chosen, pair.rejected)))
        self._words = {text: word_hashes(text) for text in answers}
        self._signatures = signatures(list(self._words.values()))
        place = {text: index for index, text in enumerate(answers)}
        self._chosen = np.array([place[pair.chosen] for pair in pairs])
        self._rejected = np.array([place[pair.rejected] for pair in pairs])

    def near(self, number: int, others: list[int]) -> int | None:
        """The last of `others` that is nearly the same pair as `number`."""
        likely = np.ones(len(others), dtype=bool)
        for side in (self._chosen, self._rejected):
            shares = (self._signatures[side[others]] == self._signatures[side[number]]).mean(axis=1)
            likely &= shares >= self._least - ESTIMATE
        pair = self._pairs[number]
        for index in reversed(np.flatnonzero(likely).tolist()):
            other = self._pairs[others[index]]
            same_prompt = pair.prompt_id == other.prompt_id or self.alike(pair.prompt, other.prompt)
            if same_prompt and self.alike(pair.chosen, other.chosen) and self.alike(pair.rejected, other.rejected):
                return others[index]
        return None

    def alike(self, one: str, other: str) -> bool:
        """Whether two texts are equal but for case, punctuation and spacing, or share most of their word pairs."""
        if one == other:
            return True
        first, second = (distinct_shingles(self._read(text)) for text in (one, other))
        if min(len(first), len(second)) < self._least * max(len(first), len(second)):
            return False
        return jaccard(first, second) >= self._least or normalize(one) == normalize(other)

    def _read(self, text: str) -> Hashes:
        found = self._words.get(text)
        return found if found is not None else prompt_words(text)
