"""Scored answers on disk until those of a prompt are together, and which prompts give no pair of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Annotated, TypeVar

import pyarrow as pa

from rewardline.data.pairs.reserved_prompts import ReservedPrompts
from rewardline.data.turns import packed_inputs


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
