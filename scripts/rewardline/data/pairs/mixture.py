"""The pairs of a mixture, joined from its shards, and their statistics."""

import logging
from itertools import chain
from pathlib import Path

from rewardline.core.artifacts import Manifest
from rewardline.core.errors import UserError
from rewardline.core.files import link_or_copy
from rewardline.data.pairs.accounting import total
from rewardline.data.pairs.manifests import CandidatesManifest, PromptsManifest, ShardManifest
from rewardline.data.pairs.pair_statistics import DatasetCounts, MixtureStatistics, PairCounts, added
from rewardline.data.pairs.rejects import join_examples, join_rejects
from rewardline.data.pairs.settings import PairsSettings
from rewardline.data.pairs.store import PartEntry

log = logging.getLogger(__name__)
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

    `sources`, `prompts` and `shards` are manifests: of each dataset, in a folder of its name; of the compared prompts;
    of each shard, in order.

    Raises:
        UserError: a split that should hold something is empty.
    """
    candidate_paths = candidate_manifests(prompts)
    candidates = [CandidatesManifest.read(path) for path in candidate_paths]
    cleaned = [(path.parent, ShardManifest.read(path)) for path in shards]
    datasets = sorted({one.dataset for one in candidates})
    rows = total([folder / "rows.npy" for folder, _ in cleaned], datasets)
    counts = sum((shard.statistics for _, shard in cleaned), PairCounts())
    origins = {path.parent.name: _Dataset.read(path) for path in sources}
    by_dataset = {}
    for dataset in datasets:
        own = [one for one in candidates if one.dataset == dataset]
        by_dataset[dataset] = DatasetCounts(
            rows_in=origins[dataset].rows,
            revision=origins[dataset].revision,
            format=", ".join(sorted({one.format for one in own})),
            pairs_out=counts.datasets[dataset],
            rows_used=rows.used[dataset],
            rejects=added(rows.left_out[dataset], *(one.rejects for one in own)),
        )
    examples = [one.reject_examples for one in candidates] + [shard.reject_examples for _, shard in cleaned]
    stats = MixtureStatistics.of(
        name,
        by_dataset,
        counts,
        pair_rejects=added(rows.pairs_left_out, *(one.pair_rejects for one in candidates)),
        similar_prompts=PromptsManifest.read(prompts).groups,
        reject_examples=join_examples(chain.from_iterable(examples)),
        parts={split: join_parts(cleaned, split, out) for split in ("train", "eval")},
    )
    left_out = ", ".join(f"{reason} {count}" for reason, count in stats.rejects.items()) or "nothing"
    check_splits(stats, settings.eval_fraction, left_out)
    join_rejects([*(path.parent for path in candidate_paths), *(folder for folder, _ in cleaned)], out)
    log.info(
        "%s: %d rows, %d train and %d eval pairs; left out: %s",
        name, stats.rows_in, stats.train, stats.eval, left_out,
    )  # fmt: skip
    return stats


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


def check_splits(stats: MixtureStatistics, eval_fraction: float, left_out: str) -> None:
    """Stop when a split that should hold something is empty.

    Raises:
        UserError: the split, and what was left out.
    """
    if eval_fraction < 1 and not stats.train:
        raise UserError(
            f"{stats.name}: no training pairs are left ({stats.eval} for evaluation; left out: {left_out}); add data, "
            "or lower eval_fraction"
        )
    if eval_fraction > 0 and not stats.eval:
        raise UserError(f"{stats.name}: no pairs are left for evaluation (left out: {left_out}); add data")
