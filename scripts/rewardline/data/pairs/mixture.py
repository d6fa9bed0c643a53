"""The pairs of a mixture, joined from its shards, and their statistics."""

import logging
from itertools import chain
from pathlib import Path

from rewardline.core.artifacts import Manifest
from rewardline.core.errors import UserError
from rewardline.data.pairs.left_out import listed
from rewardline.data.pairs.manifests import (
    CandidatesManifest,
    MixtureStatistics,
    PairCounts,
    PromptsManifest,
    ShardManifest,
    added,
    counts_of,
)
from rewardline.data.pairs.outcomes import total
from rewardline.data.pairs.rejects import join_examples, join_rejects
from rewardline.data.pairs.settings import PairsSettings
from rewardline.data.parquet import PartEntry, join_parts
from rewardline.data.ratings import check_scales

log = logging.getLogger(__name__)
_ONE_PROMPT = (
    "all {} pairs have the same prompt, and pairs of one prompt stay together: set eval_fraction: 0 and evaluate on a"
    " benchmark, or set `fields` with a prompt that differs"
)


class _Dataset(Manifest):
    """The part of a dataset's manifest that is used here; pairs need none of the modules that read sources."""

    rows: int
    revision: str | None


def build(
    name: str,
    settings: PairsSettings,
    sources: list[Path],
    candidate_paths: list[Path],
    prompts: Path,
    shards: list[Path],
    out: Path,
) -> MixtureStatistics:
    """Write the pairs of a mixture to `out`.

    All paths are those of manifests: of each dataset, in a folder of its name; of its candidates; of the compared
    prompts; of each shard, in order.

    Raises:
        UserError: a split that should have pairs is empty.
    """
    compared = PromptsManifest.read(prompts)
    candidates = [CandidatesManifest.read(path) for path in candidate_paths]
    cleaned = [(path.parent, ShardManifest.read(path)) for path in shards]
    datasets = sorted({part.dataset for part in candidates})
    rows = total([folder / "rows.npy" for folder, _ in cleaned], datasets)
    counts = sum((shard.statistics for _, shard in cleaned), PairCounts())
    origins = {path.parent.name: _Dataset.read(path) for path in sources}
    remarks = check_scales([(part.dataset, part.ratings) for part in candidates])
    by_dataset = {}
    for dataset in datasets:
        parts = [part for part in candidates if part.dataset == dataset]
        converted = counts_of(parts)
        by_dataset[dataset] = converted.model_copy(
            update={
                "rows_in": origins[dataset].rows,
                "revision": origins[dataset].revision,
                "pairs_out": counts.datasets[dataset],
                "rows_used": rows.used[dataset],
                "rejects": added(rows.left_out[dataset], converted.rejects),
                "remarks": [*converted.remarks, *remarks.get(dataset, [])],
            }
        )
    examples = [*(part.reject_examples for part in candidates), *(shard.reject_examples for _, shard in cleaned)]
    stats = MixtureStatistics.of(
        name,
        by_dataset,
        counts,
        pair_rejects=added(rows.pairs_left_out, *(part.pair_rejects for part in candidates)),
        similar_prompts=compared.groups,
        held_out=compared.held_out,
        reject_examples=join_examples(chain.from_iterable(examples)),
        parts={split: join_split(cleaned, split, out) for split in ("train", "eval")},
    )
    check_splits(stats, settings.eval_fraction, listed(stats.rejects) or "nothing")
    join_rejects([*(path.parent for path in candidate_paths), *(folder for folder, _ in cleaned)], out)
    for line in stats.lines():
        log.info("%s", line)
    return stats


def join_split(shards: list[tuple[Path, ShardManifest]], split: str, out: Path) -> list[PartEntry]:
    """Join the parts of all shards (folder and manifest) in a folder of `out`; without empty ones, but at least one."""
    parts = [(folder / split, part) for folder, shard in shards for part in shard.parts[split]]
    return join_parts([part for part in parts if part[1].rows] or parts[:1], out / split)


def check_splits(stats: MixtureStatistics, eval_fraction: float, left_out: str) -> None:
    """Raise `UserError` if a split that should have pairs is empty."""
    if eval_fraction < 1 and not stats.train:
        remedy = "add data, or lower eval_fraction"
        if stats.prompts["eval"] == 1:
            remedy = _ONE_PROMPT.format(stats.eval)
        raise UserError(
            f"{stats.name}: no training pairs are left ({stats.eval} for evaluation; left out: {left_out}); {remedy}"
        )
    if eval_fraction > 0 and not stats.eval:
        remedy = _ONE_PROMPT.format(stats.train) if stats.prompts["train"] == 1 else "add data"
        raise UserError(f"{stats.name}: no pairs are left for evaluation (left out: {left_out}); {remedy}")
