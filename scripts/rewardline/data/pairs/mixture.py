"""The pairs of a mixture, joined from its shards, and their statistics."""

from collections import Counter
from itertools import chain
from pathlib import Path

from rewardline.core.artifacts import Manifest
from rewardline.core.errors import UserError
from rewardline.core.files import link_or_copy
from rewardline.data.pairs.accounting import total
from rewardline.data.pairs.manifests import CandidatesManifest, PromptsManifest, ShardManifest
from rewardline.data.pairs.pair_statistics import DatasetCounts, MixtureStatistics
from rewardline.data.pairs.rejects import join_examples, join_rejects
from rewardline.data.pairs.settings import PairsSettings
from rewardline.data.pairs.store import PartEntry

Shards = list[tuple[Path, ShardManifest]]
"""The folder and manifest of each shard."""


class _Dataset(Manifest):
    """What is used of the manifest of a downloaded dataset."""

    rows: int
    revision: str | None


def build(
    name: str, settings: PairsSettings, sources: list[Path], prompts: Path, shards: list[Path], out: Path
) -> MixtureStatistics:
    """Write the pairs of a mixture to `out`.

    Args:
        name: name of the mixture.
        settings: settings of the stage.
        sources: manifests of its datasets, in folders of their names.
        prompts: manifest of its compared prompts.
        shards: manifests of its shards, in order.
        out: folder to write to.

    Raises:
        UserError: a split that should hold something is empty.
    """
    candidate_paths = candidate_manifests(prompts)
    candidates = [CandidatesManifest.read(path) for path in candidate_paths]
    cleaned = [(path.parent, ShardManifest.read(path)) for path in shards]
    datasets = sorted({one.dataset for one in candidates})
    rows = total([(folder / "rows.npy", shard.reasons) for folder, shard in cleaned], datasets)
    origins = {path.parent.name: _Dataset.read(path) for path in sources}
    pair_rejects = sum((Counter(one.pair_rejects) for one in candidates), rows.pairs_left_out)
    by_dataset = {}
    for dataset in datasets:
        own = [one for one in candidates if one.dataset == dataset]
        rejects = sum((Counter(one.rejects) for one in own), rows.left_out[dataset])
        by_dataset[dataset] = DatasetCounts(
            rows_in=origins[dataset].rows,
            revision=origins[dataset].revision,
            format=", ".join(sorted({one.format for one in own})),
            pairs_out=sum(shard.statistics.datasets[dataset] for _, shard in cleaned),
            rows_used=rows.used[dataset],
            rejects=dict(sorted(rejects.items())),
        )
    check_splits(name, settings, cleaned, by_dataset)
    join_rejects([*(path.parent for path in candidate_paths), *(folder for folder, _ in cleaned)], out)
    examples = [one.reject_examples for one in candidates] + [shard.reject_examples for _, shard in cleaned]
    return MixtureStatistics.of(
        name,
        by_dataset,
        (shard.statistics for _, shard in cleaned),
        pair_rejects,
        PromptsManifest.read(prompts).groups,
        join_examples(chain.from_iterable(examples)),
        {split: join_parts(cleaned, split, out) for split in ("train", "eval")},
    )


def candidate_manifests(prompts: Path) -> list[Path]:
    """The manifests of the candidates that a mixture is made of; `prompts` is that of its compared prompts."""
    return [Path(entry.folder) / "manifest.json" for entry in PromptsManifest.read(prompts).data]


def join_parts(shards: Shards, split: str, out: Path) -> list[PartEntry]:
    """Put the parts of all shards that hold anything into one folder."""
    (out / split).mkdir()
    entries = [(folder, part) for folder, shard in shards for part in shard.parts[split]]
    filled = [entry for entry in entries if entry[1].rows] or entries[:1]
    joined = []
    for number, (folder, part) in enumerate(filled):
        name = f"part-{number:05d}.parquet"
        link_or_copy(folder / split / part.file, out / split / name)
        joined.append(part.model_copy(update={"file": name}))
    return joined


def check_splits(name: str, settings: PairsSettings, shards: Shards, by_dataset: dict[str, DatasetCounts]) -> None:
    """Stop when a split that should hold something is empty.

    Raises:
        UserError: the split, and what was left out.
    """
    train, held_out = (sum(sizes) for sizes in zip(*((shard.train, shard.eval) for _, shard in shards), strict=True))
    left_out: Counter[str] = sum((Counter(one.rejects) for one in by_dataset.values()), Counter())
    reasons = ", ".join(f"{reason} {count}" for reason, count in left_out.most_common()) or "nothing"
    if settings.eval_fraction < 1 and not train:
        raise UserError(
            f"{name}: no training pairs are left ({held_out} for evaluation; left out: {reasons}); add data, or lower "
            "eval_fraction"
        )
    if settings.eval_fraction > 0 and not held_out:
        raise UserError(f"{name}: no pairs are left for evaluation (left out: {reasons}); add data")
