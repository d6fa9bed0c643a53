"""Near-duplicate texts: MinHash signatures, and groups found by locality-sensitive hashing.

Similarity is the Jaccard index of the sets of word pairs. A signature holds the least hash of the set under each of
`SIGNATURE` permutations (Broder, 1997): the share of equal entries estimates the index, with a standard deviation of at
most 0.05. Texts that agree in a complete band of entries are compared (Leskovec, Rajaraman, Ullman: Mining of Massive
Datasets, 3.4): two texts of similarity 0.8 agree in a band with a probability of 95%. rensa computes the signatures;
since its index is in memory, the bands are sorted here, one at a time, from signatures on disk.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from struct import Struct

import numpy as np
import numpy.typing as npt
from rensa import RMinHash

from rewardline.data.pairs.identity import Hashes, ngram_hashes

Signatures = npt.NDArray[np.uint16]
SIGNATURE = 128
"""Entries of a signature."""
_ENTRIES_PER_BAND = 8
_SEED = 7
_WIDTH = SIGNATURE + 4
_BYTES = 2 * _WIDTH
_CHUNK = 16_384
_AT_ONCE = 100  # texts, so that the lists of their numbers need no new memory
_PACKED = Struct(f"<{SIGNATURE}I")
_EMPTY = np.uint16(0xFFFF)  # each minimum over an empty set


def shingles(words: Hashes) -> Hashes:
    """The hashes by which a text is compared: those of its pairs of adjacent words, or of its only word."""
    return ngram_hashes(words, 2) if len(words) > 1 else words


def signatures(texts: Sequence[Hashes]) -> Signatures:
    """The signature of each text (its word hashes): uint16 [N, SIGNATURE], the low bits of each minimum."""
    result = np.full((len(texts), SIGNATURE), _EMPTY, dtype=np.uint16)
    for start in range(0, len(texts), _AT_ONCE):
        flat, sizes = _joined_shingles(texts[start : start + _AT_ONCE])
        ends = np.cumsum([0, *sizes]).astype(np.uint64)
        rows = RMinHash.digest_matrix_from_flat_token_hashes(flat, ends, SIGNATURE, _SEED).to_rows()
        packed = b"".join([_PACKED.pack(*row) for row in rows])  # the fastest way out of the lists
        result[start : start + len(rows)] = np.frombuffer(packed, dtype="<u4").reshape(-1, SIGNATURE)
    return result


def _joined_shingles(texts: Sequence[Hashes]) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """The results of `shingles`, one after the other, and the length of each."""
    lengths = np.array(list(map(len, texts)))
    words = np.concatenate(texts)
    is_last = np.zeros(len(words), dtype=bool)
    is_last[np.cumsum(lengths)[lengths > 0] - 1] = True
    is_only = np.repeat(lengths == 1, lengths)
    pairs = np.append(ngram_hashes(words, 2), words[-1:])
    return np.where(is_only, words, pairs)[~is_last | is_only], np.where(lengths > 1, lengths - 1, lengths)


def distinct_shingles(words: Hashes) -> Hashes:
    """The set of a text's shingles, sorted."""
    ordered = np.sort(shingles(words))  # much faster than numpy.unique
    is_new = np.ones(len(ordered), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=is_new[1:])
    return ordered[is_new]


def jaccard(first: Hashes, second: Hashes) -> float:
    """The Jaccard index of two results of `distinct_shingles`; 0 when both are empty."""
    both = np.sort(np.concatenate([first, second]))
    common = int(np.count_nonzero(both[1:] == both[:-1]))
    return common / max(1, len(both) - common)


def similarity(first: Signatures, second: Signatures) -> npt.NDArray[np.float64]:
    """The estimated similarity of the rows of two arrays of signatures (broadcast): float64 [N]."""
    shares: npt.NDArray[np.float64] = (first == second).mean(axis=-1)
    return shares


