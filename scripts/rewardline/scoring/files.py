"""Files of rows, scored as a stream: every row keeps its columns and its order, and gets scores or an error."""

import io
import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from rewardline.core.errors import UserError, listing
from rewardline.core.files import atomic_file
from rewardline.core.progress import progress
from rewardline.core.settings import JsonObject
from rewardline.data.sources.parquet_files import open_parquet, values_of
from rewardline.data.sources.readers import damage_explained, reader
from rewardline.data.sources.rows import Row
from rewardline.scoring.rows import (
    COLUMNS,
    MEDIA,
    ROWS_AT_ONCE,
    PromptAnswers,
    UnscorableError,
    chunks,
    columns,
    parse_row,
    score_names,
    with_beside,
)

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from rewardline.scoring.ensemble import AnyScorer

RowValue = Mapping[str, object] | UnscorableError
LOGGED = 10  # rows with an error that are named in the log


@dataclass
class FileScoring:
    """The scoring of a file. `label`: its name in messages; `prefix`: the prefix of the names of new columns."""

    label: str
    scorer: "AnyScorer"
    prefix: str
    bar: "tqdm[NoReturn]"
    rows: int = 0
    errors: int = 0
    ignored: Counter[str] = field(default_factory=Counter)

    def new_columns(self, values: Sequence[RowValue], numbers: Sequence[int]) -> list[JsonObject]:
        """The new columns of each row: its scores, or an error, which is logged too."""
        parsed = [self._parsed(value, number) for value, number in zip(values, numbers, strict=True)]
        good = [row for row in parsed if isinstance(row, PromptAnswers)]
        self.ignored.update(row.ignored for row in good if row.ignored)
        scored = iter(self.scorer.score(*columns(good)))
        results: list[JsonObject] = []
        for row, number in zip(parsed, numbers, strict=True):
            scores = next(scored) if isinstance(row, PromptAnswers) else row
            if isinstance(row, PromptAnswers) and not isinstance(scores, UnscorableError):
                results.append({self.prefix + name: value for name, value in row.named(scores).items()})
            else:
                results.append({self.prefix + "error": self._error(number, str(scores))})
        self.rows += len(values)
        self.bar.update(len(values))
        return results

    def check(self, columns: list[str], names: tuple[str, ...], where: str) -> None:
        """Raise `UserError` if a new column would replace an old one."""
        taken = [self.prefix + name for name in (*names, "error") if self.prefix + name in columns]
        if taken:
            raise UserError(f"{where} has `{taken[0]}` already; give --prefix new_ or the like for the new columns")

    def _parsed(self, value: RowValue, number: int) -> PromptAnswers | UnscorableError:
        if isinstance(value, UnscorableError):
            return value
        try:
            parsed = parse_row(value, self.scorer.reads_names)
        except UnscorableError as error:
            self.check(list(value), (), f"{self.label} row {number}")
            return error
        self.check(list(value), with_beside(parsed.names, self.scorer.beside), f"{self.label} row {number}")
        return parsed

    def _error(self, number: int, reason: str) -> str:
        self.errors += 1
        if self.errors <= LOGGED:
            log.warning("%s row %d: %s", self.label, number, reason)
        return reason


def score_file(source: str, target: str, scorer: "AnyScorer", prefix: str = "") -> int:
    """Score the rows of a file into another, in bounded memory; - is stdin or stdout, as JSON Lines.

    Parquet goes to Parquet, with its schema and the new columns, or to JSON Lines; all else to JSON Lines. A new file
    appears complete or not at all. Returns the number of rows with an error.

    Raises:
        UserError: the input is missing, damaged or of an unknown format, the output is of another format than it can
            have, or a row has a column with the name of a new column.
    """
    label = "stdin" if source == "-" else source
    path = Path("/dev/stdin") if source == "-" else Path(source)
    read = check_files(source, target)
    with ExitStack() as stack:
        total = open_parquet(path, label).metadata.num_rows if is_parquet(source) else None
        job = FileScoring(label, scorer, prefix, stack.enter_context(progress("scoring", total=total)))
        stack.enter_context(damage_explained(label, lambda: job.rows))
        if is_parquet(target):
            _to_parquet(path, stack.enter_context(_replacing(target)), job)
        else:
            out = stack.enter_context(_lines(target))
            for line in _scored_lines(read(path, label), job):
                out.write(line + "\n")
    if not job.rows:
        log.warning("%s has no rows", label)
    for what, count in job.ignored.items():
        log.warning("%s: %s in %d rows", label, what, count)
    if job.errors:
        log.warning("%d of %d rows could not be scored; each says why in `%serror`", job.errors, job.rows, prefix)
    return job.errors


