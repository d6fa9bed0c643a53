"""Prompts that are nearly the same: MinHash signatures, and groups found by locality-sensitive hashing.

Similarity is the Jaccard index of the sets of word pairs. A signature holds the least hash of the set under each of
`SIGNATURE` permutations (Broder, 1997): the share of equal entries estimates the index, with a standard deviation of at
most 0.05. Prompts that agree in a whole band of entries are candidates (Leskovec, Rajaraman, Ullman: Mining of Massive
Datasets, 3.4): two at 0.8 agree in one with a probability of 95%.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rensa import RMinHash

from rewardline.data.pairs.identity import Hashes, grams

Signatures = npt.NDArray[np.uint16]
SIGNATURE = 128
_ROWS_PER_BAND = 8
_SEED = 7
_WIDTH = SIGNATURE + 4
_BYTES = 2 * _WIDTH
_CHUNK = 16_384
_NOTHING = np.uint16(0xFFFF)  # each minimum over an empty set


def shingles(words: Hashes) -> Hashes:
    """What stands for a text when it is compared: its pairs of neighbouring words, or its one word."""
    return grams(words, 2) if len(words) > 1 else words


def signatures(texts: Sequence[Hashes]) -> Signatures:
    """The signature of each text (its words, uint64): uint16 [N, SIGNATURE], the low bits of each minimum."""
    result = np.full((len(texts), SIGNATURE), _NOTHING, dtype=np.uint16)
    for start in range(0, len(texts), 1_000):
        sets = [shingles(words) for words in texts[start : start + 1_000]]
        ends = np.cumsum([0, *map(len, sets)]).astype(np.uint64)
        rows = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(sets), ends, SIGNATURE, _SEED).to_rows()
        result[start : start + len(sets)] = np.array(rows, dtype=np.uint32).astype(np.uint16)
    return result


def distinct_shingles(words: Hashes) -> Hashes:
    """The set of a text's shingles, sorted."""
    return np.unique(shingles(words))


def jaccard(one: Hashes, other: Hashes) -> float:
    """The similarity of two texts, given as `distinct_shingles`; 0 when one is empty."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / max(1, len(one) + len(other) - both)


def similarity(one: Signatures, other: Signatures) -> npt.NDArray[np.float64]:
    """The estimated similarity of the rows of two arrays of signatures (broadcast): float64 [N]."""
    shares: npt.NDArray[np.float64] = (one == other).mean(axis=-1)
    return shares


class SignatureFiles:
    """The signatures of several folders of candidates, one after the other, read from disk row by row.

    A row is a signature and the id of a context, uint16 [SIGNATURE + 4]: texts in different contexts are not compared.
    """

    def __init__(self, paths: Sequence[Path], stack: ExitStack) -> None:
        """Open the files; `stack` closes them."""
        self._files = [stack.enter_context(path.open("rb")) for path in paths]
        self._starts = np.cumsum([0, *(path.stat().st_size // _BYTES for path in paths)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def chunks(self) -> Iterator[Signatures]:
        """All rows in order, some thousand at a time."""
        for file in self._files:
            file.seek(0)
            while block := file.read(_BYTES * _CHUNK):
                yield np.frombuffer(block, dtype=np.uint16).reshape(-1, _WIDTH)

    def rows(self, indices: npt.NDArray[np.int64]) -> Signatures:
        """The rows of these indices: uint16 [N, SIGNATURE + 4]."""
        owners = np.searchsorted(self._starts, indices, side="right") - 1
        places = (indices - self._starts[owners]) * _BYTES
        data = [
            os.pread(self._files[owner].fileno(), _BYTES, place)
            for owner, place in zip(owners.tolist(), places.tolist(), strict=True)
        ]
        return np.frombuffer(b"".join(data), dtype=np.uint16).reshape(-1, _WIDTH)

    def similarity(self, ones: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The estimated similarity of texts by index, pair by pair; 0 in different contexts."""
        first, second = self.rows(ones), self.rows(others)
        alike = (first[:, SIGNATURE:] == second[:, SIGNATURE:]).all(axis=1)
        shares: npt.NDArray[np.float64] = similarity(first[:, :SIGNATURE], second[:, :SIGNATURE]) * alike
        return shares


def with_contexts(found: Signatures, contexts: Sequence[int]) -> Signatures:
    """Signatures as rows of `SignatureFiles`; `contexts` are ids below 2^64."""
    ids = np.array(contexts, dtype=np.uint64).reshape(-1, 1).view(np.uint16)
    return np.concatenate([found, ids.reshape(len(found), 4)], axis=1)


