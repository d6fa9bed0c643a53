"""The tokens of a mixture, joined from its shards."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rewardline.core.artifacts import MANIFEST
from rewardline.core.errors import UserError
from rewardline.data.pairs.rejects import join_examples, join_rejects
from rewardline.tokens.store import SPLITS, TokenManifest, join_splits

log = logging.getLogger(__name__)


def join(folders: Sequence[Path], target: Path, out: Path) -> TokenManifest:
    """Put the shards in `folders` together in `out`, which becomes `target`; the manifest of all of them.

    Raises:
        UserError: no pair of a split is left.
    """
    shards = [TokenManifest.read(folder / MANIFEST) for folder in folders]
    dropped: Counter[str] = Counter()
    for shard in shards:
        dropped.update(shard.dropped)
    splits = {split: join_splits(folders, [shard.splits[split] for shard in shards], split, out) for split in SPLITS}
    if dropped and not all(entry.pairs for entry in splits.values() if entry.pairs_in):
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
            "dropped": dict(sorted(dropped.items())),
            "reject_examples": join_examples(case for shard in shards for case in shard.reject_examples),
            "seconds": None,
        }
    )
    log.info("%s", manifest.summary())
    return manifest.model_copy(update={"sha256": manifest.shard_hashes()})