def check_files(source: str, target: str) -> Callable[[Path, str], Iterator[Row]]:
    """The reader of the rows of `source`.

    Raises:
        UserError: there is no such file, or its rows cannot be written as `target`.
    """
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


def _scored_lines(rows: Iterator[Row], job: FileScoring) -> Iterator[str]:
    replaced = 0
    for chunk in chunks(rows):
        replaced += sum(row.replaced for row in chunk)
        values = [row.value if row.value is not None else UnscorableError(row.error or "") for row in chunk]
        for row, new in zip(chunk, job.new_columns(values, [row.number for row in chunk]), strict=True):
            text = json.dumps(new, ensure_ascii=False)
            if row.record is None:
                text = json.dumps({"row": row.number, **new}, ensure_ascii=False)
            elif row.record != "{}":
                text = f"{row.record[:-1]},{text[1:]}"  # not encoded again: long rows take their time
            yield text
    if replaced:
        problem = "rows hold NaN, infinite numbers or broken text, which is null or the reason in the output"
        log.warning("%s: %d %s", job.label, replaced, problem)


def _to_parquet(source: Path, target: Path, job: FileScoring) -> None:
    """Stream a Parquet file into another, its columns untouched."""
    with open_parquet(source, job.label) as file:
        schema = file.schema_arrow
        lists = [field.name for field in schema if pa.types.is_nested(field.type)]
        names = with_beside(score_names(schema.names, lists), job.scorer.beside)
        if not names:
            raise UserError(
                f"{job.label} has no answers: its columns are {listing(schema.names)}; expected `prompt` with "
                "`answer`, `answers` or `chosen` and `rejected`, or `messages`"
            )
        job.check(schema.names, names, job.label)
        for name in (*names, "error"):
            kind = pa.string() if name == "error" else _type(name)
            schema = schema.append(pa.field(job.prefix + name, kind))
        fields = [schema.field(job.prefix + name) for name in (*names, "error")]
        read = [name for name in COLUMNS if name in schema.names]
        for name in set(MEDIA) & set(schema.names):
            log.warning("%s: %s ignored, as only text is read", job.label, name)
        with pq.ParquetWriter(target, schema, compression="zstd") as writer:
            for batch in file.iter_batches(ROWS_AT_ONCE):
                values = [
                    UnscorableError(value.error or "") if isinstance(value, Row) else value
                    for value in values_of(batch.select(read))
                ]
                first = job.rows + 1
                new = job.new_columns(values, list(range(first, first + batch.num_rows)))
                columns = [pa.array([row.get(field.name) for row in new], field.type) for field in fields]
                writer.write_batch(pa.RecordBatch.from_arrays([*batch.columns, *columns], schema=schema))


def _type(name: str) -> pa.DataType:
    return pa.list_(pa.float32()) if name.split("_", maxsplit=1)[0] == "scores" else pa.float32()


@contextmanager
def _replacing(target: str) -> Iterator[Path]:
    """Where to write the content of `target`, which it replaces when complete; a pipe or a device itself."""
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
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # as JSON Lines are, whatever the terminal
        yield sys.stdout
        return
    compression = {".gz": "gzip", ".zst": "zstd"}.get(Path(target).suffix)
    with (
        _replacing(target) as partial,
        partial.open("wb") as file,
        pa.output_stream(file, compression=compression) as stream,
        io.TextIOWrapper(stream, encoding="utf-8") as lines,
    ):
        yield lines
