"""Manifests of the stages from rows to pairs, and `stats.json`, the statistics of the pairs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, Field

from rewardline.core.artifacts import Manifest
from rewardline.data.pairs.left_out import DatasetCounts, HeldOut, PairsAccount
from rewardline.data.parquet import PartEntry, count_rows
from rewardline.data.ratings import RatingRange
from rewardline.data.schema import Pair, RejectedRow

STATISTICS = "stats.json"
"""Name of the file of `MixtureStatistics`."""

_TEXTS_AT_ONCE = 1_000
_COUNTED = "prompt_id", "subset", "dataset", "chosen", "rejected", "confidence", "ratings"  # columns
REMARKS_SHOWN = 8
"""Remarks on a dataset in the final summary; its logs have all, which differ in numbers between many files."""


class CandidatesManifest(Manifest):
    """The manifest of the candidates of a dataset, or of a part of it; by `convert_rows.py`."""

    dataset: str
    format: str
    rows_in: int
    candidates: int
    characters: int
    """Text in all candidates."""
    rejects: dict[str, int]
    """Rows that give no pair, by reason."""
    pair_rejects: dict[str, int]
    """Further pairs that are left out of rows, by reason."""
    changed: dict[str, int]
    """Rows that lost a part, by what it is."""
    remarks: list[str]
    """What the user should know of how the first rows are read, a sentence each."""
    ratings: dict[str, dict[str, RatingRange]] = Field({}, exclude_if=lambda ratings: not ratings)
    """Of single answers: the values of each rating, by name and file."""
    reject_examples: list[RejectedRow]


class CandidatesFolder(BaseModel):
    """A folder of candidates, with the hash of each of its files."""

    folder: str
    xxh3: dict[str, str]


class SimilarPrompts(BaseModel):
    """Numbers of prompts in groups of near-duplicates; `templated` prompts are in groups too large to stay together."""

    prompts: int = 0
    groups: int = 0
    largest: int = 0
    templated: int = 0


class PromptsManifest(Manifest):
    """The manifest of a mixture's compared prompts; by `group_prompts.py`."""

    caps: dict[str, float]
    """By capped dataset: a training prompt is used if its hash is below."""
    groups: SimilarPrompts
    held_out: HeldOut
    data: list[CandidatesFolder]


@dataclass
class PairCounts:
    """Counts of pairs, which add up over shards."""

    pairs: int = 0
    soft_labels: int = 0
    chosen_words: int = 0
    rejected_words: int = 0
    longer_wins_twice: int = 0
    """2 for each pair whose chosen answer is longer, 1 for each whose answers have the same number of words."""
    prompts: Counter[str] = field(default_factory=Counter)
    """By split."""
    subsets: Counter[str] = field(default_factory=Counter)
    datasets: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    """Single answers with ratings, by split, which are no pairs."""
    answer_words: Counter[str] = field(default_factory=Counter)
    """Answers with fewer words than a power of two, and not fewer than the one before, by that power."""

    def add(self, pairs: Sequence[Pair], split: str) -> None:
        """Count pairs; those of one prompt must be added together."""
        columns = ([getattr(pair, name) for pair in pairs] for name in _COUNTED)
        self._add(split, *columns)

    def add_candidates(self, rows: pa.Table, split: str) -> None:
        """Count pairs that are in columns."""
        self._add(split, *(rows[name].to_pylist() for name in _COUNTED))

    def _add(
        self,
        split: str,
        prompts: Sequence[str | int],
        subsets: Sequence[str],
        datasets: Sequence[str],
        chosen: Sequence[str],
        rejected: Sequence[str],
        confidences: Sequence[float],
        ratings: Sequence[object],
    ) -> None:
        if not prompts:
            return
        self.prompts[split] += len(set(prompts))
        self.subsets.update(subsets)
        self.datasets.update(datasets)
        self.soft_labels += sum(confidence < 1 for confidence in confidences)
        single = [text for text, rating in zip(chosen, ratings, strict=True) if rating is not None]
        self._add_lengths(count_words(single))
        if single:
            self.answers[split] += len(single)
            chosen, rejected = (
                [text for text, rating in zip(side, ratings, strict=True) if rating is None]
                for side in (chosen, rejected)
            )
        self.pairs += len(chosen)
        words, of_rejected = count_words(chosen), count_words(rejected)
        self.chosen_words += int(words.sum())
        self.rejected_words += int(of_rejected.sum())
        self.longer_wins_twice += int(np.sign(words - of_rejected).sum()) + len(words)
        self._add_lengths(words)
        self._add_lengths(of_rejected)

    def _add_lengths(self, words: npt.NDArray[np.int64]) -> None:
        for bits, answers in Counter(map(int.bit_length, words.tolist())).items():
            self.answer_words[str(1 << bits)] += answers

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, count.name) + getattr(other, count.name) for count in fields(self)))


