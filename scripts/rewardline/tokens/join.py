"""The tokens of a mixture, joined from its shards."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rewardline.core.errors import UserError
from rewardline.core.files import read_json
from rewardline.data.pairs.rejects import join_examples, join_rejects
from rewardline.data.schema import RejectedRow
from rewardline.tokens.store import join_splits

Json = dict[str, Any]
LEFT_OUT = ("splits", "dropped", "reject_examples", "seconds")  # of a shard alone


def join(manifests: list[Path], out: Path, target: Path) -> Json:
    """Put the shards together in `out`; what the manifest says of all of them.

    Raises:
        UserError: nothing is left of a split.
    """
    shards = [(path.parent, read_json(path)) for path in manifests]
    dropped: Counter[str] = Counter()
    for _, facts in shards:
        dropped.update(facts["dropped"])
    splits = {
        split: join_splits([(folder, facts["splits"][split]) for folder, facts in shards], split, out)
        for split in ("train", "eval")
    }
    cases = (RejectedRow(**case) for _, facts in shards for case in facts["reject_examples"])
    join_rejects([folder for folder, _ in shards], out)
    if dropped and not all(entry["pairs"] for entry in splits.values() if entry["pairs_in"]):
        reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.most_common())
        raise UserError(
            f"{target}: no pairs are left as tokens: {reasons}. For answer_too_long raise max_length (now "
            f"{shards[0][1]['max_length']}), else choose another template"
        )
    return {
        **{key: value for key, value in shards[0][1].items() if key not in LEFT_OUT},
        "splits": splits,
        **{key: sum(facts[key] for _, facts in shards) for key in ("truncated_pairs", "truncated_tokens")},
        "dropped": dict(sorted(dropped.items())),
        "reject_examples": [asdict(case) for case in join_examples(cases)],
    }
