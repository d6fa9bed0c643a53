"""Training prompts that are also in benchmarks: equal, nearly the same, or with long runs of words in common."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from rewardline.data.pairs.identity import Hashes, ngram_hashes
from rewardline.data.parquet import reading

FILE = "benchmarks.npz"
BOILERPLATE = 0.1
"""Share of a benchmark's prompts above which an n-gram in them is boilerplate."""


@dataclass(frozen=True)
class BenchmarkPrompts:
    """An index of benchmarks' prompts, which training prompts are looked up in; its size is that of the benchmarks.

    A training prompt is in a benchmark by its id (it is equal or nearly the same as one of the benchmark), or by
    n-grams: at least the share `overlap` of the distinct n-grams of a benchmark's prompt occurs in it. n-grams that
    many prompts of a benchmark have are boilerplate, and do not count.
    """

    benchmarks: npt.NDArray[np.str_]
    """Name of each benchmark."""
    ids: Hashes
    """Prompts of benchmarks, and training prompts that are nearly the same as one of these, uint64 [N], sorted."""
    is_near: npt.NDArray[np.bool_]
    """Whether each of `ids` is of a training prompt, [N]."""
    id_benchmarks: npt.NDArray[np.int32]
    """Index of the benchmark of each of `ids`, [N]."""
    ngrams: Hashes
    """Hash of each n-gram of each prompt, uint64 [G], sorted."""
    ngram_prompts: npt.NDArray[np.int32]
    """Index of the prompt of each of `ngrams`, [G]."""
    sizes: npt.NDArray[np.int64]
    """Number of n-grams of each prompt, [P]."""
    prompt_benchmarks: npt.NDArray[np.int32]
    """Index of the benchmark of each prompt, [P]."""
    n: int
    """Words of an n-gram; 0 for no comparison by n-grams."""
    overlap: float

    @classmethod
    def build(
        cls, prompts: Iterable[tuple[str, int, Hashes]], near: Sequence[tuple[int, str]], n: int | None, overlap: float
    ) -> Self:
        """Index benchmark prompts.

        Args:
            prompts: benchmark, prompt id and word hashes of each prompt.
            near: training prompts that are nearly the same as one of a benchmark, and that benchmark.
            n: words of an n-gram; None for no comparison by n-grams.
            overlap: least share of n-grams.
        """
        benchmarks: dict[str, int] = {}
        ids, owners, ngrams_of = [], [], []
        for benchmark, prompt_id, words in prompts:
            ids.append(prompt_id)
            owners.append(benchmarks.setdefault(benchmark, len(benchmarks)))
            ngrams_of.append(np.unique(ngram_hashes(words, n)) if n else np.zeros(0, dtype=np.uint64))
        owner = np.array(owners, dtype=np.int32)
        ngrams = np.concatenate([*ngrams_of, np.zeros(0, dtype=np.uint64)])
        source = np.repeat(np.arange(len(ids), dtype=np.int32), list(map(len, ngrams_of)))
        kept = np.flatnonzero(~_boilerplate(ngrams, owner[source], np.bincount(owner)))
        kept = kept[np.argsort(ngrams[kept], kind="stable")]
        all_ids = np.array([*ids, *(prompt_id for prompt_id, _ in near)], dtype=np.uint64)
        all_owners = np.array([*owners, *(benchmarks[benchmark] for _, benchmark in near)], dtype=np.int32)
        order = np.argsort(all_ids, kind="stable")  # a prompt that is in a benchmark comes before one that is near it
        return cls(
            benchmarks=np.array(list(benchmarks), dtype=np.str_),
            ids=all_ids[order],
            is_near=order >= len(ids),
            id_benchmarks=all_owners[order],
            ngrams=ngrams[kept],
            ngram_prompts=source[kept],
            sizes=np.bincount(source[kept], minlength=len(ids)),
            prompt_benchmarks=owner,
            n=n or 0,
            overlap=overlap,
        )

    def save(self, folder: Path) -> None:
        """Write the index to `folder`."""
        np.savez(folder / FILE, **vars(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the index from `folder`."""
        with reading(folder / FILE), np.load(folder / FILE, allow_pickle=False) as file:
            arrays = dict(file)
        return cls(**{**arrays, "n": int(arrays["n"]), "overlap": float(arrays["overlap"])})

    def find(self, prompt_id: int, words: Callable[[], Hashes]) -> str | None:
        """How a training prompt, by its id and a function that returns its word hashes, is in a benchmark, or None."""
        if not len(self.ids):
            return None
        index = int(np.searchsorted(self.ids, np.uint64(prompt_id)))
        if index < len(self.ids) and self.ids[index] == prompt_id:
            how = "nearly the same as one of" if self.is_near[index] else "in"
            return f"its prompt is {how} {self.benchmarks[self.id_benchmarks[index]]}"
        return self._find_ngrams(words()) if len(self.ngrams) else None

    def may_have(self, prompts: Hashes) -> npt.NDArray[np.bool_]:
        """Whether `find` may find each of these prompts, as far as their ids say: bool [N]."""
        return np.ones(len(prompts), dtype=bool) if len(self.ngrams) else np.isin(prompts, self.ids)

    def _find_ngrams(self, words: Hashes) -> str | None:
        ngrams = np.unique(ngram_hashes(words, self.n))
        starts, ends = np.searchsorted(self.ngrams, ngrams), np.searchsorted(self.ngrams, ngrams, side="right")
        hits = [self.ngram_prompts[starts[k] : ends[k]] for k in np.flatnonzero(ends > starts)]
        if not hits:
            return None
        prompts, counts = np.unique(np.concatenate(hits), return_counts=True)
        shares = counts / self.sizes[prompts]
        best = int(np.argmax(shares))
        if shares[best] < self.overlap:
            return None
        name = self.benchmarks[self.prompt_benchmarks[prompts[best]]]
        return f"it has {shares[best]:.0%} of the runs of {self.n} words of a prompt of {name}"


def _boilerplate(ngrams: Hashes, owners: npt.NDArray[np.int32], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether each n-gram of a benchmark's prompt is boilerplate of that benchmark.

    `owners`: index of the benchmark of each n-gram; `sizes`: number of prompts of each benchmark.
    """
    if not len(ngrams):
        return np.zeros(0, dtype=bool)
    keys = np.stack([ngrams, owners.astype(np.uint64)], axis=1)
    _, inverse, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    frequent: npt.NDArray[np.bool_] = counts[inverse.ravel()] > np.maximum(2, BOILERPLATE * sizes[owners])
    return frequent
