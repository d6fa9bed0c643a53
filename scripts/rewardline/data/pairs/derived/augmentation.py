"""A mixture with further training pairs, whose rejected answer no reward model should prefer.

Answers of other prompts tell what an answer is worth by itself from what it is worth for its prompt (RRM, Liu et al.
2024, arXiv 2409.13156), unless the prompts are nearly the same; hacks are those of `probes`. Both are drawn by a hash
of the pair, and held-out pairs stay as they are.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rewardline.data.pairs.derived.build_probes import last_answer, preferred, probe
from rewardline.data.pairs.derived.writer import DerivedWriter, read_prompts
from rewardline.data.pairs.identity import unit_interval_hash
from rewardline.data.pairs.left_out import DatasetCounts
from rewardline.data.pairs.manifests import STATISTICS, MixtureStatistics, ShardManifest
from rewardline.data.pairs.probes import hacks
from rewardline.data.pairs.prompt_groups import PromptGroups
from rewardline.data.pairs.settings import AugmentSettings
from rewardline.data.schema import Pair
from rewardline.data.turns import unpack

OTHER_PROMPTS = "other_prompts"
SEED = 0
"""Of the hacks."""


@dataclass(frozen=True)
class Drawn:
    """What is made of a training pair, by its subset: a pair, or the reason why there is none."""

    subset: str
    pair: Pair | None
    reason: str = ""
    detail: str = ""


class Donors:
    """The last pairs with a chosen answer of two groups of prompts, so that one is of another group than any prompt."""

    def __init__(self) -> None:
        self._latest: list[tuple[int, Pair]] = []

    def outside(self, group: int) -> Pair | None:
        """The last pair of another group; None if there is none yet."""
        return next((pair for known, pair in self._latest if known != group), None)

    def add(self, group: int, pair: Pair) -> None:
        """Take in a pair of a group."""
        others = [one for one in self._latest if one[0] != group]
        self._latest = [(group, pair), *others[:1]]


def build(
    name: str, settings: AugmentSettings, pairs: Path, prompts: Path, shard: Path, out: Path
) -> tuple[ShardManifest, MixtureStatistics]:
    """Write the mixture to `shard` and `out`.

    `pairs`: the folder of the pairs of the mixture that it augments; `prompts`: that of its compared prompts. The new
    pairs are those of a dataset with the name of the mixture; their subset is `other_prompts` or the probe's. Nothing
    is made of rated single answers, which stay as they are.
    """
    before, groups = MixtureStatistics.read(pairs / STATISTICS), PromptGroups.load(prompts)
    writer = DerivedWriter(shard, out)
    lost = Counter[str]()
    rows, donors = 0, Donors()
    for of_prompt in read_prompts(pairs, "train"):
        known, added = {pair.pair_id for pair in of_prompt}, []
        compared = [pair for pair in of_prompt if pair.ratings is None]
        group = groups.group_of(int(of_prompt[0].prompt_id, 16))
        donor = donors.outside(group)
        for pair in compared:
            for drawn in _drawn(name, settings, pair, donor):
                rows += 1
                if drawn.pair is not None and drawn.pair.pair_id not in known:
                    known.add(drawn.pair.pair_id)
                    added.append(drawn.pair)
                    continue
                reason = drawn.reason or "duplicate"
                lost[reason] += 1
                detail = f"{drawn.subset}: {drawn.detail or 'the pair is there already'}"
                writer.rejects.add(name, pair.file, pair.row, reason, detail)
        writer.add("train", [*of_prompt, *added])
        if compared:
            donors.add(group, compared[0])
    for of_prompt in read_prompts(pairs, "eval"):
        writer.add("eval", of_prompt)
    counts = DatasetCounts(
        rows_in=rows, revision=None, format="augmented", pairs_out=0, rows_used=rows - lost.total(), rejects=dict(lost)
    )
    return writer.close(name, {**before.by_dataset, name: counts}, before.pair_rejects, before.held_out)


def _drawn(name: str, settings: AugmentSettings, pair: Pair, donor: Pair | None) -> Iterator[Drawn]:
    """What is made of a pair; `donor`: a pair of a prompt of another group, if there is one yet."""
    if _draws(OTHER_PROMPTS, settings.other_prompts, pair):
        yield _off_prompt(name, pair, donor)
    wanted = [kind for kind, share in settings.hacks.items() if _draws(kind, share, pair)]
    if not wanted:
        return
    said = last_answer(pair)
    made = {} if said is None else dict(hacks(*said, SEED))
    for kind in wanted:
        if (hack := made.get(kind)) is not None:
            yield Drawn(kind, probe(name, pair, kind, hack))
        elif said is None:
            yield Drawn(kind, None, "no_probe", "the answer does not end with a text of the assistant")
        else:
            yield Drawn(kind, None, "no_probe", "it would be the answer itself, which is too short for it")


def _draws(kind: str, share: float, pair: Pair) -> bool:
    return unit_interval_hash(f"augment {kind}", int(pair.pair_id, 16)) < share


def _off_prompt(name: str, pair: Pair, donor: Pair | None) -> Drawn:
    """A pair that prefers the answer of `pair` to the chosen one of another prompt."""
    if donor is None or donor.chosen == pair.chosen:
        return Drawn(OTHER_PROMPTS, None, "no_probe", "there is no other prompt with another answer before it")
    other = unpack(donor.prompt, donor.chosen, donor.rejected, donor.native).chosen
    return Drawn(OTHER_PROMPTS, preferred(name, pair, OTHER_PROMPTS, other, donor.chosen_source))
