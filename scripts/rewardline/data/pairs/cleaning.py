"""The cleaning of the pairs of a mixture, a group of similar prompts at a time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np

from rewardline.data.pairs.candidates import Candidate, all_words, context_id, prompt_words
from rewardline.data.pairs.decontamination import Leak
from rewardline.data.pairs.identity import Hashes, normalize, position, word_hashes
from rewardline.data.pairs.near_duplicates import distinct_shingles, jaccard, signatures, similarity

COMPARED = 1_000
"""Pairs of a group that a further one is compared with before it counts as new: keeps large groups linear."""
ESTIMATE = 0.2
"""How far below the least similarity an estimate may lie for texts to be compared exactly: four standard deviations."""
Leaks = Callable[[int, Callable[[], Hashes]], Leak | None]


@dataclass(frozen=True)
class Policy:
    """What happens to the pairs of a mixture.

    `weights` by data set: below 1 that share of its training prompts is taken. `caps`: the position below which a
    prompt of a capped data set is taken. `near_duplicates`: least similarity of texts that count as nearly the same,
    None for equal ones alone. `keep_all`: a published benchmark, of which every pair counts as it was published.
    """

    seed: int
    weights: dict[str, float]
    caps: dict[str, float] = field(default_factory=dict)
    near_duplicates: float | None = None
    keep_all: bool = False


@dataclass
class Cleaned:
    """The pairs of a group of prompts after cleaning, and what was left out of them with its reason."""

    train: list[Candidate] = field(default_factory=list)
    eval: list[Candidate] = field(default_factory=list)
    rejects: list[tuple[Candidate, str, str]] = field(default_factory=list)


def clean(candidates: list[Candidate], held_out: bool, policy: Policy, leak: Leaks) -> Cleaned:
    """Deduplicate, split and sample the pairs of a group: all those whose prompts are equal or nearly the same.

    Of equal pairs the one of the weightiest data set stays, then the first; likewise of pairs that are nearly the same.
    Pairs that contradict each other (A over B and B over A) all go, since nothing says which label is right. Texts are
    equal that differ in case, punctuation and spacing alone, unless that is all the difference between chosen and
    rejected. A tie is no preference: it repeats another tie, and contradicts nothing. A training pair whose prompt
    stands in a benchmark goes; `leak` says which.
    """
    result = Cleaned()

    def first(pair: Candidate) -> tuple[Any, ...]:
        return pair.prompt_id, -policy.weights[pair.dataset], *pair.order

    if policy.keep_all:
        result.eval = sorted(candidates, key=first)
        return result
    kept: list[Candidate] = []
    for _, pairs in groupby(sorted(candidates, key=first), key=attrgetter("prompt_id")):
        kept += _without_conflicts(list(pairs), result)
    if policy.near_duplicates is not None:
        kept = _without_near_duplicates(kept, policy.near_duplicates, result)
    kept.sort(key=attrgetter("order"))  # so that prompts that differ in writing alone do not alternate
    if held_out:
        result.eval = [pair for pair in kept if pair.confidence > 0.5]
        result.rejects += [(pair, "tie", "a tie can be trained on only") for pair in kept if pair.confidence <= 0.5]
        return result
    for prompt_id, pairs in groupby(kept, key=attrgetter("prompt_id")):
        some = list(pairs)
        found = leak(prompt_id, partial(all_words, some[0].prompt))
        for pair in some:
            if found is not None:
                result.rejects.append((pair, "in_benchmark", found.detail))
            elif (reject := _unsampled(pair, policy)) is not None:
                result.rejects.append((pair, *reject))
            else:
                result.train.append(pair)
    return result


def _unsampled(pair: Candidate, policy: Policy) -> tuple[str, str] | None:
    """Why a pair is not in the share of its data set that the mixture takes; None where it is."""
    weight, cap = policy.weights[pair.dataset], policy.caps.get(pair.dataset, 1.0)
    if min(weight, cap) >= 1:
        return None
    place = position(f"sample {policy.seed} {pair.dataset}", pair.prompt_id)
    if place >= weight:
        return "not_sampled", f"the mixture takes a share of {weight:g}"
    return ("over_cap", "the mixture has a cap on this data set") if place >= cap else None


def _without_conflicts(pairs: list[Candidate], result: Cleaned) -> list[Candidate]:
    """Drop equal and contradictory pairs of one prompt."""
    if len(pairs) == 1:
        return pairs
    first: dict[tuple[str, ...], Candidate] = {}
    answers = dict.fromkeys(text for pair in pairs for text in (pair.chosen, pair.rejected))
    normal = {text: normalize(text) for text in answers}
    for pair in pairs:
        kept = first.setdefault(_key(pair, normal), pair)
        if kept is not pair:
            result.rejects.append((pair, "duplicate", f"equal to {kept.where}"))
    consistent = []
    for key, pair in first.items():
        other = first.get((key[1], key[0])) if len(key) == 2 else None
        if other is None:
            consistent.append(pair)
        else:
            result.rejects.append((pair, "contradiction", f"{other.where} prefers the other answer"))
    return consistent


def _key(pair: Candidate, normal: dict[str, str]) -> tuple[str, ...]:
    """What equal pairs of a prompt have in common: chosen and rejected, and a third entry for a tie."""
    chosen, rejected = normal[pair.chosen], normal[pair.rejected]
    if chosen == rejected:  # the difference is in what is normalised away
        chosen, rejected = pair.chosen, pair.rejected
    return (*sorted((chosen, rejected)), "tie") if pair.confidence == 0.5 else (chosen, rejected)


def _without_near_duplicates(pairs: list[Candidate], least: float, result: Cleaned) -> list[Candidate]:
    """Drop a pair when an earlier one is nearly the same in prompt, chosen and rejected; both if one is reversed.

    A pair whose own answers are that similar to each other is about the small difference between them, and stays, as
    does a tie.
    """
    if len(pairs) < 2:
        return pairs
    texts = _Texts(pairs, least)
    compared: list[int] = []
    gone: set[int] = set()
    for number, pair in enumerate(pairs):
        if pair.confidence == 0.5 or texts.alike(pair.chosen, pair.rejected):
            continue
        recent = compared[-COMPARED:]
        if (like := texts.near(number, recent)) is not None:
            gone.add(number)
            result.rejects.append((pair, "near_duplicate", f"nearly equal to {pairs[like].where}"))
        elif (other := texts.near(number, recent, reverse=True)) is not None:
            for one, against in ((number, other), (other, number)):
                if one not in gone:
                    gone.add(one)
                    detail = f"{pairs[against].where} prefers nearly the same other answer"
                    result.rejects.append((pairs[one], "contradiction", detail))
        else:
            compared.append(number)
    return [pair for number, pair in enumerate(pairs) if number not in gone]


class _Texts:
    """Compares the pairs of a group: by the signatures of their answers, and exactly where these are alike."""

    def __init__(self, pairs: list[Candidate], least: float) -> None:
        self._pairs, self._least = pairs, least
        answers = list(dict.fromkeys(text for pair in pairs for text in (pair.chosen, pair.rejected)))
        self._words = {text: word_hashes(text) for text in answers}
        self._signatures = signatures(list(self._words.values()))
        self._sets: dict[str, Hashes] = {}
        place = {text: index for index, text in enumerate(answers)}
        self._chosen = np.array([place[pair.chosen] for pair in pairs])
        self._rejected = np.array([place[pair.rejected] for pair in pairs])

    def near(self, number: int, others: list[int], reverse: bool = False) -> int | None:
        """The last of `others` that is nearly the same pair as `number`, or its reverse."""
        if not others:
            return None
        likely = np.ones(len(others), dtype=bool)
        own = (self._rejected, self._chosen) if reverse else (self._chosen, self._rejected)
        for mine, side in zip(own, (self._chosen, self._rejected), strict=True):
            shares = similarity(self._signatures[side[others]], self._signatures[mine[number]])
            likely &= shares >= self._least - ESTIMATE
        pair = self._pairs[number]
        chosen, rejected = (pair.rejected, pair.chosen) if reverse else (pair.chosen, pair.rejected)
        for index in reversed(np.flatnonzero(likely).tolist()):
            other = self._pairs[others[index]]
            if self.alike(chosen, other.chosen) and self.alike(rejected, other.rejected) and self._prompts(pair, other):
                return others[index]
        return None

    def alike(self, one: str, other: str) -> bool:
        """Whether two texts are equal but for case, punctuation and spacing, or share most of their word pairs."""
        if one == other:
            return True
        first, second = self._set(one), self._set(other)
        if min(len(first), len(second)) < self._least * max(len(first), len(second)):
            return False
        return jaccard(first, second) >= self._least or normalize(one) == normalize(other)

    def _prompts(self, one: Candidate, other: Candidate) -> bool:
        if one.prompt_id == other.prompt_id:
            return True
        return context_id(one.prompt) == context_id(other.prompt) and self.alike(one.prompt, other.prompt)

    def _set(self, text: str) -> Hashes:
        """The shingles of an answer, or of a prompt in canonical JSON."""
        if text not in self._sets:
            words = self._words.get(text)
            self._sets[text] = distinct_shingles(words if words is not None else prompt_words(text))
        return self._sets[text]
