"""The cleaning of the pairs of a mixture, a shard and in it a group of similar prompts at a time."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import groupby
from operator import attrgetter, itemgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rewardline.core.hashing import canonical
from rewardline.core.progress import progress
from rewardline.data.pairs.candidates import (
    CandidateReader,
    as_candidates,
    context_id,
    pairs_of,
    prompt_words,
    ranges,
)
from rewardline.data.pairs.decontamination import BenchmarkPrompts
from rewardline.data.pairs.identity import Hashes, hash_words, id_range, normalize, unit_interval_hash, words_of
from rewardline.data.pairs.manifests import PairCounts, PromptsManifest, ShardManifest
from rewardline.data.pairs.near_duplicates import Signatures, distinct_shingles, jaccard, signatures, similarity
from rewardline.data.pairs.outcomes import RowOutcomes
from rewardline.data.pairs.prompt_groups import PromptGroups
from rewardline.data.pairs.rejects import RejectWriter
from rewardline.data.pairs.settings import CleanSettings
from rewardline.data.parquet import PartWriter, count_rows
from rewardline.data.schema import CANDIDATE_ORDER, PAIR_SCHEMA, Candidate, Pair
from rewardline.data.turns import packed_inputs

log = logging.getLogger(__name__)
MOST_COMPARED = 1_000
"""Most earlier pairs of a group that a pair is compared with: keeps large groups linear."""
FEW_COMPARED = 8
"""Earlier pairs that are compared without an estimate first, which costs as much as some comparisons."""
ESTIMATE_MARGIN = 0.2
"""Texts are compared exactly if their estimated similarity is at most this (four standard deviations) too low."""
_GROUP = "group"
FindInBenchmarks = Callable[[int, Callable[[], Hashes]], str | None]
"""`BenchmarkPrompts.find`."""


@dataclass
class Cleaned:
    """The pairs of a group of prompts after cleaning."""

    train: list[Candidate] = field(default_factory=list)
    eval: list[Candidate] = field(default_factory=list)
    rejects: list[tuple[Candidate, str, str]] = field(default_factory=list)
    """Each pair that is left out, with the reason and its details."""

    def reject(self, pair: Candidate, reason: str, detail: str) -> None:
        """Leave a pair out."""
        self.rejects.append((pair, reason, detail))


def clean_shard(settings: CleanSettings, prompts: Path, candidate_paths: Sequence[Path], out: Path) -> ShardManifest:
    """Write the pairs of a shard to `out`; `prompts` and `candidate_paths` are manifests, all of the mixture."""
    common = PromptsManifest.read(prompts)
    readers = [CandidateReader(path.parent) for path in candidate_paths]
    low, high = (2**64 * (settings.shard + k) // settings.shards for k in (0, 1))
    groups = PromptGroups.load(prompts.parent)
    benchmarks = BenchmarkPrompts.load(prompts.parent)
    writers = {split: PartWriter[Pair](out / split, PAIR_SCHEMA) for split in ("train", "eval")}
    rejects = RejectWriter(out)
    outcomes = RowOutcomes(sorted(settings.weights))
    counts = PairCounts()
    rows = sum(reader.count(low, high) for reader in readers)
    with progress("clean", total=rows, unit="pair") as bar:
        for rows, of_group in read_groups(readers, groups, low, high):
            held_out = groups.are_held_out(of_group)
            used = _used_as_they_are(rows, of_group, held_out, settings, common.caps, benchmarks)
            outcomes.add_used(rows.select(["dataset", "file", "row"]).filter(pa.array(used)))
            numbers = np.flatnonzero(~used)
            pairs = as_candidates(rows.take(pa.array(numbers)))
            place = {id(pair): number for pair, number in zip(pairs, numbers.tolist(), strict=True)}
            kept = {
                "train": np.flatnonzero(used & ~held_out).tolist(),
                "eval": np.flatnonzero(used & held_out).tolist(),
            }
            of_pairs = zip(of_group[numbers].tolist(), held_out[numbers].tolist(), pairs, strict=True)
            for (_, is_held_out), members in groupby(of_pairs, key=itemgetter(0, 1)):
                cleaned = clean([pair for _, _, pair in members], is_held_out, settings, common.caps, benchmarks.find)
                for split, its_pairs in (("train", cleaned.train), ("eval", cleaned.eval)):
                    for pair in its_pairs:
                        kept[split].append(place[id(pair)])
                        outcomes.add(pair)
                for pair, reason, detail in cleaned.rejects:
                    for file, row in pair.sources:
                        rejects.add(pair.dataset, file, row, reason, detail)
                    outcomes.add(pair, reason)
            for split, places in kept.items():
                order = np.array(places, dtype=np.int64)[np.argsort(of_group[places], kind="stable")]
                its_rows = rows.take(pa.array(order))
                counts.add_candidates(its_rows, split)
                writers[split].add_columns(pairs_of(its_rows, settings.weights if split == "train" else {}))
            bar.update(len(rows))
    outcomes.save(out / "rows.npy")
    parts = {split: writer.close() for split, writer in writers.items()}
    train, of_eval = count_rows(parts["train"]), count_rows(parts["eval"])
    log.info("shard %d of %d: %d train and %d eval pairs", settings.shard + 1, settings.shards, train, of_eval)
    examples = rejects.close()
    return ShardManifest(train=train, eval=of_eval, statistics=counts, reject_examples=examples, parts=parts)


def _used_as_they_are(
    rows: pa.Table,
    of_group: Hashes,
    held_out: npt.NDArray[np.bool_],
    settings: CleanSettings,
    caps: dict[str, float],
    benchmarks: BenchmarkPrompts,
) -> npt.NDArray[np.bool_]:
    """The pairs, in most data nearly all, that `clean` would only pass on: bool [N]; so they need not become objects.

    Each is alone in its group and made of one row, and nothing but its group can be a reason to leave it out.
    """
    if settings.keep_all:
        return np.zeros(len(rows), dtype=bool)
    is_other = np.append(np.append(True, of_group[1:] != of_group[:-1]), True)
    is_alone = is_other[:-1] & is_other[1:]
    of_one_row = pc.equal(pc.list_value_length(rows["others"]), 0).to_numpy()
    is_preference = rows["confidence"].to_numpy() > 0.5
    whole = [name for name, weight in settings.weights.items() if min(weight, caps.get(name, 1.0)) >= 1]
    is_whole = pc.is_in(rows["dataset"], pa.array(whole, pa.string())).to_numpy()
    is_trained_on = is_whole & ~benchmarks.may_have(rows["prompt_id"].to_numpy())
    used: npt.NDArray[np.bool_] = is_alone & of_one_row & np.where(held_out, is_preference, is_trained_on)
    return used


def read_groups(
    readers: Sequence[CandidateReader], groups: PromptGroups, low: int, high: int
) -> Iterator[tuple[pa.Table, Hashes]]:
    """All candidates of some groups of prompts whose ids are in [low, high), and the id of the group of each, sorted.

    Groups come by their ids, ascending, and the candidates of each in their order.
    """
    for start, end in ranges(readers, low, high):
        rows, of_group = _groups_between(readers, groups, start, end)
        if len(rows):
            yield rows, of_group
        del rows  # before the next ones are read


def _groups_between(
    readers: Sequence[CandidateReader], groups: PromptGroups, start: int, end: int
) -> tuple[pa.Table, Hashes]:
    """The result of `read_groups` in a range of ids."""
    outside = groups.members_outside(start, end)
    rows = pa.concat_tables([reader.read(start, end, outside) for reader in readers])
    of_group = groups.groups_of(rows["prompt_id"].to_numpy())
    keyed = rows.select(CANDIDATE_ORDER).append_column(_GROUP, pa.array(of_group))
    order = pc.sort_indices(keyed, [(name, "ascending") for name in (_GROUP, *CANDIDATE_ORDER)]).to_numpy()
    order = order[slice(*id_range(of_group[order], start, end))]
    is_sorted = np.array_equal(order, np.arange(len(rows)))
    return rows if is_sorted else rows.take(pa.array(order)), of_group[order]


def clean(
    candidates: list[Candidate], held_out: bool, settings: CleanSettings, caps: dict[str, float], find: FindInBenchmarks
) -> Cleaned:
    """Deduplicate, split and sample the pairs of a group: all those whose prompts are equal or nearly the same.

    Of equal pairs the one of the dataset with the largest weight is kept, then the first; likewise of pairs that are
    nearly the same. Pairs that contradict each other (A over B and B over A) are all left out, since it is unknown
    which label is right. Texts that differ only in case, punctuation and spacing are equal, unless chosen and rejected
    differ in nothing else. A tie is no preference: it can repeat another tie, but contradicts nothing. A training pair
    is left out if `find` finds its prompt in a benchmark, or if its prompt's hash is not below the weight of its
    dataset, or the cap of its dataset in `caps`.
    """
    result = Cleaned()

    def priority(pair: Candidate) -> tuple[int, float, tuple[int, str, str, str, int]]:
        return pair.prompt_id, -settings.weights[pair.dataset], pair.order

    if settings.keep_all:
        result.eval = sorted(candidates, key=priority)
        return result
    kept = candidates[:1] if len(candidates) == 1 else []
    if not kept:
        normal = {text: normalize(text) for pair in candidates for text in (pair.chosen, pair.rejected)}
        for _, pairs in groupby(sorted(candidates, key=priority), key=attrgetter("prompt_id")):
            kept += _without_conflicts(list(pairs), normal, result)
        if settings.near_duplicates is not None:
            kept = _without_near_duplicates(kept, settings.near_duplicates, normal, result)
    kept.sort(key=attrgetter("order"))  # so that prompts that differ in case or punctuation alone do not alternate
    if held_out:
        for pair in kept:
            if pair.confidence > 0.5:
                result.eval.append(pair)
            else:
                result.reject(pair, "tie", "a tie can be trained on only")
        return result
    for prompt_id, pairs in groupby(kept, key=attrgetter("prompt_id")):
        of_prompt = list(pairs)
        contamination = find(prompt_id, partial(prompt_words, of_prompt[0].prompt, system=True))
        for pair in of_prompt:
            if contamination is not None:
                result.reject(pair, "in_benchmark", contamination)
            elif (why := _why_not_sampled(pair, settings, caps)) is not None:
                result.reject(pair, *why)
            else:
                result.train.append(pair)
    return result


def _why_not_sampled(pair: Candidate, settings: CleanSettings, caps: dict[str, float]) -> tuple[str, str] | None:
    """The reason, with details, why a pair is not in the share of its dataset that the mixture uses, or None."""
    weight, cap = settings.weights[pair.dataset], caps.get(pair.dataset, 1.0)
    if min(weight, cap) >= 1:
        return None
    position = unit_interval_hash(f"sample {settings.seed} {pair.dataset}", pair.prompt_id)
    if position >= weight:
        return "not_sampled", f"the mixture takes a share of {weight:g}"
    return ("over_cap", "the mixture has a cap on this dataset") if position >= cap else None


def _without_conflicts(pairs: list[Candidate], normal: Mapping[str, str], result: Cleaned) -> list[Candidate]:
    """Leave out equal and contradictory pairs of one prompt; `normal` has the normalized form of each answer."""
    if len(pairs) == 1:
        return pairs
    first: dict[tuple[str, ...], Candidate] = {}
    for pair in pairs:
        kept = first.setdefault(_key(pair, normal), pair)
        if kept is not pair:
            result.reject(pair, "duplicate", f"equal to {kept.where}")
    consistent = []
    for key, pair in first.items():
        other = first.get((key[1], key[0])) if len(key) == 2 else None
        if other is None:
            consistent.append(pair)
        else:
            result.reject(pair, "contradiction", f"{other.where} prefers the other answer")
    return consistent


def _key(pair: Candidate, normal: Mapping[str, str]) -> tuple[str, ...]:
    """The key of equal pairs of a prompt: chosen and rejected, with a third entry for a tie.

    Of single answers, which contradict nothing, it has four entries.
    """
    chosen, rejected = normal[pair.chosen], normal[pair.rejected]
    if pair.ratings is not None:  # raters may disagree about an answer
        return "answer", chosen, packed_inputs(pair.native), canonical(pair.ratings)
    if chosen == rejected:  # they differ only in what normalization removes
        chosen, rejected = pair.chosen, pair.rejected
    if inputs := packed_inputs(pair.native):  # with other tools, it is another pair
        chosen, rejected = f"{chosen}\0{inputs}", f"{rejected}\0{inputs}"
    return (*sorted((chosen, rejected)), "tie") if pair.confidence == 0.5 else (chosen, rejected)


def _without_near_duplicates(
    pairs: list[Candidate], threshold: float, normal: Mapping[str, str], result: Cleaned
) -> list[Candidate]:
    """Leave out a pair if an earlier one is nearly the same in prompt, chosen and rejected; both if one is reversed.

    A pair whose two answers are that similar to each other is kept, since the small difference is what matters; so are
    ties, and single answers.
    """
    if len(pairs) < 2:
        return pairs
    comparison = _PairComparison(pairs, threshold, normal)
    compared: list[int] = []
    left_out: set[int] = set()
    for number, pair in enumerate(pairs):
        if pair.ratings is not None or pair.confidence == 0.5 or comparison.is_similar(pair.chosen, pair.rejected):
            continue
        recent = compared[-MOST_COMPARED:]
        if (equal := comparison.find(number, recent)) is not None:
            left_out.add(number)
            result.reject(pair, "near_duplicate", f"nearly equal to {pairs[equal].where}")
        elif (reverse := comparison.find(number, recent, reverse=True)) is not None:
            for first, second in ((number, reverse), (reverse, number)):
                if first not in left_out:
                    left_out.add(first)
                    detail = f"{pairs[second].where} prefers nearly the same other answer"
                    result.reject(pairs[first], "contradiction", detail)
        else:
            compared.append(number)
    return [pair for number, pair in enumerate(pairs) if number not in left_out]


class _PairComparison:
    """Compares the pairs of a group: exactly, and by the signatures of their answers where there are many."""

    def __init__(self, pairs: list[Candidate], threshold: float, normal: Mapping[str, str]) -> None:
        """`normal` has the normalized form of each answer."""
        self._pairs, self._threshold, self._normal = pairs, threshold, normal
        self._words: dict[str, Hashes] = {}
        self._sets: dict[str, Hashes] = {}

    @cached_property
    def _estimates(self) -> tuple[Signatures, npt.NDArray[np.int64]]:
        """The signatures of the answers, and the index of chosen and rejected of each pair, int64 [2, N]."""
        index = {text: number for number, text in enumerate(self._normal)}
        sides = [[index[getattr(pair, side)] for pair in self._pairs] for side in ("chosen", "rejected")]
        return signatures(list(map(self._words_of, index))), np.array(sides)

    def find(self, number: int, others: list[int], reverse: bool = False) -> int | None:
        """The last of the pairs `others` that is nearly the same as the pair `number`, or its reverse; None if none."""
        pair = self._pairs[number]
        chosen, rejected = (pair.rejected, pair.chosen) if reverse else (pair.chosen, pair.rejected)
        are_many = len(others) > FEW_COMPARED
        for index in reversed(self._likely(number, others, reverse) if are_many else others):
            other = self._pairs[index]
            if (
                self.is_similar(chosen, other.chosen)
                and self.is_similar(rejected, other.rejected)
                and self._same_prompt(pair, other)
                and (are_many or self._likely(number, [index], reverse))
            ):
                return index
        return None

    def _likely(self, number: int, others: list[int], reverse: bool) -> list[int]:
        """Those of the pairs `others` that are nearly the same by the estimate of the similarity of their answers."""
        rows, sides = self._estimates
        likely = np.ones(len(others), dtype=bool)
        for side, own in zip(sides, sides[::-1] if reverse else sides, strict=True):
            likely &= similarity(rows[side[others]], rows[own[number]]) >= self._threshold - ESTIMATE_MARGIN
        return [others[index] for index in np.flatnonzero(likely).tolist()]

    def is_similar(self, first: str, second: str) -> bool:
        """Whether two texts are equal but for case, punctuation and spacing, or share most of their word pairs."""
        if first == second:
            return True
        sets = self._shingles(first), self._shingles(second)
        small, large = sorted(map(len, sets))
        if small < self._threshold * large:
            return False
        if jaccard(*sets) >= self._threshold:
            return True
        have_words = large and first in self._normal and second in self._normal  # equal ones would have equal sets
        return not have_words and normalize(first) == normalize(second)

    def _same_prompt(self, first: Candidate, second: Candidate) -> bool:
        if packed_inputs(first.native) != packed_inputs(second.native):
            return False
        if first.prompt_id == second.prompt_id:
            return True
        return context_id(first.prompt) == context_id(second.prompt) and self.is_similar(first.prompt, second.prompt)

    def _words_of(self, text: str) -> Hashes:
        """The words of an answer, or of a prompt in canonical JSON."""
        if text not in self._words:
            normal = self._normal.get(text)
            self._words[text] = prompt_words(text) if normal is None else hash_words(words_of(normal))
        return self._words[text]

    def _shingles(self, text: str) -> Hashes:
        if text not in self._sets:
            self._sets[text] = distinct_shingles(self._words_of(text))
        return self._sets[text]
