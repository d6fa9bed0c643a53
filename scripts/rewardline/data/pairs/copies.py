"""Prompts that hold another one, or differ from it in one word: what the similarity of whole texts does not show.

A prompt holds another one, with an instruction, a system message, turns or a prefix around it, if it has a share of at
least the threshold of the runs of `RUN` words of the other (containment: Broder, 1997). Runs of more prompts than
`boilerplate` allows do not count: a common prefix or system message makes no copies. Prompts of at most `SHORT` words
that are equal up to one word (changed, moved, added or left out) are copies if the share of equal words is as great;
where more than `FAMILY` prompts differ in the same place, they come from a template, and are not.

All is computed from the words of the prompts, which are read from disk a few times, some million at once.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rewardline.data.pairs.identity import Hashes, ngram_hashes
from rewardline.data.parquet import read_array, reading

RUN = 3
LEAST_RUNS = 4
"""A prompt with fewer runs, below six words, is in too many others by chance."""
LEAST_OWN_RUNS, MANY_OWN_RUNS = 3, 8
SHORT, FAMILY = 32, 4
_ANCHORS, _RARE, _WORDS = 4, 50, 1 << 22
_SKETCH_BITS = 16, 32
_MIXERS = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93], dtype=np.uint64)
Words = npt.NDArray[np.uint32]
Indices = npt.NDArray[np.int64]


def boilerplate(prompts: int) -> int:
    """In how many of this number of prompts a run of words may occur to count."""
    return max(min(_RARE, max(15, prompts // 10)), prompts // 100)


class WordFiles:
    """The words of the prompts of several folders of candidates, one after the other, mapped from disk.

    `words.bin` has the hashes of all words, uint32, and `word_counts.npy` the number of words of each prompt in system
    messages, which come first, and in all, uint32 [prompts, 2].
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        """Open the files; a `UserError` if one is missing or damaged."""
        self._words = [_mapped(folder / "words.bin") for folder in folders]
        counts = [read_array(folder / "word_counts.npy", np.uint32).astype(np.int64) for folder in folders]
        self._firsts = np.cumsum([0, *map(len, counts)])
        self._ends = [np.cumsum(one[:, 1]) for one in counts]
        self.system, self.lengths = np.concatenate([np.zeros((0, 2), dtype=np.int64), *counts]).T

    def chunks(self) -> Iterator[tuple[Words, Indices]]:
        """All words, and the index of the prompt of each, some million words and whole prompts at a time."""
        for words, ends, first in zip(self._words, self._ends, self._firsts.tolist(), strict=False):
            start = 0
            while start < len(ends):
                low = int(ends[start - 1]) if start else 0
                stop = max(start + 1, int(np.searchsorted(ends, low + _WORDS, side="right")))
                texts = np.arange(first + start, first + stop)
                yield np.asarray(words[low : ends[stop - 1]]), np.repeat(texts, self.lengths[texts])
                start = stop

    def of(self, texts: Indices) -> Words:
        """The words of these prompts (sorted indices), one after the other."""
        parts = [np.zeros(0, dtype=np.uint32)]
        for words, ends, first in zip(self._words, self._ends, self._firsts.tolist(), strict=False):
            own = texts[slice(*np.searchsorted(texts, [first, first + len(ends)]))]
            sizes = self.lengths[own]
            parts.append(words[np.repeat(ends[own - first] - sizes, sizes) + _within(sizes)])
        return np.concatenate(parts)


def copies(ids: Hashes, files: WordFiles, threshold: float) -> Hashes:
    """The ids of prompts of which one holds the other, or that differ in a word: uint64 [N, 2].

    `ids`: that of each prompt of `files`; an id may come several times.
    """
    is_first = np.zeros(len(ids), dtype=bool)
    is_first[np.unique(ids, return_index=True)[1]] = True
    links = np.concatenate([_contained(files, is_first, threshold), _one_word_apart(files, is_first, threshold)])
    linked: Hashes = ids[links]
    return linked