class ShardManifest(Manifest):
    """The manifest of a shard of a mixture's pairs; by `clean_pairs.py`."""

    train: int
    eval: int
    statistics: PairCounts
    reject_examples: list[RejectedRow]
    parts: dict[str, list[PartEntry]]
    """Parquet files by split."""


class MixtureStatistics(PairsAccount):
    """`stats.json`: the statistics of the pairs of a mixture or benchmark."""

    pairs_out: int
    prompts: dict[str, int]
    by_subset: dict[str, int]
    soft_labels: int
    chosen_words_mean: float
    rejected_words_mean: float
    answer_words: dict[str, int]
    longer_wins: float
    similar_prompts: SimilarPrompts
    reject_examples: list[RejectedRow]
    parts: dict[str, list[PartEntry]]

    @classmethod
    def of(
        cls,
        name: str,
        by_dataset: dict[str, DatasetCounts],
        counts: PairCounts,
        *,
        pair_rejects: dict[str, int],
        similar_prompts: SimilarPrompts,
        held_out: HeldOut,
        reject_examples: list[RejectedRow],
        parts: dict[str, list[PartEntry]],
    ) -> Self:
        """The statistics of pairs, from their counts; an `AssertionError` if a dataset's rows do not add up."""
        datasets = by_dataset.values()
        if any(dataset.rows_in != dataset.rows_used + sum(dataset.rejects.values()) for dataset in datasets):
            raise AssertionError(f"the rows of {name} do not add up: {by_dataset}")
        pairs = max(1, counts.pairs)
        train, evaluated = count_rows(parts["train"]), count_rows(parts["eval"])
        return cls(
            name=name,
            rows_in=sum(dataset.rows_in for dataset in datasets),
            rows_used=sum(dataset.rows_used for dataset in datasets),
            pairs_out=train + evaluated,
            train=train,
            eval=evaluated,
            rejects=added(*(dataset.rejects for dataset in datasets)),
            pair_rejects=pair_rejects,
            by_dataset=by_dataset,
            prompts={split: counts.prompts[split] for split in ("train", "eval")},
            by_subset=added(counts.subsets),
            soft_labels=counts.soft_labels,
            chosen_words_mean=round(counts.chosen_words / pairs, 2),
            rejected_words_mean=round(counts.rejected_words / pairs, 2),
            answers=dict(sorted(counts.answers.items())),
            answer_words={key: counts.answer_words[key] for key in sorted(counts.answer_words, key=int)},
            longer_wins=round(counts.longer_wins_twice / 2 / pairs, 4),
            similar_prompts=similar_prompts,
            held_out=held_out,
            reject_examples=reject_examples,
            parts=parts,
        )


def counts_of(parts: Sequence[CandidatesManifest]) -> DatasetCounts:
    """The counts of a dataset after its conversion in parts; all rows that are not rejected count as used."""
    rejects = added(*(part.rejects for part in parts))
    rows = sum(part.rows_in for part in parts)
    return DatasetCounts(
        rows_in=rows,
        revision=None,
        format=", ".join(sorted({part.format for part in parts})),
        pairs_out=0,
        rows_used=rows - sum(rejects.values()),
        rejects=rejects,
        candidates=sum(part.candidates for part in parts),
        pair_rejects=added(*(part.pair_rejects for part in parts)),
        changed=added(*(part.changed for part in parts)),
        remarks=list(dict.fromkeys(remark for part in parts for remark in part.remarks))[:REMARKS_SHOWN],
    )


def added(*counts: Mapping[str, int]) -> dict[str, int]:
    """The sums of counts, by sorted keys."""
    return dict(sorted(sum(map(Counter, counts), Counter[str]()).items()))


def count_words(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """The number of words between white space of each text, as `len(text.split())`: int64 [N]."""
    counts = [np.zeros(0, dtype=np.int64)]
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        some = texts[start : start + _TEXTS_AT_ONCE]
        plain = [text if text.isascii() else "" for text in some]
        data = np.frombuffer("\n".join([*plain, ""]).encode(), dtype=np.uint8)
        is_white = (data >= 28) & (data <= 32) | (data >= 9) & (data <= 13)
        ends_of_words = np.flatnonzero(is_white[1:] > is_white[:-1])
        ends = np.cumsum([len(text) + 1 for text in plain]) - 1
        counts.append(np.diff(np.searchsorted(ends_of_words, ends), prepend=0))
        for number, text in enumerate(some):
            if not text.isascii():
                counts[-1][number] = len(text.split())
    return np.concatenate(counts)
