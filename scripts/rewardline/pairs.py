"""Preference pairs: identity, the split by prompt, and the cleaning of the pairs of a mixture."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rewardline.cli import UserError

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
PAIR_SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("prompt_id", pa.string()),
        ("dataset", pa.string()),
        ("subset", pa.string()),
        ("prompt", MESSAGES),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("margin", pa.float64()),
        ("weight", pa.float64()),
    ]
)
REJECT_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("file", pa.string()),
        ("row", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
_WORDS = re.compile(r"\w+")


@dataclass(frozen=True)
class Source:
    """Where a pair comes from: the row (1-based) of a file of a data set."""

    dataset: str
    file: str
    row: int


@dataclass(frozen=True)
class Candidate:
    """A pair before cleaning. `prompt` is the canonical JSON of the message list."""

    source: Source
    prompt_id: str
    prompt: str
    chosen: str
    rejected: str
    margin: float | None
    weight: float
    subset: str

    @property
    def pair_id(self) -> str:
        """A stable hash of the pair's content."""
        return stable_hash(self.prompt, self.chosen, self.rejected)

    @property
    def reverse_id(self) -> str:
        """The `pair_id` of the pair that prefers the other answer."""
        return stable_hash(self.prompt, self.rejected, self.chosen)


@dataclass
class Cleaned:
    """The pairs of some prompts after cleaning, and what was left out of them with its reason."""

    train: list[Candidate] = field(default_factory=list)
    eval: list[Candidate] = field(default_factory=list)
    rejects: list[tuple[Candidate, str, str]] = field(default_factory=list)


def stable_hash(*parts: str) -> str:
    """16 hex digits that depend on the parts alone, the same on every machine."""
    return hashlib.sha256("\0".join(parts).encode("utf-8")).hexdigest()[:16]


def position(*parts: str) -> float:
    """A stable pseudo-random number in [0, 1) for these parts."""
    return int(stable_hash(*parts), 16) / 2**64


def normalize(text: str) -> str:
    """`text` without what does not change a prompt: case, punctuation, spacing and compatibility forms."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_WORDS.findall(folded)) or folded.strip()


def prompt_identity(prompt: Iterable[dict[str, str]]) -> str:
    """The hash under which a prompt is split and compared: equal for prompts with the same normalised text."""
    return stable_hash(*(part for turn in prompt for part in (turn["role"], normalize(turn["content"]))))


def clean(
    candidates: list[Candidate],
    *,
    seed: int,
    eval_below: float,
    weights: dict[str, float],
    benchmark_prompts: set[str],
) -> Cleaned:
    """Deduplicate, split and sample pairs; all pairs of a prompt must be among `candidates`.

    Policy: of equal pairs the first stays; pairs that contradict each other (A over B and B over A) all go, since
    nothing says which label is right; a training pair whose prompt stands in a benchmark goes; a data set of weight
    below 1 gives that share of its training prompts. A prompt whose `position` lies below `eval_below` is held out.
    """
    result = Cleaned()
    order = sorted(candidates, key=lambda c: (c.prompt_id, c.prompt, c.source.dataset, c.source.file, c.source.row))
    for _, group in groupby(order, key=attrgetter("prompt_id")):
        kept = _without_conflicts(list(group), result)
        if not kept:
            continue
        prompt_id = kept[0].prompt_id
        if position(str(seed), prompt_id) < eval_below:
            result.eval += kept
            continue
        for pair in kept:
            weight = weights[pair.source.dataset]
            if prompt_id in benchmark_prompts:
                result.rejects.append((pair, "in_benchmark", "its prompt stands in a benchmark"))
            elif weight < 1 and position(str(seed), pair.source.dataset, prompt_id) >= weight:
                result.rejects.append((pair, "not_sampled", f"the mixture takes a share of {weight:g}"))
            else:
                result.train.append(pair)
    return result


def _without_conflicts(pairs: list[Candidate], result: Cleaned) -> list[Candidate]:
    first: dict[str, Candidate] = {}
    for pair in pairs:
        kept = first.setdefault(pair.pair_id, pair)
        if kept is not pair:
            where = f"{kept.source.dataset} {kept.source.file}:{kept.source.row}"
            result.rejects.append((pair, "duplicate", f"equal to {where}"))
    consistent = []
    for pair in first.values():
        other = first.get(pair.reverse_id)
        if other is None:
            consistent.append(pair)
        else:
            where = f"{other.source.dataset} {other.source.file}:{other.source.row}"
            result.rejects.append((pair, "contradiction", f"{where} prefers the other answer"))
    return consistent


class PartWriter:
    """Writes rows to numbered Parquet parts of at most `rows_per_part` rows; there is at least one part."""

    def __init__(self, folder: Path, schema: pa.Schema, rows_per_part: int = 50_000, batch: int = 2_000) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._schema, self._limit, self._batch = folder, schema, rows_per_part, batch
        self._rows: list[dict[str, object]] = []
        self._writer: pq.ParquetWriter | None = None
        self._in_part = 0
        self.parts: list[Path] = []
        self.total = 0

    def add(self, row: dict[str, object]) -> None:
        """Append a row."""
        self._rows.append(row)
        if len(self._rows) >= self._batch:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            self.parts.append(self._folder / f"part-{len(self.parts):05d}.parquet")
            self._writer = pq.ParquetWriter(self.parts[-1], self._schema, compression="zstd")
            self._in_part = 0
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._in_part += len(self._rows)
        self.total += len(self._rows)
        self._rows = []
        if self._in_part >= self._limit:
            self._writer.close()
            self._writer = None

    def close(self) -> None:
        """Write what is left and finish the last part."""
        if self._rows or not self.parts:
            self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def read_pairs(folder: Path, columns: list[str] | None = None) -> Iterator[dict[str, object]]:
    """The rows of a folder of Parquet parts, in order, a batch in memory at a time."""
    for part in sorted(folder.glob("part-*.parquet")):
        yield from read_part(part, columns)


def read_part(part: Path, columns: list[str] | None = None) -> Iterator[dict[str, object]]:
    """The rows of a Parquet file, a batch in memory at a time.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(batch_size=2_000, columns=columns):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{part} cannot be read ({reason}); delete its folder and run again") from error


def pair_row(pair: Candidate, weight: float) -> dict[str, object]:
    """`pair` as a row of `PAIR_SCHEMA`; `weight` is what its data set weighs in the mixture."""
    return {
        "pair_id": pair.pair_id,
        "prompt_id": pair.prompt_id,
        "dataset": pair.source.dataset,
        "subset": pair.subset,
        "prompt": json.loads(pair.prompt),
        "chosen": pair.chosen,
        "rejected": pair.rejected,
        "margin": pair.margin,
        "weight": pair.weight * max(1.0, weight),
    }