def _contained(files: WordFiles, is_first: npt.NDArray[np.bool_], threshold: float) -> Indices:
    """The pairs of prompts of which the second holds the first, by index: int64 [N, 2].

    The second is looked for by the least of those runs of the first, under several hashes, that few others have.
    """
    limit = boilerplate(int(is_first.sum()))
    bits = min(max(int(files.lengths.sum()).bit_length() - 1, _SKETCH_BITS[0]), _SKETCH_BITS[1])
    frequency = np.zeros(1 << bits, dtype=np.uint32)
    for words, texts in files.chunks():
        runs, owners = _runs(words, texts)
        np.add.at(frequency, _slot(runs[is_first[owners]], bits), np.uint32(1))
    anchors, owners, needed = _anchors(files, is_first, frequency, limit)
    is_own, is_anchor = frequency <= limit, np.zeros(len(frequency), dtype=bool)
    is_anchor[_slot(anchors, bits)] = True
    distinct, first, sizes = np.unique(anchors, return_index=True, return_counts=True)
    found = [np.zeros((0, 2), dtype=np.int64)]
    for words, texts in files.chunks():
        runs, texts = _runs(words, texts)
        likely = np.flatnonzero(is_anchor[_slot(runs, bits)] & is_first[texts])
        index = np.searchsorted(distinct, runs[likely])
        likely, index = (array[np.append(distinct, 0)[index] == runs[likely]] for array in (likely, index))
        one = owners[np.repeat(first[index], sizes[index]) + _within(sizes[index])]
        other = np.repeat(texts[likely], sizes[index])
        keys, agreeing = np.unique((one << 32 | other)[one != other], return_counts=True)
        keys = keys[agreeing >= needed[keys >> 32]]
        pairs = np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=1)
        found.append(pairs[_holds(files, pairs, runs, texts, is_own, threshold)])
    return np.concatenate(found)


def _holds(
    files: WordFiles, pairs: Indices, runs: Hashes, texts: Indices, is_own: npt.NDArray[np.bool_], threshold: float
) -> npt.NDArray[np.bool_]:
    """Whether the second prompt of each pair, whose runs are among `runs` of `texts`, holds the first.

    It has nearly all runs of the first that are its own, and nearly all outside of system messages, unless those of its
    own are many: two templates around the same question make copies too.
    """
    contained, inverse = np.unique(pairs[:, 0], return_inverse=True)
    of_contained, owner = _runs(files.of(contained), np.repeat(np.arange(len(contained)), files.lengths[contained]))
    sizes = np.bincount(owner, minlength=len(contained))
    chosen = np.repeat((np.cumsum(sizes) - sizes)[inverse], sizes[inverse]) + _within(sizes[inverse])
    pair, run = np.repeat(np.arange(len(pairs)), sizes[inverse]), of_contained[chosen]
    in_turns = _within(sizes[inverse]) >= files.system[pairs[pair, 0]]
    holders = np.isin(texts, pairs[:, 1])
    with np.errstate(over="ignore"):
        keys = runs[holders] ^ (texts[holders].astype(np.uint64) * _MIXERS[1])
        is_held = np.isin(run ^ (pairs[pair, 1].astype(np.uint64) * _MIXERS[1]), keys)
    of_own = is_own[_slot(run, len(is_own).bit_length() - 1)]
    own, held, turns, held_turns = (
        np.bincount(pair[these], minlength=len(pairs))
        for these in (of_own, of_own & is_held, in_turns, in_turns & is_held)
    )
    result: npt.NDArray[np.bool_] = held >= threshold * own
    result &= (own >= MANY_OWN_RUNS) | (held_turns >= threshold * turns)
    return result


