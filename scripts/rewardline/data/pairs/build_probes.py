"""The pairs of a probe benchmark: held-out answers against hacks of them."""

import heapq
import logging
from collections.abc import Iterator
from pathlib import Path

from rewardline.core.errors import UserError
from rewardline.core.files import link_or_copy
from rewardline.core.hashing import canonical
from rewardline.data.pairs.candidates import pair_of
from rewardline.data.pairs.identity import unit_interval_hash
from rewardline.data.pairs.manifests import ShardManifest
from rewardline.data.pairs.pair_statistics import DatasetCounts, MixtureStatistics, PairCounts, SimilarPrompts
from rewardline.data.pairs.probes import hacks
from rewardline.data.pairs.rejects import RejectWriter
from rewardline.data.pairs.settings import ProbeSettings
from rewardline.data.pairs.store import PartWriter, read_pairs, read_rows
from rewardline.data.schema import Candidate, Pair

log = logging.getLogger(__name__)


def draw(pairs: Path, count: int, seed: int) -> Iterator[Pair]:
    """The first pair of each of `count` prompts of the eval split, drawn by the seed, in the order of the split."""
    ids = {str(row["prompt_id"]) for row in read_rows(pairs / "eval", ["prompt_id"])}
    drawn = set(heapq.nsmallest(count, ids, key=lambda name: unit_interval_hash(f"probes {seed}", int(name, 16))))
    for pair in read_pairs(pairs / "eval"):
        if pair.prompt_id in drawn:
            drawn.remove(pair.prompt_id)
            yield pair


def probe(name: str, pair: Pair, subset: str, hack: str) -> Candidate:
    """The candidate that prefers the answer of `pair` to a hack of it."""
    return Candidate(
        prompt_id=int(pair.prompt_id, 16),
        prompt=canonical(pair.prompt),
        chosen=pair.chosen,
        rejected=hack,
        margin=None,
        confidence=1.0,
        weight=1.0,
        subset=subset,
        dataset=name,
        file=pair.file,
        row=pair.row,
        chosen_source=pair.chosen_source,
    )


def build(
    name: str, settings: ProbeSettings, pairs: Path, shard: Path, out: Path
) -> tuple[ShardManifest, MixtureStatistics]:
    """Write the probes to `shard` and `out`; their manifest and statistics.

    Raises:
        UserError: the mixture holds nothing out.
    """
    writers = {split: PartWriter(shard / split, Pair) for split in ("train", "eval")}
    rejects = RejectWriter(out)
    counts = PairCounts()
    prompts = skipped = 0
    for pair in draw(pairs, settings.prompts, settings.seed):
        prompts += 1
        probes = []
        for subset, hack in hacks(pair.prompt[-1]["content"], pair.chosen, settings.seed):
            if hack is not None:
                probes.append(probe(name, pair, subset, hack))
                writers["eval"].add(pair_of(probes[-1], 1.0))
            else:
                skipped += 1
                detail = f"{subset} would be the answer itself, which is too short for it"
                rejects.add(name, pair.file, pair.row, "no_probe", detail)
        counts.add(probes, "eval")
    for writer in writers.values():
        writer.close()
    if not prompts:
        raise UserError(f"{pairs} holds no pairs out that probes could be made of; raise the mixture's eval_fraction")
    parts = {split: writer.entries() for split, writer in writers.items()}
    for split, entries in parts.items():
        (out / split).mkdir()
        for entry in entries:
            link_or_copy(shard / split / entry.file, out / split / entry.file)
    total, examples = writers["eval"].total, rejects.close()
    dataset = DatasetCounts(
        rows_in=prompts, revision=None, format="probes", pairs_out=total, rows_used=prompts, rejects={}
    )
    stats = MixtureStatistics.of(
        name,
        {name: dataset},
        counts,
        pair_rejects={"no_probe": skipped} if skipped else {},
        similar_prompts=SimilarPrompts(),
        reject_examples=examples,
        parts=parts,
    )
    log.info("%s: %d probes of %d held-out prompts", name, total, prompts)
    return ShardManifest(train=0, eval=total, statistics=counts, reject_examples=examples, parts=parts), stats
