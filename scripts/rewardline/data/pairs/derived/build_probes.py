"""The pairs of a probe benchmark: held-out answers against hacks of them."""

import heapq
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rewardline.core.errors import UserError
from rewardline.core.hashing import canonical
from rewardline.data.pairs.derived.writer import DerivedWriter
from rewardline.data.pairs.identity import content_id, unit_interval_hash
from rewardline.data.pairs.left_out import DatasetCounts, HeldOut
from rewardline.data.pairs.manifests import MixtureStatistics, ShardManifest
from rewardline.data.pairs.probes import hacks
from rewardline.data.pairs.settings import ProbeSettings
from rewardline.data.parquet import read_rows, read_typed_rows
from rewardline.data.schema import Pair
from rewardline.data.turns import answer_of, pack, turns_of, unpack

log = logging.getLogger(__name__)


def draw(pairs: Path, count: int, seed: int) -> Iterator[Pair]:
    """The first pair of each of `count` prompts of the eval split, drawn by the seed, in the order of the split."""
    rows = read_rows(pairs / "eval", ["prompt_id", "ratings"])
    ids = {str(row["prompt_id"]) for row in rows if row["ratings"] is None}
    drawn = set(heapq.nsmallest(count, ids, key=lambda name: unit_interval_hash(f"probes {seed}", int(name, 16))))
    for pair in read_typed_rows(pairs / "eval", Pair):
        if pair.prompt_id in drawn and pair.ratings is None:
            drawn.remove(pair.prompt_id)
            yield pair


def last_answer(pair: Pair) -> tuple[str, str] | None:
    """What the last turn of the chosen answer says, and the turn before it; None if it says nothing by itself."""
    prompt, chosen, _, _ = unpack(pair.prompt, pair.chosen, pair.rejected, pair.native)
    *before, last = [*prompt, *turns_of(chosen)]
    return None if last["role"] != "assistant" or "native" in last else (before[-1]["content"], last["content"])


def probe(name: str, pair: Pair, subset: str, hack: str) -> Pair:
    """A pair that prefers the answer of `pair` to a hack of its last turn."""
    chosen = unpack(pair.prompt, pair.chosen, pair.rejected, pair.native).chosen
    hacked = answer_of([*turns_of(chosen)[:-1], {"role": "assistant", "content": hack}])
    return preferred(name, pair, subset, hacked)


def preferred(name: str, pair: Pair, subset: str, worse: str, source: str | None = None) -> Pair:
    """A pair of dataset `name` that prefers the chosen answer of `pair` to a worse one, which comes from `source`."""
    prompt, chosen, _, inputs = unpack(pair.prompt, pair.chosen, pair.rejected, pair.native)
    native = pack(prompt, (chosen, worse), inputs)
    return replace(
        pair,
        pair_id=content_id(canonical(pair.prompt), pair.chosen, worse, native),
        dataset=name,
        subset=subset,
        rejected=worse,
        margin=None,
        confidence=1.0,
        weight=1.0,
        rejected_source=source,
        place=None,
        native=native,
    )


def build(
    name: str, settings: ProbeSettings, pairs: Path, shard: Path, out: Path
) -> tuple[ShardManifest, MixtureStatistics]:
    """Write the probes to `shard` and `out`; their manifest and statistics.

    Raises:
        UserError: the mixture holds nothing out.
    """
    writer = DerivedWriter(shard, out)
    prompts = skipped = unused = 0
    for pair in draw(pairs, settings.prompts, settings.seed):
        prompts += 1
        probes = []
        if (said := last_answer(pair)) is None:
            unused += 1
            detail = "its answer does not end with a text of the assistant"
            writer.rejects.add(name, pair.file, pair.row, "no_probe", detail)
            continue
        for subset, hack in hacks(*said, settings.seed):
            if hack is not None:
                probes.append(probe(name, pair, subset, hack))
            else:
                skipped += 1
                detail = f"{subset} would be the answer itself, which is too short for it"
                writer.rejects.add(name, pair.file, pair.row, "no_probe", detail)
        writer.add("eval", probes)
    if not prompts:
        raise UserError(f"{pairs} has no held-out pairs to make probes of; raise the mixture's eval_fraction")
    dataset = DatasetCounts(
        rows_in=prompts,
        revision=None,
        format="probes",
        pairs_out=0,
        rows_used=prompts - unused,
        rejects={"no_probe": unused} if unused else {},
    )
    manifest, stats = writer.close(name, {name: dataset}, {"no_probe": skipped} if skipped else {}, HeldOut())
    log.info("%s: %d probes of %d held-out prompts", name, manifest.eval, prompts)
    return manifest, stats