def _anchors(
    files: WordFiles, is_first: npt.NDArray[np.bool_], frequency: Words, limit: int
) -> tuple[Hashes, Indices, npt.NDArray[np.int8]]:
    """The anchors of all prompts, sorted, the prompt of each, and how many of its anchors a copy of each prompt has."""
    anchors, owners = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)]
    needed = np.zeros(len(is_first), dtype=np.int8)
    for words, texts in files.chunks():
        runs, texts = _runs(words, texts)
        if not len(runs):
            continue
        count = frequency[_slot(runs, len(frequency).bit_length() - 1)]
        is_own = (count <= limit) & is_first[texts] & (files.lengths[texts] >= LEAST_RUNS + RUN - 1)
        enough = np.bincount(texts[is_own] - texts[0], minlength=int(texts[-1] - texts[0]) + 1) >= LEAST_OWN_RUNS
        shared = is_own & (count > 1) & (count <= min(limit, _RARE)) & enough[texts - texts[0]]
        runs, texts = runs[shared], texts[shared]
        starts = np.flatnonzero(np.diff(texts, prepend=-1))
        if not len(starts):
            continue
        with np.errstate(over="ignore"):
            least = np.stack([np.minimum.reduceat(runs * mixer, starts) for mixer in _MIXERS], axis=1)
            # an odd number has an inverse, so that the run itself comes back
            least = least * np.array([pow(int(mixer), -1, 1 << 64) for mixer in _MIXERS], dtype=np.uint64)
        least.sort(axis=1)
        distinct = np.diff(least, axis=1, prepend=~least[:, :1]) != 0
        anchors.append(least[distinct])
        owners.append(np.repeat(texts[starts], distinct.sum(axis=1)))
        needed[texts[starts]] = np.minimum(2, distinct.sum(axis=1))
    joined, owner = np.concatenate(anchors), np.concatenate(owners)
    order = np.argsort(joined, kind="stable")
    return joined[order], owner[order], needed


def _one_word_apart(files: WordFiles, is_first: npt.NDArray[np.bool_], threshold: float) -> Indices:
    """The pairs of short prompts that are equal up to a word, system messages aside, by index: int64 [N, 2]."""
    sizes = files.lengths - files.system
    keys, owners = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)]
    for words, texts in files.chunks():
        begins = np.flatnonzero(np.diff(texts, prepend=-1))
        for size in range(RUN, SHORT + 1):
            chosen = begins[(sizes[texts[begins]] == size) & is_first[texts[begins]]]
            table = words[(chosen + files.system[texts[chosen]])[:, np.newaxis] + np.arange(size)].astype(np.uint64)
            for left_out in range(-1, size if size - 1 >= threshold * size else 0):
                rest = np.delete(table, left_out, axis=1) if left_out >= 0 else table
                key = np.zeros(len(chosen), dtype=np.uint64)
                for column in rest.T:
                    with np.errstate(over="ignore"):
                        key = key * _MIXERS[0] + column
                keys.append(key ^ (key >> np.uint64(29)))
                owners.append(texts[chosen])
    joined = np.stack([np.concatenate(keys), np.concatenate(owners).astype(np.uint64)], axis=1)
    joined = joined[np.lexsort(joined.T[::-1])]
    joined = joined[np.any(np.diff(joined, axis=0, prepend=~joined[:1]) != 0, axis=1)]  # of repeated words
    starts = np.flatnonzero(np.diff(joined[:, 0], prepend=~joined[:1, 0]))
    family = np.repeat(np.diff(starts, append=len(joined)), np.diff(starts, append=len(joined)))
    joined = joined[family <= FAMILY]
    links = [np.zeros((0, 2), dtype=np.uint64)]
    for step in range(1, FAMILY):
        same = joined[step:, 0] == joined[:-step, 0]
        links.append(np.stack([joined[:-step, 1][same], joined[step:, 1][same]], axis=1))
    return np.concatenate(links).astype(np.int64)


def _mapped(path: Path) -> Words:
    with reading(path):
        return np.memmap(path, np.uint32, "r") if path.stat().st_size else np.zeros(0, dtype=np.uint32)


def _slot(runs: Hashes, bits: int) -> Indices:
    """The place of each run in a table of 2^bits."""
    slots: Indices = (runs >> np.uint64(64 - bits)).astype(np.int64)
    return slots


def _runs(words: Words, texts: Indices) -> tuple[Hashes, Indices]:
    """The hashes of all runs of `RUN` words in prompts, and the prompt of each."""
    is_within = texts[RUN - 1 :] == texts[: 1 - RUN]
    return ngram_hashes(words.astype(np.uint64), RUN)[is_within], texts[RUN - 1 :][is_within]


def _within(sizes: Indices) -> Indices:
    """0, 1, ... within each of consecutive groups of these sizes."""
    return np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
