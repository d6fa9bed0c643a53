"""Groups of prompts that are nearly the same, and the split of a mixture by these groups."""

import logging
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from rewardline.data.pairs.identity import Hashes, id_range, unit_interval_hashes
from rewardline.data.parquet import reading

log = logging.getLogger(__name__)
FILE = "groups.npz"
LARGE_GROUPS = (50, 0.01), (20, 0.1)
"""A group with more prompts than one of these numbers, and than its share of all prompts, comes from a template."""


class PromptGroups:
    """The groups of a mixture's prompts, and which of them are held out.

    Prompts that are not alone in their group are in a table, uint64 [M, 2]: prompt id, ascending, and group id, which
    is the least prompt id of the group.
    """

    def __init__(self, table: npt.NDArray[np.uint64], held_out: Hashes, seed: int, eval_below: float) -> None:
        """`held_out`: ids of groups in the table. Other prompts are held out if their hash is below `eval_below`."""
        self._table, self._held_out = table, held_out
        self._seed, self._eval_below = seed, eval_below
        self._by_group = table[np.argsort(table[:, 1], kind="stable")]

    @classmethod
    def split(cls, name: str, fraction: float, seed: int, prompts: Hashes, table: npt.NDArray[np.uint64]) -> Self:
        """Hold out about a `fraction` of the prompts (sorted ids): each group that has a prompt whose hash is below it.

        A prompt that is held out therefore remains so when data is added.
        """
        hashes = unit_interval_hashes(f"split {seed}", prompts)
        eval_below = fraction
        if fraction and len(prompts) and hashes.min() >= fraction:
            log.warning("%s: eval_fraction %g would hold out none of so few prompts; holding out one", name, fraction)
            eval_below = float(hashes.min()) + 2**-50
        is_below = hashes[np.searchsorted(prompts, table[:, 0])] < eval_below
        return cls(table, np.unique(table[is_below, 1]), seed, eval_below)

    def save(self, folder: Path) -> None:
        """Write the groups to `folder`."""
        seed, eval_below = str(self._seed), self._eval_below  # a seed may be larger than NumPy's integers
        np.savez(folder / FILE, table=self._table, held_out=self._held_out, seed=seed, eval_below=eval_below)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the groups from `folder`."""
        with reading(folder / FILE), np.load(folder / FILE, allow_pickle=False) as file:
            return cls(file["table"], file["held_out"], int(str(file["seed"])), float(file["eval_below"]))

    def sizes(self) -> npt.NDArray[np.int64]:
        """Number of prompts of each group in the table."""
        return np.unique(self._table[:, 1], return_counts=True)[1]

    def held_out(self, prompts: Hashes) -> npt.NDArray[np.bool_]:
        """Whether each prompt is held out."""
        is_below = unit_interval_hashes(f"split {self._seed}", prompts) < self._eval_below
        return is_below | np.isin(prompts, self._table[np.isin(self._table[:, 1], self._held_out), 0])

    def are_held_out(self, groups: Hashes) -> npt.NDArray[np.bool_]:
        """Whether each of these groups is held out."""
        is_below = unit_interval_hashes(f"split {self._seed}", groups) < self._eval_below
        return is_below | np.isin(groups, self._held_out)

    def groups_of(self, prompts: Hashes) -> Hashes:
        """The id of each prompt's group."""
        known, groups = np.concatenate([self._table, np.zeros((1, 2), dtype=np.uint64)]).T
        index = np.searchsorted(known[:-1], prompts)
        result: Hashes = np.where(known[index] == prompts, groups[index], prompts)
        return result

    def group_of(self, prompt: int) -> int:
        """The id of a prompt's group."""
        return int(self.groups_of(np.array([prompt], dtype=np.uint64))[0])

    def members_outside(self, low: int, high: int) -> list[int]:
        """The prompts outside of [low, high) that belong to a group whose id is in it."""
        start, end = id_range(self._by_group[:, 1], low, high)
        return [prompt for prompt in self._by_group[start:end, 0].tolist() if not low <= prompt < high]


def without_templates(name: str, table: npt.NDArray[np.uint64], prompts: int) -> tuple[npt.NDArray[np.uint64], int]:
    """A table without the groups that come from a template, see `LARGE_GROUPS`, and the number of prompts in these."""
    _, inverse, sizes = np.unique(table[:, 1], return_inverse=True, return_counts=True)
    most = min(max(number, int(share * prompts)) for number, share in LARGE_GROUPS)
    is_templated = sizes[inverse] > most
    templated = int(is_templated.sum())
    if templated:
        log.warning(
            "%s: %d prompts are in groups of more than %d that are nearly the same, as from a template; they are split "
            "one by one", name, templated, most,
        )  # fmt: skip
    return table[~is_templated], templated
