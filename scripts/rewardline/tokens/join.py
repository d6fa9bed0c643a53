"""The tokens of a mixture, joined from its shards."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rewardline.core.artifacts import MANIFEST, verify
from rewardline.core.errors import UserError
from rewardline.core.files import link_or_copy
from rewardline.data.pairs import left_out
from rewardline.data.pairs.left_out import Loss, PairsAccount
from rewardline.data.pairs.rejects import FILE, join_examples, join_rejects
from rewardline.data.parquet import read_typed_rows
from rewardline.data.schema import RejectedRow
from rewardline.tokens.store import SPLITS, SplitEntry, TokenManifest

log = logging.getLogger(__name__)


def check_losses(folders: Sequence[Path], stats: PairsAccount, limit: float) -> None:
    """Check what each dataset has lost from its rows to the tokens of its pairs; `stats` are those of its pairs.

    Raises:
        UserError: it is more than `limit`, the `max_reject_fraction` of the mixture.
    """
    examples = [case for folder in folders for case in TokenManifest.read(folder / MANIFEST).reject_examples]
    dropped: dict[str, Counter[str]] = {}
    for folder in folders:
        for case in read_typed_rows(folder / FILE, RejectedRow):
            dropped.setdefault(case.dataset, Counter())[case.reason] += 1
    for dataset, reasons in sorted(dropped.items()):
        counts = stats.by_dataset[dataset]
        losses = [*counts.losses(), Loss(reasons, counts.pairs_out, "pairs cannot be tokenized")]
        own = [f"{one.file}:{one.row}: {one.reason}: {one.detail}" for one in examples if one.dataset == dataset]
        remedy = "Set another `template` or `chat_template` of the model; for answer_too_long, raise its max_length"
        left_out.check(stats.name, dataset, losses, limit, own, remedy)


def join(folders: Sequence[Path], target: Path, reads_names: bool, out: Path) -> TokenManifest:
    """Join the shards in `folders` to a folder at `out`, which becomes `target`; returns its manifest.

    `reads_names`: see `TokenManifest`.

    Raises:
        UserError: no pair of a split is left, or a file is damaged.
    """
    shards = [TokenManifest.read(folder / MANIFEST) for folder in folders]
    dropped = sum((Counter(shard.dropped) for shard in shards), Counter())
    changed = sum((Counter(shard.changed) for shard in shards), Counter())
    splits = {split: _join_split(folders, [shard.splits[split] for shard in shards], split, out) for split in SPLITS}
    if dropped and not all(entry.pairs + entry.answers for entry in splits.values() if entry.pairs_in):
        reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.most_common())
        raise UserError(
            f"{target}: no pairs are left as tokens: {reasons}. For answer_too_long raise max_length (now "
            f"{shards[0].max_length}), else choose another template"
        )
    join_rejects(folders, out)
    manifest = shards[0].model_copy(
        update={
            "splits": splits,
            "truncated_pairs": sum(shard.truncated_pairs for shard in shards),
            "truncated_tokens": sum(shard.truncated_tokens for shard in shards),
            "changed": dict(sorted(changed.items())),
            "dropped": dict(sorted(dropped.items())),
            "reject_examples": join_examples(case for shard in shards for case in shard.reject_examples),
            "reads_names": reads_names,
            "seconds": None,
        }
    )
    log.info("%s", manifest.summary())
    return manifest


def _join_split(folders: Sequence[Path], entries: Sequence[SplitEntry], split: str, out: Path) -> SplitEntry:
    """Link or copy the files of a split to `out`, but for those without comparisons after the first."""
    files = [(folder, shard) for folder, entry in zip(folders, entries, strict=True) for shard in entry.shards]
    files = [file for file in files if file[1].comparisons] or files[:1]
    shards = []
    for number, (folder, shard) in enumerate(files):
        name = f"{split}-{number:05d}.arrow"
        verify(folder / shard.file)
        link_or_copy(folder / shard.file, out / name)
        shards.append(shard.model_copy(update={"file": name}))
    counts: Counter[str] = Counter()
    for entry in entries:
        counts.update(entry.model_dump(exclude={"shards"}))
    return SplitEntry(**counts, shards=shards)
