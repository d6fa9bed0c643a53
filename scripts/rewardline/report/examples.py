"""Pairs with their text for the report: those that a run gets most wrong, and those whose label may be wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rewardline.data.schema import Pair
from rewardline.evaluation.results import printable
from rewardline.evaluation.scores import read_table
from rewardline.evaluation.suspects import Suspect
from rewardline.report.formatting import count, decimal, percent
from rewardline.report.inputs import SCORES, read_pairs_of, score_arrays

HARDEST = 10
SUSPECTS = 20
LONGEST_TEXT = 2_500
"""Characters of a text that are shown."""
OPENING = 110
_CONTROLS = {
    code: "\N{REPLACEMENT CHARACTER}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"
}


@dataclass(frozen=True)
class Excerpt:
    """The start of a text, and how many characters were left out."""

    shown: str
    more: int = 0


@dataclass(frozen=True)
class Answer:
    """An answer, with its label and a note."""

    label: str
    note: str
    text: Excerpt


@dataclass(frozen=True)
class Example:
    """A pair for people to read.

    Attributes:
        number: what the pairs are sorted by.
        opening: the start of the last user turn.
        origin: its subset, dataset, file and row.
        turns: role and text of each turn of the prompt.
        answers: the chosen and the rejected one.
    """

    number: str
    opening: str
    origin: str
    turns: list[tuple[str, Excerpt]]
    answers: tuple[Answer, Answer]


def hardest_pairs(scores: Sequence[Path], pairs: Path) -> list[Example]:
    """The pairs that a run gets most wrong, by the mean margin over its seeds, worst first.

    `scores`: the `scores.parquet` of each seed; `pairs`: the folder of the pairs' Parquet parts. A `UserError` names a
    file that is missing or damaged.
    """
    tables = [read_table(path, ("pair_id", *SCORES)) for path in scores]
    ids = tables[0]["pair_id"]
    same = [score_arrays(table) for table in tables if table["pair_id"].equals(ids)]
    chosen, rejected = np.mean(same, axis=0)
    margins = chosen - rejected
    wrong = np.flatnonzero(np.isfinite(margins) & (margins < 0))
    rows = {ids[row].as_py(): row for row in wrong[np.argsort(margins[wrong], kind="stable")][:HARDEST].tolist()}
    texts = read_pairs_of(pairs, list(rows))
    return [
        _example(
            decimal(margins[row]),
            texts[pair_id],
            (f"score {decimal(chosen[row])}", f"score {decimal(rejected[row])}"),
        )
        for pair_id, row in rows.items()
        if pair_id in texts
    ]


def mislabelled(suspects: Sequence[Suspect]) -> list[Example]:
    """The first of the pairs most likely mislabelled: those that most runs contradict, by the largest margins."""
    ordered = sorted(suspects, key=lambda one: (-one.against / one.runs, one.margin_mean, one.pair_id))
    return [
        _example(f"{one.against} of {one.runs}", one, ("by its label", _contradiction(one)))
        for one in ordered[:SUSPECTS]
    ]


def _contradiction(suspect: Suspect) -> str:
    share, margin = percent(suspect.against / suspect.runs), decimal(-suspect.margin_mean)
    return f"preferred by {share} of the runs, by {margin} times their usual margin"


def _origin(pair: Pair | Suspect) -> str:
    names = [name for name in (pair.subset, pair.dataset) if name and name != pair.file]
    return printable(", ".join(dict.fromkeys([*names, pair.file, f"row {count(pair.row)}"])))


def _example(number: str, pair: Pair | Suspect, notes: tuple[str, str]) -> Example:
    turns = [(printable(turn["role"]), turn["content"]) for turn in pair.prompt]
    last = next((text for role, text in reversed(turns) if role == "user"), turns[-1][1] if turns else "")
    opening = " ".join(last.split())
    return Example(
        number,
        clip(opening, OPENING).shown + ("\N{HORIZONTAL ELLIPSIS}" if len(opening) > OPENING else ""),
        _origin(pair),
        [(role, clip(text)) for role, text in turns],
        (Answer("chosen", notes[0], clip(pair.chosen)), Answer("rejected", notes[1], clip(pair.rejected))),
    )


def clip(text: str, most: int = LONGEST_TEXT) -> Excerpt:
    """The start of `text` without control characters except line breaks and tabs."""
    return Excerpt(text[:most].translate(_CONTROLS), max(0, len(text) - most))
