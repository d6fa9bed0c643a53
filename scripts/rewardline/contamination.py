"""Training prompts that benchmarks hold as well: equal, nearly the same, or sharing long runs of words."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rewardline.artifacts import read_json, write_json
from rewardline.identity import Hashes, grams

_FILE = "benchmarks.npz"


@dataclass(frozen=True)
class Leak:
    """Why a training prompt must go: the benchmark that has it, and in which way."""

    benchmark: str
    detail: str


class BenchmarkPrompts:
    """What training prompts are compared with; its size is that of the benchmarks alone.

    Two ways to be in a benchmark: by id (the prompt itself, or one that is nearly the same), and by n-grams: at least
    a share of the benchmark prompt's distinct runs of `n` words occurs in the training prompt. Boilerplate that each
    prompt of a benchmark has weighs little in prompts that are longer than it.
    """

    def __init__(self, names: list[str], n: int, overlap: float, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self._names, self._n, self._overlap, self._arrays = names, n, overlap, arrays

    @classmethod
    def build(
        cls,
        prompts: Iterable[tuple[str, int, Hashes]],
        alike: npt.NDArray[np.uint64],
        n: int | None,
        overlap: float,
    ) -> "BenchmarkPrompts":
        """Index benchmark prompts.

        Args:
            prompts: benchmark, prompt id and words (uint64) of each prompt.
            alike: prompts that are nearly the same, as `similarity.groups` gives them.
            n: words in a run; None for no comparison by runs.
            overlap: least share of runs.
        """
        names: dict[str, int] = {}
        ids, owners, hashes, sources, sizes = [], [], [], [], []
        for place, (benchmark, number, words) in enumerate(prompts):
            ids.append(number)
            owners.append(names.setdefault(benchmark, len(names)))
            runs = np.unique(grams(words, n)) if n else np.zeros(0, dtype=np.uint64)
            hashes.append(runs)
            sources.append(np.full(len(runs), place, dtype=np.int32))
            sizes.append(len(runs))
        exact = np.array(ids, dtype=np.uint64)
        owner = np.array(owners, dtype=np.int32)
        members, group_owner = _alike(exact, owner, alike)
        run, source = (np.concatenate(parts) if parts else np.zeros(0, kind) for parts, kind in (
            (hashes, np.uint64), (sources, np.int32)))  # fmt: skip
        order, runs_order = np.argsort(exact, kind="stable"), np.argsort(run, kind="stable")
        arrays: dict[str, npt.NDArray[Any]] = {
            "exact": exact[order], "exact_owner": owner[order], "near": members, "near_owner": group_owner,
            "runs": run[runs_order], "sources": source[runs_order], "sizes": np.array(sizes, dtype=np.int32),
            "owner": owner,
        }  # fmt: skip
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


def _alike(
    exact: Hashes, owner: npt.NDArray[np.int32], alike: npt.NDArray[np.uint64]
) -> tuple[Hashes, npt.NDArray[np.int32]]:
    """The prompts whose group holds a benchmark prompt, sorted, and the benchmark of that prompt."""
    if not len(alike) or not len(exact):
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int32)
    order = np.argsort(exact, kind="stable")
    place = np.minimum(np.searchsorted(exact[order], alike[:, 0]), len(exact) - 1)
    is_benchmark = exact[order][place] == alike[:, 0]
    owner_of_group = dict(zip(alike[is_benchmark, 1].tolist(), owner[order][place[is_benchmark]].tolist(), strict=True))
    members = [(number, owner_of_group[group]) for number, group in alike.tolist() if group in owner_of_group]
    ids = np.array([number for number, _ in members], dtype=np.uint64)
    return ids, np.array([one for _, one in members], dtype=np.int32)