def with_contexts(rows: Signatures, contexts: Sequence[int]) -> Signatures:
    """Signatures as rows of `SignatureFiles`; `contexts` are ids below 2^64."""
    ids = np.array(contexts, dtype=np.uint64).reshape(-1, 1).view(np.uint16)
    return np.concatenate([rows, ids.reshape(len(rows), 4)], axis=1)


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
        offsets = (indices - self._starts[owners]) * _BYTES
        data = [
            os.pread(self._files[owner].fileno(), _BYTES, offset)
            for owner, offset in zip(owners.tolist(), offsets.tolist(), strict=True)
        ]
        return np.frombuffer(b"".join(data), dtype=np.uint16).reshape(-1, _WIDTH)

    def similarity(self, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The estimated similarity of texts by index, pair by pair, float64 [N]; 0 in different contexts."""
        result = np.zeros(len(first))
        for start in range(0, len(first), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            left, right = self.rows(first[chunk]), self.rows(second[chunk])
            same_context = (left[:, SIGNATURE:] == right[:, SIGNATURE:]).all(axis=1)
            result[chunk] = similarity(left[:, :SIGNATURE], right[:, :SIGNATURE]) * same_context
        return result


def components(member: npt.NDArray[np.int64], files: SignatureFiles, threshold: float) -> npt.NDArray[np.int64]:
    """The connected component of each text, as the least index in it, int64 [M]; similar texts are connected.

    In each band, the texts that agree in it are compared with the first of them, unless they are already connected.
    `member` is the index of the text of each signature, int64 [N].
    """
    labels = np.arange(int(member.max(initial=-1)) + 1)
    for band in range(SIGNATURE // _ENTRIES_PER_BAND):
        keys = _band_keys(files, band)
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order[:1]] ^ np.uint64(1)))
        first = np.repeat(order[starts], np.diff(starts, append=len(order)))
        unconnected = labels[member[first]] != labels[member[order]]
        first, others = first[unconnected], order[unconnected]
        similar = files.similarity(first, others) >= threshold
        if similar.any():
            labels = _connect(labels, member[first[similar]], member[others[similar]])
    _, least, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return least[inverse]


def _connect(
    labels: npt.NDArray[np.int64], first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """New labels of components, after each text of `first` is connected with that of `second`."""
    # Imported here, since most users of this module connect nothing and need not wait for the import.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(first), dtype=bool), (labels[first], labels[second])), shape=(len(labels),) * 2)
    result: npt.NDArray[np.int64] = connected_components(graph, directed=False)[1][labels]
    return result


def groups(ids: Hashes, files: SignatureFiles, threshold: float) -> npt.NDArray[np.uint64]:
    """Group prompts that are similar, directly or through others.

    Args:
        ids: prompt id of each signature, uint64 [N]; an id may come several times.
        files: N signatures.
        threshold: least similarity.

    Returns:
        uint64 [M, 2], sorted: prompt id and the id of its group (the least prompt id in it), for each prompt that is
        not alone in its group.
    """
    unique, member = np.unique(ids, return_inverse=True)
    return _table(unique, components(member, files, threshold))


def joined(table: npt.NDArray[np.uint64], links: Hashes) -> npt.NDArray[np.uint64]:
    """A result of `groups`, after the two prompts of each of `links` (uint64 [L, 2]) and their groups are joined."""
    unique, member = np.unique(np.concatenate([table, links]), return_inverse=True)
    labels = _connect(np.arange(len(unique)), *member.reshape(-1, 2).T)
    _, least, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return _table(unique, least[inverse])


def _table(unique: Hashes, roots: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    linked = np.bincount(roots, minlength=len(unique))[roots] > 1
    return np.stack([unique[linked], unique[roots[linked]]], axis=1)


def near(
    ids: Hashes, is_target: npt.NDArray[np.bool_], files: SignatureFiles, threshold: float
) -> list[tuple[int, int]]:
    """The id of each text that is directly similar to a target, and the index of the most similar target.

    `ids` (uint64 [N]) and `is_target` (bool [N]) belong to the N signatures of `files`.
    """
    _, member = np.unique(ids, return_inverse=True)
    roots = components(member, files, threshold)[member]
    mixed = np.flatnonzero(np.isin(roots, roots[is_target]) & np.isin(roots, roots[~is_target]))
    order = mixed[np.argsort(roots[mixed], kind="stable")]
    result: list[tuple[int, int]] = []
    for part in np.split(order, np.flatnonzero(np.diff(roots[order])) + 1):
        targets, others = part[is_target[part]], part[~is_target[part]]
        best, nearest = np.zeros(len(others)), np.zeros(len(others), dtype=np.int64)
        for target in targets.tolist():
            shares = files.similarity(others, np.full(len(others), target))
            nearest = np.where(shares > best, target, nearest)
            best = np.maximum(shares, best)
        close = best >= threshold
        result += zip(ids[others[close]].tolist(), nearest[close].tolist(), strict=True)
    return result


def _band_keys(files: SignatureFiles, band: int) -> Hashes:
    """A hash of the band and the context of each signature, uint64 [N]; that of a text without words is unique."""
    columns = slice(band * _ENTRIES_PER_BAND, (band + 1) * _ENTRIES_PER_BAND)
    keys = np.zeros(len(files), dtype=np.uint64)
    start = 0
    for chunk in files.chunks():
        entries = np.ascontiguousarray(chunk[:, columns]).view(np.uint64)
        context = np.ascontiguousarray(chunk[:, SIGNATURE:]).view(np.uint64)[:, 0]
        with np.errstate(over="ignore"):
            mixed = (entries[:, 0] ^ (entries[:, 0] >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15) + entries[:, 1]
            mixed = (mixed ^ (mixed >> np.uint64(29)) ^ context) * np.uint64(0xBF58476D1CE4E5B9)
        empty = (chunk[:, :SIGNATURE] == _EMPTY).all(axis=1)
        indices = np.arange(start, start + len(chunk), dtype=np.uint64)
        keys[start : start + len(chunk)] = np.where(empty, indices, mixed)
        start += len(chunk)
    return keys
