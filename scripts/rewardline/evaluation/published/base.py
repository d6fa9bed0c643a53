"""What every published benchmark has: the rows of its answers, and a class that says how they become figures.

A new benchmark is a file with a class of its own, and a line in `registry`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple, TypedDict

import numpy as np

from rewardline.core.settings import JsonObject
from rewardline.data.formats.settings import BenchmarkRows
from rewardline.data.schema import AnswerPosition
from rewardline.evaluation.results import Section


class PublishedPair(TypedDict):
    """The columns of `scores.parquet` that the figures are computed from."""

    subset: str
    prompt_id: str
    file: str
    row: int
    place: AnswerPosition
    confidence: float
    chosen_score: float
    rejected_score: float
    chosen_tokens: int
    rejected_tokens: int
    chosen_source: str | None
    rejected_source: str | None


class ScoredAnswer(NamedTuple):
    """An answer: its score, its length in tokens, the score that the data gives it (NaN for none), who wrote it."""

    score: float
    tokens: int
    gold: float = math.nan
    source: str = ""


@dataclass
class ScoredRow:
    """A row of a benchmark: its answers by their indices in the row, and which are better than which.

    `chosen` and `rejected` are the answers that some pair prefers, and does not prefer. A row with a list of good and
    one of bad answers has indices into each; others have one list, so that an answer can be in both. `size` is how
    many answers the row has in the data. `tied` is a pair that people found equally good.
    """

    subset: str
    prompt: str
    item: str = ""
    size: int = 2
    chosen: dict[int, ScoredAnswer] = field(default_factory=dict)
    rejected: dict[int, ScoredAnswer] = field(default_factory=dict)
    edges: list[tuple[int, int]] = field(default_factory=list)
    tied: bool = False

    def add(self, pair: PublishedPair) -> None:
        """Add the two answers of a pair."""
        place = pair["place"]
        for answers, index, score, tokens, gold, source in (
            (self.chosen, place["chosen"], pair["chosen_score"], pair["chosen_tokens"], place.get("chosen_gold"),
             pair["chosen_source"]),
            (self.rejected, place["rejected"], pair["rejected_score"], pair["rejected_tokens"],
             place.get("rejected_gold"), pair["rejected_source"]),
        ):  # fmt: skip
            answers[index] = ScoredAnswer(score, tokens, math.nan if gold is None else gold, source or "")
        self.edges.append((place["chosen"], place["rejected"]))
        self.tied = pair["confidence"] == 0.5

    @property
    def has_two_lists(self) -> bool:
        """Whether good and bad answers are lists of their own."""
        return any(better == worse for better, worse in self.edges)

    @property
    def answers(self) -> list[ScoredAnswer]:
        """All answers in their order; of two lists, first the good ones with gold 1, then the bad ones with 0."""
        if not self.has_two_lists:
            return [answer for _, answer in sorted({**self.chosen, **self.rejected}.items())]
        sides = ((self.chosen, 1.0), (self.rejected, 0.0))
        return [answer._replace(gold=gold) for side, gold in sides for _, answer in sorted(side.items())]

    @property
    def complete(self) -> bool:
        """Whether every answer of the row has a score."""
        return len(self.answers) == self.size

    @property
    def won(self) -> bool:
        """Whether every chosen answer has a greater score than every rejected one."""
        return self.least_chosen > self.best_rejected

    @property
    def least_chosen(self) -> float:
        """The least score of a chosen answer."""
        return min(answer.score for answer in self.chosen.values())

    @property
    def best_rejected(self) -> float:
        """The greatest score of a rejected answer."""
        return max(answer.score for answer in self.rejected.values())

    @property
    def half_credit(self) -> float:
        """As `won`, but half for equal scores."""
        return float(self.won) + 0.5 * (self.least_chosen == self.best_rejected)

    def rescored(self, score: Callable[[int, ScoredAnswer], float]) -> "ScoredRow":
        """The row with other scores, of the index and the answer."""
        chosen, rejected = (
            {index: answer._replace(score=score(index, answer)) for index, answer in side.items()}
            for side in (self.chosen, self.rejected)
        )
        return replace(self, chosen=chosen, rejected=rejected)


class Measured(NamedTuple):
    """The figures of a benchmark: the one it is known by, and those of its parts."""

    overall: float
    sections: dict[str, Section]


class Benchmark(ABC):
    """A published benchmark.

    `name` is that in the configuration; `title`, `measures`, `size`, `license` and `source` are for the table of
    benchmarks, `figures` says how they are computed. `reading` are the keys of an entry that read its rows, `shape` is
    what these look like. `sections` are its parts, empty if the data names them.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    measures: ClassVar[str]
    figures: ClassVar[str]
    size: ClassVar[str]
    license: ClassVar[str]
    source: ClassVar[str]
    reading: ClassVar[JsonObject]
    shape: ClassVar[BenchmarkRows]
    sections: ClassVar[tuple[str, ...]] = ()

    def section_of(self, subset: str) -> str | None:
        """The section that rows of a subset belong to, None if the benchmark has no such subset."""
        if not self.sections:
            return None if self.shape.mismatch(subset) else subset
        return next((name for name in self.sections if subset.startswith(name)), None)

    @abstractmethod
    def measure(self, rows: Sequence[ScoredRow]) -> Measured:
        """The figures of complete rows, one or more."""

    def by_section(self, rows: Sequence[ScoredRow]) -> dict[str, list[ScoredRow]]:
        """The rows of each section that has any: in the order of `sections`, else by name."""
        found: dict[str, list[ScoredRow]] = {name: [] for name in self.sections}
        for row in rows:
            if (section := self.section_of(row.subset)) is not None:
                found.setdefault(section, []).append(row)
        names = self.sections or sorted(found)
        return {name: found[name] for name in names if found[name]}


class SectionedBenchmark(Benchmark):
    """A benchmark with the same score for every section."""

    @abstractmethod
    def score(self, rows: Sequence[ScoredRow]) -> float:
        """The score of a section, of its complete rows, one or more."""

    def measure(self, rows: Sequence[ScoredRow]) -> Measured:
        """The score of each section, and their mean."""
        sections = {
            name: Section(score=self.score(members), n=len(members)) for name, members in self.by_section(rows).items()
        }
        return Measured(mean([section.score for section in sections.values()]), sections)


def mean(values: Sequence[float]) -> float:
    """The mean, NaN without values."""
    return float(np.mean(values)) if values else math.nan


def share(rows: Sequence[ScoredRow], value: Callable[[ScoredRow], float]) -> Section:
    """The mean of a value over rows."""
    return Section(score=mean([value(row) for row in rows]), n=len(rows))
