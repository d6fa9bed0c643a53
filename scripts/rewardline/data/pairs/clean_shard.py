"""The cleaning of a shard: the groups of prompts in a range of ids, with all their candidates."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from rewardline.core.files import read_json
from rewardline.core.progress import progress
from rewardline.data.pairs.accounting import RowAccount
from rewardline.data.pairs.candidates import Candidate, CandidateReader, pair_row, ranges
from rewardline.data.pairs.cleaning import Policy, clean
from rewardline.data.pairs.decontamination import BenchmarkPrompts
from rewardline.data.pairs.identity import position
from rewardline.data.pairs.pair_statistics import PairStatistics
from rewardline.data.pairs.rejects import RejectWriter
from rewardline.data.pairs.settings import CleanSettings
from rewardline.data.pairs.store import PAIR_SCHEMA, PartWriter

Json = dict[str, Any]


class Groups:
    """Which prompts belong together: those of `groups.npz`, and every other prompt by itself."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            table, self._held_out = file["alike"], set(file["held_out"].tolist())
        self._members, self._groups = table[:, 0], table[:, 1]
        self._by_group = np.argsort(self._groups, kind="stable")
        self._sorted = self._groups[self._by_group]

    def is_held_out(self, group: int) -> bool:
        """Whether a group of several prompts is held out."""
        return group in self._held_out

    def of(self, prompt_id: int) -> int:
        """The id of a prompt's group."""
        place = int(np.searchsorted(self._members, np.uint64(prompt_id)))
        if place < len(self._members) and int(self._members[place]) == prompt_id:
            return int(self._groups[place])
        return prompt_id

    def members(self, low: int, high: int) -> list[int]:
        """The prompts outside of [low, high) that belong to a group whose id lies in it."""
        start = int(np.searchsorted(self._sorted, np.uint64(low)))
        end = len(self._sorted) if high >= 2**64 else int(np.searchsorted(self._sorted, np.uint64(high)))
        found = self._members[self._by_group[start:end]].tolist()
        return [number for number in found if not low <= number < high]


def grouped(
    readers: list[CandidateReader], groups: Groups, low: int, high: int
) -> Iterator[tuple[int, list[Candidate]]]:
    """Each group of prompts whose id lies in [low, high) with all its candidates, in ascending order of group ids."""
    for start, end in ranges(readers, low, high):
        strangers = groups.members(start, end)
        rows = [row for reader in readers for row in reader.between(start, end)]
        if strangers:
            rows += [row for reader in readers for row in reader.of(strangers)]
        keyed = [(groups.of(row.prompt_id), row) for row in rows]
        own = sorted((item for item in keyed if start <= item[0] < end), key=lambda item: (item[0], item[1].order))
        for group, members in groupby(own, key=lambda item: item[0]):
            yield group, [row for _, row in members]


def clean_shard(settings: CleanSettings, prompts: Path, out: Path) -> Json:
    """Write the pairs of a shard to `out`; what the manifest says of them."""
    common = read_json(prompts)
    readers = [CandidateReader(Path(entry["folder"])) for entry in common["data"]]
    low, high = (2**64 * (settings.shard + k) // settings.shards for k in (0, 1))
    weights = settings.weights
    policy = Policy(settings.seed, weights, common["caps"], settings.near_duplicates, settings.keep_all)
    groups = Groups(prompts.parent / "groups.npz")
    benchmarks = BenchmarkPrompts.load(prompts.parent)
    writers = {split: PartWriter(out / split, PAIR_SCHEMA) for split in ("train", "eval")}
    rejects = RejectWriter(out)
    account = RowAccount(sorted(weights))
    statistics = PairStatistics()
    rows = sum(reader.count(low, high) for reader in readers)
    with progress("clean", total=rows, unit="pair") as bar:
        for group, candidates in grouped(readers, groups, low, high):
            held_out = position(f"split {policy.seed}", group) < common["eval_below"] or groups.is_held_out(group)
            cleaned = clean(candidates, held_out, policy, benchmarks.leak)
            for split, pairs in (("train", cleaned.train), ("eval", cleaned.eval)):
                for pair in pairs:
                    writers[split].add(pair_row(pair, weights[pair.dataset] if split == "train" else 1.0))
                    statistics.add(pair, split)
                    account.use(pair)
            for pair, reason, detail in cleaned.rejects:
                for file, row in pair.sources:
                    rejects.add(pair.dataset, file, row, reason, detail)
                account.leave_out(pair, reason)
            bar.update(len(candidates))
    for writer in writers.values():
        writer.close()
    reasons = account.save(out / "rows.npy")
    return {
        **{split: writer.total for split, writer in writers.items()},
        "statistics": statistics.counts(),
        "reasons": reasons,
        "reject_examples": rejects.close(),
        "parts": {split: writer.entries() for split, writer in writers.items()},
    }
