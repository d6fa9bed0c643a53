"""Training prompts that benchmarks hold as well: equal, nearly the same, or sharing long runs of words."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rewardline.core.files import read_json, write_json
from rewardline.data.pairs.identity import Hashes, grams

_FILE = "benchmarks.npz"
COMMON = 0.1
"""Share of a benchmark's prompts above which a run of words in them is boilerplate."""


@dataclass(frozen=True)
class Leak:
    """Why a training prompt must go: the benchmark that has it, and in which way."""

    benchmark: str
    detail: str


class BenchmarkPrompts:
    """What training prompts are compared with; its size is that of the benchmarks alone.

    Two ways to be in a benchmark: by id (the prompt itself, or one that is nearly the same), and by n-grams: at least
    a share of the benchmark prompt's distinct runs of `n` words occurs in the training prompt. Runs that many prompts
    of a benchmark have are boilerplate, and do not count.
    """

    def __init__(self, names: list[str], n: int, overlap: float, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self._names, self._n, self._overlap, self._arrays = names, n, overlap, arrays

    @classmethod
    def build(
        cls,
        prompts: Iterable[tuple[str, int, Hashes]],
        near: Sequence[tuple[int, str]],
        n: int | None,
        overlap: float,
    ) -> "BenchmarkPrompts":
        """Index benchmark prompts.

        Args:
            prompts: benchmark, prompt id and words (uint64) of each prompt.
            near: training prompts that are nearly the same as one of a benchmark, and that benchmark.
            n: words in a run; None for no comparison by runs.
            overlap: least share of runs.
        """
        names: dict[str, int] = {}
        ids, owners, runs = [], [], []
        for benchmark, number, words in prompts:
            ids.append(number)
            owners.append(names.setdefault(benchmark, len(names)))
            runs.append(np.unique(grams(words, n)) if n else np.zeros(0, dtype=np.uint64))
        owner = np.array(owners, dtype=np.int32)
        run = np.concatenate([*runs, np.zeros(0, dtype=np.uint64)])
        source = np.repeat(np.arange(len(runs), dtype=np.int32), [len(one) for one in runs])
        kept = ~_boilerplate(run, owner[source], np.bincount(owner))
        run, source = run[kept], source[kept]
        exact, close = np.array(ids, dtype=np.uint64), np.array([number for number, _ in near], dtype=np.uint64)
        close_owner = np.array([names[name] for _, name in near], dtype=np.int32)
        order, close_order, run_order = (np.argsort(one, kind="stable") for one in (exact, close, run))
        arrays: dict[str, npt.NDArray[Any]] = {
            "exact": exact[order],
            "exact_owner": owner[order],
            "near": close[close_order],
            "near_owner": close_owner[close_order],
            "runs": run[run_order],
            "sources": source[run_order],
            "sizes": np.bincount(source, minlength=len(runs)),
            "owner": owner,
        }
        return cls(list(names), n or 0, overlap, arrays)

    def save(self, folder: Path) -> None:
        """Write the index to `folder`."""
        np.savez(folder / _FILE, **self._arrays)  # type: ignore[arg-type]
        write_json(folder / "benchmarks.json", {"names": self._names, "n": self._n, "overlap": self._overlap})

    @classmethod
    def load(cls, folder: Path) -> "BenchmarkPrompts":
        """Read the index from `folder`."""
        facts = read_json(folder / "benchmarks.json")
        with np.load(folder / _FILE, allow_pickle=False) as file:
            return cls(facts["names"], facts["n"], facts["overlap"], dict(file))

    def leak(self, number: int, words: Callable[[], Hashes]) -> Leak | None:
        """How a training prompt (its id, and what gives its words) stands in a benchmark; None if it does not."""
        if not self._names:
            return None
        for key, detail in (("exact", "its prompt stands in"), ("near", "its prompt is nearly the same as one of")):
            found = self._arrays[key]
            place = int(np.searchsorted(found, np.uint64(number)))
            if place < len(found) and int(found[place]) == number:
                name = self._names[int(self._arrays[f"{key}_owner"][place])]
                return Leak(name, f"{detail} {name}")
        return self._by_runs(words()) if self._n and len(self._arrays["runs"]) else None

    def _by_runs(self, words: Hashes) -> Leak | None:
        runs = self._arrays["runs"]
        own = np.unique(grams(words, self._n))
        starts, ends = np.searchsorted(runs, own), np.searchsorted(runs, own, side="right")
        hits = np.flatnonzero(ends > starts)
        if not len(hits):
            return None
        sources = np.concatenate([self._arrays["sources"][starts[k] : ends[k]] for k in hits])
        prompts, counts = np.unique(sources, return_counts=True)
        shares = counts / self._arrays["sizes"][prompts]
        best = int(np.argmax(shares))
        if shares[best] < self._overlap:
            return None
        name = self._names[int(self._arrays["owner"][prompts[best]])]
        return Leak(name, f"it has {shares[best]:.0%} of the runs of {self._n} words of a prompt of {name}")


def _boilerplate(runs: Hashes, owners: npt.NDArray[np.int32], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which of the runs (with their benchmarks) stand in so many prompts of their benchmark that they tell nothing."""
    if not len(runs):
        return np.zeros(0, dtype=bool)
    keys = np.stack([runs, owners.astype(np.uint64)], axis=1)
    _, inverse, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    often: npt.NDArray[np.bool_] = counts[inverse.ravel()] > np.maximum(2, COMMON * sizes[owners])
    return often