def components(member: npt.NDArray[np.int64], files: SignatureFiles, threshold: float) -> npt.NDArray[np.int64]:
    """The representative of each text, int64 [M]; texts that are similar, directly or through others, share theirs.

    In each band, the texts that agree in it are compared with the first of them. `member` says which text a signature
    is of, int64 [N]; texts that were linked once are not compared again.
    """
    forest = Forest(int(member.max(initial=-1)) + 1)
    for band in range(SIGNATURE // _ROWS_PER_BAND):
        keys = _band_keys(files, slice(band * _ROWS_PER_BAND, (band + 1) * _ROWS_PER_BAND))
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order[:1]] ^ np.uint64(1)))
        heads = np.repeat(order[starts], np.diff(starts, append=len(order)))
        pairs = np.flatnonzero(member[heads] != member[order])
        for start in range(0, len(pairs), _CHUNK):
            some = pairs[start : start + _CHUNK]
            ones, others = heads[some], order[some]
            todo = [forest.find(a) != forest.find(b) for a, b in zip(member[ones], member[others], strict=True)]
            ones, others = ones[todo], others[todo]
            near = files.similarity(ones, others) >= threshold
            for a, b in zip(member[ones[near]].tolist(), member[others[near]].tolist(), strict=True):
                forest.join(a, b)
    return forest.roots()


def groups(ids: Hashes, files: SignatureFiles, threshold: float) -> npt.NDArray[np.uint64]:
    """Group prompts that are similar, directly or through others.

    Args:
        ids: prompt id of each signature, uint64 [N]; an id may come several times.
        files: N signatures.
        threshold: least similarity.

    Returns:
        uint64 [M, 2], sorted: prompt id and the id of its group (the least of its members), for each prompt that is
        not alone in its group.
    """
    unique, member = np.unique(ids, return_inverse=True)
    roots = components(member, files, threshold)
    linked = np.bincount(roots, minlength=len(unique))[roots] > 1
    return np.stack([unique[linked], unique[roots[linked]]], axis=1)


def near(ids: Hashes, wanted: npt.NDArray[np.bool_], files: SignatureFiles, threshold: float) -> list[tuple[int, int]]:
    """The ids that are similar to one that is `wanted`, directly: (id, the index of that one's signature)."""
    _, member = np.unique(ids, return_inverse=True)
    roots = components(member, files, threshold)[member]
    mixed = np.flatnonzero(np.isin(roots, roots[wanted]) & np.isin(roots, roots[~wanted]))
    order = mixed[np.argsort(roots[mixed], kind="stable")]
    found: list[tuple[int, int]] = []
    for part in np.split(order, np.flatnonzero(np.diff(roots[order])) + 1):
        targets, others = part[wanted[part]], part[~wanted[part]]
        for start in range(0, len(others), 1_000):
            some = others[start : start + 1_000]
            best, which = np.zeros(len(some)), np.zeros(len(some), dtype=np.int64)
            for target in targets.tolist():
                shares = files.similarity(some, np.full(len(some), target))
                which = np.where(shares > best, target, which)
                best = np.maximum(shares, best)
            close = best >= threshold
            found += zip(ids[some[close]].tolist(), which[close].tolist(), strict=True)
    return found


def _band_keys(files: SignatureFiles, columns: slice) -> Hashes:
    """A hash of the band and context of every signature. A text without words is like no other: its key is its own."""
    keys = np.zeros(len(files), dtype=np.uint64)
    start = 0
    for chunk in files.chunks():
        band = np.ascontiguousarray(chunk[:, columns]).view(np.uint64)
        context = np.ascontiguousarray(chunk[:, SIGNATURE:]).view(np.uint64)[:, 0]
        with np.errstate(over="ignore"):
            mixed = (band[:, 0] ^ (band[:, 0] >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15) + band[:, 1]
            mixed = (mixed ^ (mixed >> np.uint64(29)) ^ context) * np.uint64(0xBF58476D1CE4E5B9)
        empty = (chunk[:, :SIGNATURE] == _NOTHING).all(axis=1)
        own = np.arange(start, start + len(chunk), dtype=np.uint64)
        keys[start : start + len(chunk)] = np.where(empty, own, mixed)
        start += len(chunk)
    return keys


class Forest:
    """Disjoint sets of 0..size-1; the representative of a set is its least member."""

    def __init__(self, size: int) -> None:
        self._parent = np.arange(size)

    def find(self, one: int) -> int:
        """The representative of one."""
        parent = self._parent
        root = one
        while parent[root] != root:
            root = int(parent[root])
        while parent[one] != root:
            parent[one], one = root, int(parent[one])
        return root

    def join(self, one: int, other: int) -> None:
        """Make two sets one."""
        first, second = sorted((self.find(one), self.find(other)))
        self._parent[second] = first

    def roots(self) -> npt.NDArray[np.int64]:
        """The representative of each."""
        parent = self._parent
        while True:
            above = parent[parent]
            if np.array_equal(above, parent):
                return parent
            parent = above
