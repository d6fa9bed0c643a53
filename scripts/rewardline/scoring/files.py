"""Files of rows, scored as they stream by: every row keeps its columns and its place, and gets scores or an error."""

import gzip
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from rewardline.core.errors import UserError
from rewardline.core.files import atomic_file
from rewardline.core.progress import ProgressBar, progress
from rewardline.data.sources.parquet_files import open_parquet, values_of
from rewardline.data.sources.readers import damage_explained, reader
from rewardline.data.sources.rows import Row
from rewardline.scoring.rows import COLUMNS, Item, Json, UnscorableError, item_of, names_for

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from rewardline.scoring.scorer import Scorer

ROWS_AT_ONCE = 512
CHARACTERS_AT_ONCE = 8 << 20
SHOWN = 10  # bad rows that are named in the log
TYPES = {"scores": pa.list_(pa.float32())}


@dataclass
class Job:
    """A file to score. `label` is what messages call it, `prefix` what the names of new columns begin with."""

    label: str
    scorer: "Scorer"
    prefix: str
    bar: ProgressBar
    rows: int = 0
    errors: int = 0

    def added(self, values: list[Json | UnscorableError], numbers: list[int]) -> list[Json]:
        """What each row gets: its scores, or an error, which is logged too."""
        items = [self._item(value, number) for value, number in zip(values, numbers, strict=True)]
        good = [item for item in items if isinstance(item, Item)]
        scored = iter(self.scorer.score([item.prompt for item in good], [item.answers for item in good]))
        result = []
        for item, number in zip(items, numbers, strict=True):
            found = next(scored) if isinstance(item, Item) else item
            if isinstance(item, Item) and not isinstance(found, UnscorableError):
                result.append({self.prefix + name: value for name, value in item.named(found).items()})
            else:
                result.append({self.prefix + "error": self._bad(number, str(found))})
        self.rows += len(values)
        self.bar.update(len(values))
        return result

    def check(self, columns: list[str], names: tuple[str, ...], where: str) -> None:
        """Raise `UserError` if a new column would take the place of one that is there."""
        taken = [self.prefix + name for name in (*names, "error") if self.prefix + name in columns]
        if taken:
            raise UserError(f"{where} has `{taken[0]}` already; give --prefix new_ or the like for the new columns")

    def _item(self, value: Json | UnscorableError, number: int) -> Item | UnscorableError:
        if isinstance(value, UnscorableError):
            return value
        try:
            item = item_of(value)
        except UnscorableError as error:
            self.check(list(value), (), f"{self.label} row {number}")
            return error
        self.check(list(value), item.names, f"{self.label} row {number}")
        return item

    def _bad(self, number: int, reason: str) -> str:
        self.errors += 1
        if self.errors <= SHOWN:
            log.warning("%s row %d: %s", self.label, number, reason)
        return reason


def score_file(source: str, target: str, scorer: "Scorer", prefix: str = "") -> tuple[int, int]:
    """Score the rows of a file into another; - is stdin or stdout, as JSON Lines. Memory is bounded by some rows.

    Parquet goes to Parquet, with its schema and the new columns, or to JSON Lines; all else to JSON Lines. A new file
    appears whole or not at all. Returns how many rows there were, and how many of them have an error.

    Raises:
        UserError: the input is missing, damaged or of an unknown kind, the output of one that it cannot have, or a row
            has a column of a new one's name.
    """
    label = "stdin" if source == "-" else source
    path = Path("/dev/stdin") if source == "-" else Path(source)
    read = check_files(source, target)
    with ExitStack() as stack:
        total = open_parquet(path, label).metadata.num_rows if is_parquet(source) else None
        job = Job(label, scorer, prefix, stack.enter_context(progress("scoring", total=total)))
        stack.enter_context(damage_explained(label, lambda: job.rows))
        if is_parquet(target):
            _to_parquet(path, stack.enter_context(_place(target)), job)
        else:
            out = stack.enter_context(_lines(target))
            for line in _scored_lines(read(path, label), job):
                out.write(line + "\n")
    if not job.rows:
        log.warning("%s has no rows", label)
    return job.rows, job.errors


