"""A mixture without the labels that an audit takes for wrong: dropped, flipped, or softened."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rewardline.core.artifacts import verify
from rewardline.core.errors import UserError
from rewardline.core.hashing import canonical
from rewardline.data.pairs.derived.writer import DerivedWriter, read_prompts
from rewardline.data.pairs.identity import content_id, hash_id
from rewardline.data.pairs.left_out import DatasetCounts
from rewardline.data.pairs.manifests import STATISTICS, MixtureStatistics, ShardManifest
from rewardline.data.pairs.settings import RelabelSettings
from rewardline.data.parquet import PartWriter, read_rows
from rewardline.data.schema import Message, Pair, arrow_schema
from rewardline.data.turns import pack, unpack

log = logging.getLogger(__name__)
AUDITED = "audited.parquet"
REASON = "mislabeled"


@dataclass(frozen=True, slots=True)
class AuditedPair:
    """A row of `audited.parquet`: a pair as it was, what became of it, and the probability that its label is wrong."""

    pair_id: str
    action: str
    probability: float
    dataset: str
    subset: str
    prompt: list[Message]
    chosen: str
    rejected: str
    file: str
    row: int


def build(
    name: str, settings: RelabelSettings, pairs: Path, labels: Path, shard: Path, out: Path
) -> tuple[ShardManifest, MixtureStatistics]:
    """Write the mixture to `shard` and `out`, and all pairs that are left out or changed to `audited.parquet` in `out`.

    `pairs`: the folder of the audited mixture's pairs, whose held-out ones stay as they are; `labels`: the file of the
    audit.

    Raises:
        UserError: no training pair is left.
    """
    verify(labels, "audit.json")
    before = MixtureStatistics.read(pairs / STATISTICS)
    doubted = _doubted(labels, settings.below)
    if None in doubted.values():
        log.warning("%s: audit %s judges no label, so that all stay as they are", name, settings.audit)
    writer = DerivedWriter(shard, out)
    kept_aside = PartWriter[AuditedPair](out, arrow_schema(AuditedPair), name=AUDITED, part_rows=2**62)
    dropped: list[tuple[str, int]] = []
    used: set[int] = set()
    flipped, softened, unjudged = Counter[str](), Counter[str](), Counter[str]()
    for split in ("train", "eval"):
        for of_prompt in read_prompts(pairs, split):
            kept = []
            for pair in of_prompt:
                wrong = doubted.get(pair.pair_id, 0.0) if split == "train" else 0.0
                row = hash_id(pair.dataset, pair.file, str(pair.row))
                unjudged[pair.dataset] += wrong is None
                if not wrong:
                    kept.append(pair)
                    used.add(row)
                    continue
                fields = {key: value for key, value in asdict(pair).items() if key in AuditedPair.__annotations__}
                kept_aside.add(AuditedPair(action=settings.action, probability=wrong, **fields))
                if settings.action == "drop":
                    detail = f"audit {settings.audit}: wrong with a probability of {wrong:.3f}"
                    writer.rejects.add(pair.dataset, pair.file, pair.row, REASON, detail)
                    dropped.append((pair.dataset, row))
                    continue
                used.add(row)
                kept.append(relabeled(pair, wrong, soften=settings.action == "soften"))
                (softened if settings.action == "soften" else flipped)[pair.dataset] += 1
            if kept:
                writer.add(split, kept)
    kept_aside.close()
    by_dataset, others = dict(before.by_dataset), Counter(before.pair_rejects)
    lost = {row: dataset for dataset, row in dropped if row not in used}
    others[REASON] = len(dropped) - len(lost)
    for dataset, counts in before.by_dataset.items():
        rows = sum(owner == dataset for owner in lost.values())
        own = sum(owner == dataset for owner, _ in dropped) - rows
        changes = {
            f"a label is flipped by audit {settings.audit}": flipped[dataset],
            f"a label is softened by audit {settings.audit}": softened[dataset],
            f"a label is kept, as audit {settings.audit} judges none,": unjudged[dataset],
        }
        by_dataset[dataset] = _after(counts, rows, own, changes)
    manifest, stats = writer.close(name, by_dataset, +others, before.held_out)
    if stats.train == stats.answers.get("train", 0):
        raise UserError(
            f"mixtures.{name}.action: drop leaves none of {len(dropped):,} training pairs, whose labels audit "
            f"{settings.audit} takes for wrong; lower `below`, or set action: soften"
        )
    return manifest, stats


def relabeled(pair: Pair, wrong: float, *, soften: bool) -> Pair:
    """A pair whose label is wrong with this probability, with the more probable label; softened, with its probability.

    A flipped one prefers the other answer for certain.
    """
    if soften and wrong < 0.5:
        return replace(pair, confidence=1 - wrong)
    prompt, chosen, rejected, inputs = unpack(pair.prompt, pair.chosen, pair.rejected, pair.native)
    native = pack(prompt, (rejected, chosen), inputs)
    return replace(
        pair,
        pair_id=content_id(canonical(pair.prompt), pair.rejected, pair.chosen, native),
        chosen=pair.rejected,
        rejected=pair.chosen,
        chosen_source=pair.rejected_source,
        rejected_source=pair.chosen_source,
        confidence=wrong if soften else pair.confidence,
        place=None,
        native=native,
    )


def _doubted(labels: Path, below: float) -> dict[str, float | None]:
    """The probability to be wrong, by pair, of labels that are right with a probability below `below`, or not judged.

    It is None for labels that are not judged.
    """
    rows = ((str(row["pair_id"]), row["probability"]) for row in read_rows(labels, ["pair_id", "probability"]))
    found = ((pair, wrong if isinstance(wrong, float) else None) for pair, wrong in rows)
    return {pair: wrong for pair, wrong in found if wrong is None or 1 - wrong < below}


def _after(counts: DatasetCounts, rows: int, pairs: int, changes: Mapping[str, int]) -> DatasetCounts:
    """The counts of a dataset of which so many rows and further pairs are left out."""
    return counts.model_copy(
        update={
            "rows_used": counts.rows_used - rows,
            "rejects": dict(+(Counter(counts.rejects) + Counter({REASON: rows}))),
            "pair_rejects": dict(+(Counter(counts.pair_rejects) + Counter({REASON: pairs}))),
            "changed": dict(+(Counter(counts.changed) + Counter(changes))),
        }
    )
