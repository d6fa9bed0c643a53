"""Pairs with their text for the report: those that a run gets most wrong, and those whose label may be wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from rewardline.core.errors import UserError
from rewardline.evaluation.leaderboards import Entry
from rewardline.evaluation.results import printable
from rewardline.report.findings import count, number
from rewardline.report.summary import percent, score

HARDEST = 10
SUSPECTS = 20
LONGEST_TEXT = 2_500
"""Characters of a text that are shown."""
OPENING = 110


@dataclass(frozen=True)
class Text:
    """The start of a text, and how many characters were left out."""

    shown: str
    more: int = 0


@dataclass(frozen=True)
class Answer:
    """An answer under its heading, with what is known of it."""

    label: str
    note: str
    text: Text


@dataclass(frozen=True)
class Example:
    """A pair for people to read: a number, the opening of its prompt, facts; then all turns and both answers."""

    number: str
    opening: str
    facts: str
    turns: list[tuple[str, Text]]
    answers: tuple[Answer, Answer]


def hardest(entry: Entry, scores: Mapping[str, Path], pairs: Path) -> list[Example]:
    """The pairs that an entry gets most wrong, by the mean margin over its seeds, worst first.

    `scores` are the paths of `scores.parquet` by run; `pairs` is the folder of the pairs' Parquet parts. A `UserError`
    names a file that is missing or damaged.
    """
    ids, chosen, rejected = _mean_scores([scores[one.run] for one in entry.members])
    margins = chosen - rejected
    wrong = np.flatnonzero(np.isfinite(margins) & (margins < 0))
    worst = wrong[np.argsort(margins[wrong], kind="stable")][:HARDEST]
    places = {ids[int(place)].as_py(): int(place) for place in worst}
    texts = _texts(pairs, list(places))
    return [
        _example(
            score(float(margins[place])),
            _facts(texts[pair_id]),
            texts[pair_id],
            (f"score {score(float(chosen[place]))}", f"score {score(float(rejected[place]))}"),
        )
        for pair_id, place in places.items()
        if pair_id in texts
    ]


def suspects(path: Path) -> tuple[list[Example], int]:
    """The pairs most likely mislabelled, those that most runs are surest about first, and how many there are in all."""
    rows = _read(lambda: pq.read_table(path), path, "compare").to_pylist()
    rows = [row for row in rows if (number(row.get("runs")) or 0) > 1]  # what one run is against are its hardest pairs
    rows.sort(key=lambda row: (-_share(row), number(row.get("margin_mean")) or 0.0, str(row.get("pair_id"))))
    return [
        _example(
            f"{row.get('against', '?')} of {row.get('runs', '?')}",
            _facts(row),
            row,
            ("by its label", f"preferred by {percent(_share(row))} of the runs{_by(row)}"),
        )
        for row in rows[:SUSPECTS]
    ], len(rows)


def _share(row: Mapping[str, Any]) -> float:
    against, runs = number(row.get("against")), number(row.get("runs"))
    return against / runs if against is not None and runs else 0.0


def _by(row: Mapping[str, Any]) -> str:
    margin = number(row.get("margin_mean"))
    return "" if margin is None else f", by {score(-margin)} times their usual margin"


def _facts(row: Mapping[str, Any]) -> str:
    """Where a pair comes from: its subset, data set, file and row."""
    told = [str(row[key]) for key in ("subset", "dataset") if row.get(key) and row[key] != row.get("file")]
    if row.get("file"):
        told.append(f"{row['file']}, row {count(row.get('row'))}")
    elif row.get("row") is not None:
        told.append(f"row {count(row['row'])}")
    return printable(", ".join(dict.fromkeys(told)))


def _example(shown: str, facts: str, row: Mapping[str, Any], notes: tuple[str, str]) -> Example:
    turns = _turns(row.get("prompt"))
    last = next((text for role, text in reversed(turns) if role == "user"), turns[-1][1] if turns else "")
    opening = " ".join(last.split())
    chosen, rejected = (
        Answer(key, note, clip(str(row.get(key) or "")))
        for key, note in zip(("chosen", "rejected"), notes, strict=True)
    )
    return Example(
        shown,
        clip(opening, OPENING).shown + ("\N{HORIZONTAL ELLIPSIS}" if len(opening) > OPENING else ""),
        facts,
        [(printable(role), clip(text)) for role, text in turns],
        (chosen, rejected),
    )


def _turns(prompt: Any) -> list[tuple[str, str]]:
    if isinstance(prompt, str):
        return [("user", prompt)]
    return [(str(turn["role"]), str(turn["content"] or "")) for turn in prompt or []]


def clip(text: str, most: int = LONGEST_TEXT) -> Text:
    """The start of `text` without control characters, but for line breaks and tabs."""
    shown = text[:most].translate(_CONTROLS)
    return Text(shown, max(0, len(text) - most))


_CONTROLS = {
    code: "\N{REPLACEMENT CHARACTER}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"
}


def _mean_scores(paths: Sequence[Path]) -> tuple[pa.ChunkedArray, Any, Any]:
    """The ids of the pairs and the mean chosen and rejected scores [n] over the files that judged the same pairs."""
    columns = ["pair_id", "chosen_score", "rejected_score"]
    ids, found = None, []
    for path in paths:
        table = _read(lambda path=path: pq.read_table(path, columns=columns), path, "evaluate")
        if ids is None:
            ids = table["pair_id"]
        elif not table["pair_id"].equals(ids):
            continue
        found.append([table[name].to_numpy().astype(np.float64) for name in columns[1:]])
    chosen, rejected = np.mean(found, axis=0)
    return ids, chosen, rejected


def _texts(folder: Path, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The pairs with these ids; parts are read a batch at a time."""
    wanted = ["pair_id", "dataset", "subset", "prompt", "chosen", "rejected", "file", "row"]

    def read() -> pa.Table:
        data = ds.dataset(sorted(map(str, folder.glob("part-*.parquet"))), format="parquet")
        known = [name for name in wanted if name in data.schema.names]
        return data.to_table(columns=known, filter=ds.field("pair_id").isin(list(ids)), batch_size=1024)

    return {row["pair_id"]: row for row in _read(read, folder, "build_pairs").to_pylist()} if ids else {}


def _read(read: Any, path: Path, stage: str) -> pa.Table:
    try:
        return read()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; run the {stage} stage first") from error
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run the {stage} stage again") from error
