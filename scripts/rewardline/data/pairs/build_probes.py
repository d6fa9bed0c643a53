"""The pairs of a probe benchmark: held-out answers against hacks of them."""

import heapq
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rewardline.core.errors import UserError
from rewardline.core.files import link_or_copy, write_json
from rewardline.core.hashing import canonical
from rewardline.data.pairs.candidates import Candidate, pair_row
from rewardline.data.pairs.identity import position
from rewardline.data.pairs.pair_statistics import PairStatistics, summarize
from rewardline.data.pairs.probes import hacks
from rewardline.data.pairs.rejects import RejectWriter
from rewardline.data.pairs.settings import ProbeSettings
from rewardline.data.pairs.store import PAIR_SCHEMA, PartWriter, read_pairs

Json = dict[str, Any]


def drawn(pairs: Path, count: int, seed: int) -> Iterator[Json]:
    """The first pair of each of `count` prompts of the eval split, which the seed draws, in the order of the split."""
    numbers = {str(row["prompt_id"]) for row in read_pairs(pairs / "eval", ["prompt_id"])}
    chosen = set(heapq.nsmallest(count, numbers, key=lambda name: position(f"probes {seed}", int(name, 16))))
    for row in read_pairs(pairs / "eval"):
        if row["prompt_id"] in chosen:
            chosen.remove(row["prompt_id"])
            yield row


def probes(name: str, pair: Json, seed: int) -> Iterator[tuple[Candidate, bool]]:
    """The probes of a pair, each with whether it can be made."""
    for subset, hack in hacks(pair["prompt"][-1]["content"], pair["chosen"], seed):
        yield (
            Candidate(
                prompt_id=int(pair["prompt_id"], 16),
                prompt=canonical(pair["prompt"]),
                chosen=pair["chosen"],
                rejected=hack or "",
                margin=None,
                confidence=1.0,
                weight=1.0,
                subset=subset,
                dataset=name,
                file=pair["file"],
                row=pair["row"],
                chosen_source=pair["chosen_source"],
            ),
            hack is not None,
        )


def build(name: str, settings: ProbeSettings, pairs: Path, shard: Path, out: Path) -> Json:
    """Write the probes to `shard` and `out`; their statistics.

    Raises:
        UserError: the mixture holds nothing out.
    """
    writers = {split: PartWriter(shard / split, PAIR_SCHEMA) for split in ("train", "eval")}
    rejects = RejectWriter(out)
    statistics = PairStatistics()
    skipped: Counter[str] = Counter()
    prompts = 0
    for pair in drawn(pairs, settings.prompts, settings.seed):
        prompts += 1
        for probe, possible in probes(name, pair, settings.seed):
            if possible:
                writers["eval"].add(pair_row(probe, 1.0))
                statistics.add(probe, "eval")
            else:
                skipped["no_probe"] += 1
                detail = f"{probe.subset} would be the answer itself, which is too short for it"
                rejects.add(name, probe.file, probe.row, "no_probe", detail)
    for writer in writers.values():
        writer.close()
    if not prompts:
        raise UserError(f"{pairs} holds no pairs out that probes could be made of; raise the mixture's eval_fraction")
    parts = {split: writer.entries() for split, writer in writers.items()}
    for split, entries in parts.items():
        (out / split).mkdir()
        for entry in entries:
            link_or_copy(shard / split / entry["file"], out / split / entry["file"])
    write_json(shard / "manifest.json", {"train": 0, "eval": writers["eval"].total, "parts": parts})
    counts = {"rows_in": prompts, "pairs_out": writers["eval"].total, "rows_used": prompts, "rejects": {}}
    return {
        "name": name,
        **counts,
        "train": 0,
        "eval": writers["eval"].total,
        "pair_rejects": dict(skipped),
        "by_dataset": {name: {**counts, "revision": None, "format": "probes"}},
        **summarize([statistics.counts()]),
        "similar_prompts": {"prompts": 0, "groups": 0, "largest": 0, "templated": 0},
        "reject_examples": rejects.close(),
        "parts": parts,
    }