def check_files(source: str, target: str) -> Callable[[Path, str], Iterator[Row]]:
    """What reads the rows of `source`; a `UserError` if there is no such file, or its rows cannot become `target`."""
    path = Path(source)
    if source != "-" and not path.is_file():
        raise UserError(f"--input {source} is not a file" if path.exists() else f"--input {source} does not exist")
    if target != "-" and Path(target).is_dir():
        raise UserError(f"--output {target} is a folder; name a file in it")
    if is_parquet(target) and not is_parquet(source):
        raise UserError(f"--output {target}: only rows from Parquet go to Parquet; name it .jsonl")
    if Path(target.lower().removesuffix(".gz").removesuffix(".zst")).suffix in (".json", ".csv", ".tsv"):
        raise UserError(f"--output {target}: the rows are written as JSON Lines; name it .jsonl")
    return reader(Path("stdin.jsonl") if source == "-" else path, source)


def is_parquet(name: str) -> bool:
    """Whether a file is Parquet, by its name."""
    return name.lower().endswith(".parquet")


def _scored_lines(rows: Iterator[Row], job: Job) -> Iterator[str]:
    replaced = 0
    for chunk in _chunks(rows):
        replaced += sum(row.replaced for row in chunk)
        values = [row.value if row.value is not None else UnscorableError(row.error or "") for row in chunk]
        for row, new in zip(chunk, job.added(values, [row.number for row in chunk]), strict=True):
            text = json.dumps(new, ensure_ascii=False)
            if row.record is None:
                text = json.dumps({"row": row.number, **new}, ensure_ascii=False)
            elif row.record != "{}":
                text = f"{row.record[:-1]},{text[1:]}"  # not encoded again: long rows take their time
            yield text
    if replaced:
        log.warning(
            "%s: %d rows hold NaN, infinite numbers or broken text; the output says null, or why",
            job.label,
            replaced,
        )


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    characters = 0
    for row in rows:
        chunk.append(row)
        characters += len(row.record or "")
        if len(chunk) == ROWS_AT_ONCE or characters > CHARACTERS_AT_ONCE:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _to_parquet(source: Path, target: Path, job: Job) -> None:
    """Stream a Parquet file into another, its columns untouched."""
    with open_parquet(source, job.label) as file:
        schema = file.schema_arrow
        names = names_for(schema.names)
        if not names:
            raise UserError(
                f"{job.label} has no answers: its columns are {', '.join(schema.names)}; expected `prompt` with "
                "`answer`, `answers` or `chosen` and `rejected`, or `messages`"
            )
        job.check(schema.names, names, job.label)
        for name in (*names, "error"):
            kind = pa.string() if name == "error" else TYPES.get(name, pa.float32())
            schema = schema.append(pa.field(job.prefix + name, kind))
        fields = [schema.field(job.prefix + name) for name in (*names, "error")]
        read = [name for name in COLUMNS if name in schema.names]
        with pq.ParquetWriter(target, schema, compression="zstd") as writer:
            for batch in file.iter_batches(ROWS_AT_ONCE):
                values = [
                    UnscorableError(value.error or "") if isinstance(value, Row) else value
                    for value in values_of(batch.select(read))
                ]
                first = job.rows + 1
                new = job.added(values, list(range(first, first + batch.num_rows)))
                columns = [pa.array([row.get(field.name) for row in new], field.type) for field in fields]
                writer.write_batch(pa.RecordBatch.from_arrays([*batch.columns, *columns], schema=schema))


@contextmanager
def _place(target: str) -> Iterator[Path]:
    """Where to write what shall appear in `target` as a whole; a pipe or a device is written to itself."""
    path = Path(target)
    if path.exists() and not path.is_file():
        yield path
    else:
        with atomic_file(path.resolve()) as partial:  # a link stays one
            yield partial


@contextmanager
def _lines(target: str) -> Iterator[TextIO]:
    """A text file to write lines to, compressed as its ending says; - is stdout."""
    if target == "-":
        yield sys.stdout
        return
    with _place(target) as partial:
        if target.endswith(".gz"):
            with gzip.open(partial, "wt", encoding="utf-8") as stream:
                yield cast(TextIO, stream)
        elif target.endswith(".zst"):
            with zstandard.open(partial, "wt", encoding="utf-8") as stream:
                yield cast(TextIO, stream)
        else:
            with partial.open("w", encoding="utf-8") as stream:
                yield stream
