"""The folds of an audit: each holds out a part of the training pairs, so that a model can score what it never saw.

Prompts that are nearly the same are in one fold, as they are on one side of the mixture's split.
"""

from collections import Counter
from pathlib import Path

from rewardline.core.errors import UserError
from rewardline.data.pairs.derived.writer import DerivedWriter, as_rows, read_prompts
from rewardline.data.pairs.identity import unit_interval_hash
from rewardline.data.pairs.left_out import HeldOut
from rewardline.data.pairs.manifests import MixtureStatistics, ShardManifest
from rewardline.data.pairs.prompt_groups import PromptGroups
from rewardline.data.pairs.settings import FoldSettings

LEAST_PROMPTS = 10
"""Of a fold, with pairs to judge."""


def build(
    name: str, settings: FoldSettings, pairs: Path, prompts: Path, shard: Path, out: Path
) -> tuple[ShardManifest, MixtureStatistics]:
    """Write a fold to `shard` and `out`: its own pairs as eval split, all other training pairs as train split.

    `pairs`: the folder of the audited mixture's pairs; `prompts`: that of its compared prompts. A tie has no label to
    be wrong, and is never held out.

    Raises:
        UserError: a fold has too few prompts with pairs to judge.
    """
    groups = PromptGroups.load(prompts)
    writer, sizes = DerivedWriter(shard, out), Counter[int]()
    for of_prompt in read_prompts(pairs, "train"):
        group = groups.group_of(int(of_prompt[0].prompt_id, 16))
        fold = int(unit_interval_hash(f"fold of {settings.folds}", group) * settings.folds)
        labelled = [pair for pair in of_prompt if pair.confidence > 0.5 and pair.ratings is None]
        sizes[fold] += bool(labelled)
        if fold != settings.number:
            writer.add("train", of_prompt)
        elif labelled:
            writer.add("eval", labelled)
    few = min(range(settings.folds), key=lambda fold: sizes[fold])
    if sizes[few] < LEAST_PROMPTS:
        raise UserError(
            f"audits.{settings.audit}.folds: of {sizes.total():,} training prompts with labels to judge (pairs that "
            f"are no ties) in {pairs}, fold {few} of {settings.folds} has {sizes[few]}; at least {LEAST_PROMPTS} are "
            "needed. Lower `folds`, or audit a larger mixture"
        )
    held_out = HeldOut(prompts=sizes[settings.number], of=sizes.total(), fraction=1 / settings.folds)
    return writer.close(name, as_rows(writer.counts.datasets.items()), {}, held_out)
