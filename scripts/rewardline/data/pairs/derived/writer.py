"""Pairs that are made of the pairs of another mixture: written as the stages from rows to pairs write them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from rewardline.core.artifacts import restored, write_manifest
from rewardline.core.files import atomic_folder
from rewardline.data.pairs.left_out import DatasetCounts, HeldOut
from rewardline.data.pairs.manifests import STATISTICS, MixtureStatistics, PairCounts, ShardManifest, SimilarPrompts
from rewardline.data.pairs.rejects import RejectWriter
from rewardline.data.parquet import PartWriter, count_rows, join_parts, read_typed_rows
from rewardline.data.schema import PAIR_SCHEMA, Pair


def read_prompts(pairs: Path, split: str) -> Iterator[list[Pair]]:
    """The pairs of each prompt of a split; `pairs` is the folder of a mixture's pairs."""
    for _, of_prompt in groupby(read_typed_rows(pairs / split, Pair), key=attrgetter("prompt_id")):
        yield list(of_prompt)


def build_once(
    shard: Path, out: Path, key: str, build: Callable[[Path, Path], tuple[ShardManifest, MixtureStatistics]]
) -> None:
    """Let `build` write both folders of a `DerivedWriter`, unless they are there under this key."""
    if restored(shard, key) and restored(out, key, STATISTICS):
        return
    with atomic_folder(shard) as new_shard, atomic_folder(out) as new:
        manifest, stats = build(new_shard, new)
        write_manifest(new_shard, manifest, key)
        write_manifest(new, stats, key, STATISTICS)


class DerivedWriter:
    """Writes pairs to the folder of a shard, for tokenizing, and to that of a mixture; `rejects` are in the latter."""

    def __init__(self, shard: Path, out: Path) -> None:
        self._shard, self._out = shard, out
        self._writers = {split: PartWriter[Pair](shard / split, PAIR_SCHEMA) for split in ("train", "eval")}
        self.rejects = RejectWriter(out)
        self.counts = PairCounts()

    def add(self, split: str, pairs: Sequence[Pair]) -> None:
        """Append the pairs of a prompt."""
        self.counts.add(pairs, split)
        for pair in pairs:
            self._writers[split].add(pair)

    def close(
        self, name: str, by_dataset: Mapping[str, DatasetCounts], pair_rejects: Mapping[str, int], held_out: HeldOut
    ) -> tuple[ShardManifest, MixtureStatistics]:
        """The manifest of the shard, and the statistics of the mixture `name`."""
        parts = {split: writer.close() for split, writer in self._writers.items()}
        for split, entries in parts.items():
            join_parts([(self._shard / split, entry) for entry in entries], self._out / split)
        examples = self.rejects.close()
        train, held = count_rows(parts["train"]), count_rows(parts["eval"])
        stats = MixtureStatistics.of(
            name,
            {
                dataset: counts.model_copy(update={"pairs_out": self.counts.datasets[dataset]})
                for dataset, counts in by_dataset.items()
            },
            self.counts,
            pair_rejects=dict(pair_rejects),
            similar_prompts=SimilarPrompts(),
            held_out=held_out,
            reject_examples=examples,
            parts=parts,
        )
        manifest = ShardManifest(train=train, eval=held, statistics=self.counts, reject_examples=examples, parts=parts)
        return manifest, stats


def as_rows(pairs: Iterable[tuple[str, int]]) -> dict[str, DatasetCounts]:
    """Counts of datasets of which each pair counts as a row; from name and number of pairs of each."""
    return {
        name: DatasetCounts(rows_in=count, revision=None, format="pairs", pairs_out=count, rows_used=count, rejects={})
        for name, count in pairs
    }
