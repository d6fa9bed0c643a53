"""Scored answers on disk until those of a prompt are together, and which prompts give no pair of them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import pyarrow as pa

from rewardline.core.hashing import canonical
from rewardline.data.pairs import left_out
from rewardline.data.pairs.external_sort import Buckets, bucket_count
from rewardline.data.pairs.identity import hash_id, prompt_identity
from rewardline.data.pairs.rejects import RejectWriter
from rewardline.data.pairs.reserved_prompts import PromptFolder, ReservedPrompts
from rewardline.data.parquet import characters_of
from rewardline.data.schema import arrow_schema
from rewardline.data.stored_rows import StoredRow
from rewardline.data.turns import pack, packed_inputs
from rewardline.scoring.results import RowScores
from rewardline.scoring.rows import PromptAnswers


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer to the prompt whose hash is `key`; `number` is its place in all answers, `position` that in its row.

    `native`: what the texts do not say, see `pack`; empty if they say it all.
    """

    key: Annotated[int, pa.uint64()]
    number: int
    prompt: str
    answer: str
    file: str
    row: int
    position: Annotated[int, pa.int32()]
    native: str

    @property
    def asked(self) -> tuple[int, str, str]:
        """Equal for the answers to one prompt: it is another with other tools."""
        return self.key, self.prompt, packed_inputs(self.native or None)


A = TypeVar("A", bound=StoredAnswer)


class AnswerStore(Generic[A]):
    """The scored answers of a job's rows, and what became of the rows.

    Attributes:
        answers: number of answers.
        rejected, changed: rows without a score, and those that lost a part, by reason.
        rejects: what is left out.
        prompts: those of the answers, if pairs are to be made of them.
    """

    def __init__(self, name: str, kind: type[A], rows: int, out: Path, *, has_pairs: bool = True) -> None:
        """`kind`: of the answers, whose last field is the score; `rows`: number of rows of the job."""
        self.answers, self.rejected, self.changed = 0, Counter[str](), Counter[str]()
        self.rejects = RejectWriter(out)
        self.prompts = PromptFolder(out / ".prompts", name, rows) if has_pairs else None
        self._name, self._kind, self._rows = name, kind, rows
        self._buckets = Buckets(out / ".sort", arrow_schema(kind), bucket_count(rows, 2_000 * rows))

    def reject(self, row: StoredRow, scored: RowScores) -> str:
        """Leave out a row that has no scores; the reason as a sentence."""
        reason, detail = scored.reason or "", scored.detail or ""
        self.rejected[reason] += 1
        self.rejects.add(self._name, row.file, row.row, reason, detail)
        return detail

    def add(self, row: StoredRow, parsed: PromptAnswers, scores: Iterable[float | list[float]]) -> None:
        """Keep the answers of a row with their scores."""
        if parsed.ignored:
            self.changed[parsed.ignored] += 1
        prompt = canonical([dict(turn) for turn in parsed.prompt])
        key = hash_id(prompt)
        if self.prompts is not None:
            self.prompts.add(prompt_identity(parsed.prompt), prompt)
        for position, (answer, score) in enumerate(zip(parsed.answers, scores, strict=True)):
            native = pack(parsed.prompt, (answer, answer), parsed.inputs) or ""
            found = key, self.answers, prompt, answer, row.file, row.row, position, native, score
            self._buckets.add(key, found, characters_of(found))
            self.answers += 1

    def by_prompt(self) -> Iterator[list[A]]:
        """The distinct answers to each prompt, as the function of this name."""
        return by_prompt(self._buckets.drain(), self._kind)

    def close(self, section: str, max_reject_fraction: float) -> None:
        """Write what is left out.

        Raises:
            UserError: too many rows have no score; `section` of the configuration has the job.
        """
        examples = [f"{one.file}:{one.row}: {one.reason}: {one.detail}" for one in self.rejects.close()]
        lost = left_out.Loss(self.rejected, self._rows, "rows have no score")
        left_out.check(f"{section}.{self._name}", self._name, [lost], max_reject_fraction, examples, "Fix the rows")


def by_prompt(tables: Iterable[pa.Table], kind: type[A]) -> Iterator[list[A]]:
    """The distinct answers to each prompt, in the order of the rows; prompts in the order of their hashes.

    `tables`: of the columns of `kind`, by ascending ranges of keys, as of `Buckets`.
    """
    for rows in tables:
        columns = (column.to_pylist() for column in rows.columns)
        found = sorted(map(kind, *columns), key=attrgetter("asked", "number"))
        for _, answers in groupby(found, key=attrgetter("asked")):
            distinct: dict[tuple[str, str], A] = {}
            for answer in answers:
                distinct.setdefault((answer.answer, answer.native), answer)
            yield list(distinct.values())


def without_pair(reserved: ReservedPrompts, prompt_id: int, answers: Sequence[StoredAnswer]) -> tuple[str, str] | None:
    """The reason, as a code and as a sentence, why the answers to a prompt give no pair; or None."""
    if found := reserved.find(prompt_id, answers[0].prompt):
        return found
    if any(one.native for one in answers):
        return "several_turns", "its prompt or an answer has tools or turns that the texts do not say"
    return None if len(answers) > 1 else ("one_answer", "there is only one answer to its prompt")
