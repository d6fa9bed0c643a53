"""What is left out or changed on the way from rows to tokens: one account for each dataset, with one bound.

Every stage reports into it: reading and conversion (rows, and pairs of rows that others use), cleaning, tokenization.
Snakemake's own process shows it, so that this imports nothing slow.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pydantic import BaseModel, Field

from rewardline.core.artifacts import Manifest
from rewardline.core.errors import UserError

INTENDED = (
    "filtered", "outside_share", "not_sampled", "over_cap", "duplicate", "near_duplicate", "contradiction",
    "in_benchmark", "mislabeled", "tie", "small_margin", "no_margin", "max_pairs", "one_sided", "no_probe",
)  # fmt: skip
"""Reasons that follow from the settings or from other rows, and do not count against `max_reject_fraction`."""
NOT_WANTED = ("filtered", "outside_share")
"""Those of them that are given to a row before it is converted."""
UNREADABLE = "unreadable"
EXAMPLES_SHOWN = 6


class Loss(NamedTuple):
    """What one stage lost, by reason, of what it was given; `what` names the things that are counted."""

    reasons: Mapping[str, int]
    total: int
    what: str

    @property
    def lost(self) -> int:
        """How many were lost."""
        return sum(self.reasons.values())

    def __str__(self) -> str:
        return f"{self.lost:,} of {self.total:,} {self.what} ({listed(self.reasons)})"


class DatasetCounts(BaseModel):
    """Counts of a dataset in a mixture; `rows_in` is the sum of `rows_used` and all `rejects`.

    `candidates`: pairs before cleaning; `pair_rejects`: further pairs that their rows could have given, by reason;
    `changed`: rows that lost a part, by what it is; `remarks`: what else the user should know of how they are read.
    """

    rows_in: int
    revision: str | None
    format: str
    pairs_out: int
    rows_used: int
    rejects: dict[str, int]
    candidates: int = 0
    pair_rejects: dict[str, int] = {}
    changed: dict[str, int] = {}
    remarks: list[str] = []

    def losses(self) -> list[Loss]:
        """What was lost until the pairs stand, stage by stage; nothing that the settings leave out."""
        lost = _unintended(self.rejects)
        unreadable = {name: lost.pop(name) for name in (UNREADABLE,) if name in lost}
        rows = self.rows_in - sum(self.rejects.get(name, 0) for name in (UNREADABLE, *NOT_WANTED))
        pairs = _unintended(self.pair_rejects)
        return [
            Loss(unreadable, self.rows_in, "rows are unusable"),
            Loss(lost, rows, "rows are unusable"),
            Loss(pairs, self.candidates + sum(pairs.values()), "pairs of rows with several are unusable"),
        ]


class HeldOut(BaseModel):
    """How many of the compared prompts are held out, where `fraction` was asked for."""

    prompts: int = 0
    of: int = 0
    fraction: float = 0.0


class PairsAccount(Manifest):
    """The part of `stats.json` that says what became of the rows of a mixture or benchmark."""

    name: str
    rows_in: int
    rows_used: int
    train: int
    eval: int
    rejects: dict[str, int]
    pair_rejects: dict[str, int]
    by_dataset: dict[str, DatasetCounts]
    answers: dict[str, int] = Field({}, exclude_if=lambda answers: not answers)
    """How many of `train` and `eval` are single answers with ratings, by split."""
    held_out: HeldOut = HeldOut()

    def lines(self) -> list[str]:
        """What became of the rows, what was lost and what the settings left out, in a few lines."""
        what = "pairs" if sum(self.answers.values()) < self.train + self.eval else "rated answers"
        pairs = f"{self.train:,} training and {self.eval:,} held-out {what}" if self.train else f"{self.eval:,} {what}"
        if self.answers and what == "pairs":
            numbers = f"{self.answers.get('train', 0):,} and {self.answers.get('eval', 0):,}"
            pairs = pairs.replace("pairs", f"pairs and rated answers ({numbers} of them rated answers)")
        split = ""
        if self.train and self.held_out.of:
            share = self.held_out.prompts / self.held_out.of
            split = f"; {share:.1%} of the prompts are held out, eval_fraction is {self.held_out.fraction:.1%}"
        lines = [f"{self.name}: {self.rows_in:,} rows gave {pairs}{split}"]
        lost = Loss(_unintended(self.rejects), self.rows_in, "rows"), Counter(_unintended(self.pair_rejects))
        if lost[0].lost or lost[1]:
            lines.append(f"{self.name}: lost {_sentence(lost[0], lost[1])}")
        changed = sum((Counter(one.changed) for one in self.by_dataset.values()), Counter())
        lines += [f"{self.name}: {what} in {count:,} rows" for what, count in sorted(changed.items())]
        lines += [f"{name}: {remark}" for name, one in self.by_dataset.items() for remark in one.remarks]
        meant = (_only(counts, INTENDED) for counts in (self.rejects, self.pair_rejects))
        rows, others = (Counter(counts) for counts in meant)
        if rows or others:
            given = Loss(rows, self.rows_in, "rows")
            lines.append(f"{self.name}: left out as the settings ask {_sentence(given, others)}")
        return lines


class SplitCounts(BaseModel):
    """Pairs of a split before and after tokenization."""

    pairs_in: int = 0
    pairs: int = 0
    answers: int = 0


class TokensAccount(Manifest):
    """The part of the manifest of tokens that says what became of the pairs."""

    splits: dict[str, SplitCounts]
    truncated_pairs: int
    truncated_tokens: int
    changed: dict[str, int] = Field({})
    dropped: dict[str, int]

    def lines(self, mixture: str, model: str) -> list[str]:
        """What was lost and changed, a line each."""
        lines = []
        if self.dropped:
            loss = Loss(self.dropped, sum(split.pairs_in for split in self.splits.values()), "pairs")
            lines.append(f"{mixture}: lost as tokens of {model} {loss}")
        pairs = f"of {sum(split.pairs + split.answers for split in self.splits.values()):,} pairs"
        if self.truncated_pairs:
            cut = f"the prompts of {self.truncated_pairs:,} {pairs} are cut to max_length"
            lines.append(f"{mixture}: as tokens of {model}, {cut}")
        lines += [
            f"{mixture}: as tokens of {model}, the chat template leaves out or changes text of the {part} in {count:,} "
            f"{pairs}, such as reasoning"
            for part, count in sorted(self.changed.items())
        ]
        return lines


def check(name: str, dataset: str, losses: Sequence[Loss], limit: float, examples: Iterable[str], remedy: str) -> None:
    """Check what a mixture lost of a dataset so far.

    Each stage keeps a share of what it is given; the bound is on what the product of these shares leaves.

    Raises:
        UserError: it lost more than the share `limit`, or all; the message has reasons, examples and a remedy.
    """
    kept = 1.0
    for loss in losses:
        kept *= 1 - loss.lost / loss.total if loss.total else 1.0
    share = round(1 - kept, 9)
    if share <= limit and share < 1:
        return
    found = "; ".join(str(loss) for loss in losses if loss.lost)
    several = f", {share:.1%} in all" if sum(loss.lost > 0 for loss in losses) > 1 else ""
    bound, way_on = f"more than max_reject_fraction {limit:g} allows", f", or raise max_reject_fraction of {name}"
    if share == 1:
        bound, way_on = "so that none is left", ""
    shown = [f"  {example}" for example in examples][:EXAMPLES_SHOWN]
    raise UserError("\n".join([f"{dataset}: {found}{several}, {bound}.", *shown, f"{remedy}{way_on}."]))


def listed(reasons: Mapping[str, int]) -> str:
    """Reasons with their numbers, the most frequent first."""
    ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} {count:,}" for reason, count in ranked if count)


def _sentence(rows: Loss, others: Mapping[str, int]) -> str:
    parts = [str(rows)] if rows.lost else []
    if any(others.values()):
        parts.append(f"{sum(others.values()):,} more pairs of rows that are used ({listed(others)})")
    return "; ".join(parts)


def _only(counts: Mapping[str, int], names: Iterable[str]) -> dict[str, int]:
    return {name: counts[name] for name in names if counts.get(name)}


def _unintended(counts: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in counts.items() if count and reason not in INTENDED}
