"""Rows of CSV and TSV files: delimiter, quoting and cells that hold lists or objects are detected."""

import ast
import csv
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path

from rewardline.core.errors import UserError
from rewardline.data.sources.compression import open_bytes
from rewardline.data.sources.rows import INVALID_TEXT, Record, Row, as_row, decode, unreadable

log = logging.getLogger(__name__)

_SAMPLED = 50  # rows that decide how the cells of a column are read
_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_FIELD_LIMIT = 32 << 20  # characters of a field; also how far a quote that is never closed can reach
_LONGEST_LITERAL = 1 << 20  # characters of a cell that Python's parser reads
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_SEPARATOR = re.compile(r'"?sep=([^\w\s"]|\t)"?\1*', re.IGNORECASE)  # Excel's first line, also as it saves it again
_MISSING = frozenset({"nan", "NaN", "NA", "N/A", "n/a", "<NA>", "#N/A", "None", "NULL", "null"})  # as pandas reads them
_QUOTE_AFTER_SPACE = re.compile(r' +"')
_PARSE_ERRORS = (ValueError, SyntaxError, RecursionError, MemoryError)
Parser = Callable[[str], object]


def read_table(path: Path, label: str, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """A row for each record; `columns` names the columns of a table whose first line does not.

    Memory is bounded by a record.

    Raises:
        UserError: the names of the columns cannot be read, or one occurs twice.
    """
    delimiter = "\t" if ".tsv" in path.name.lower() else _delimiter(path, len(columns) if columns else None)
    quoting = _quoting(path) if delimiter == "\t" else csv.QUOTE_MINIMAL
    spaced = delimiter != "\t" and _has_spaces_after(path, delimiter)
    records = _records(path, delimiter, quoting, spaced)
    header: Sequence[str] | str = columns or next(records, (0, []))[1]
    if spaced and not isinstance(header, str):
        header = [name.strip() for name in header]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if not isinstance(header, str) and as_row(0, dict.fromkeys(header)).error:
        raise UserError(f"{label}: the names of its columns are not UTF-8. Convert it, as with iconv")
    if isinstance(header, str) or repeated:
        reason = header if isinstance(header, str) else f"{repeated} occur twice"
        where = "`columns` must name them" if columns else "its first line must hold the names of the columns"
        raise UserError(f"{label}: {where}, but {reason}. Fix that line, or set `columns` if the file has no such line")
    if not columns and (cell := _data_in(header)):
        raise UserError(
            f"{label}: its first line does not look like the names of columns: it has {cell[:60]!r}. Set `columns: "
            f"[...]` with the {len(header)} names if the file has no such line, else rename that column"
        )
    quotes = ", quotes as plain characters" if quoting == csv.QUOTE_NONE else ""
    names = f"{'`columns` names' if columns else 'its first line names'} the columns: {', '.join(header)[:200]}"
    log.info("%s: separated by %s%s; %s", label, _DELIMITERS.get(delimiter, delimiter), quotes, names)
    first = list(islice(records, _SAMPLED))
    parsers = _parsers(header, [fields for _, fields in first if isinstance(fields, list)], label)
    own, order = _as_names(header), list(range(len(header)))
    for number, (line, fields) in enumerate(chain(first, records), 1):
        if isinstance(fields, str):
            yield unreadable(number, fields)
        elif len(fields) != len(header):
            yield unreadable(number, f"line {line}: {len(fields)} fields instead of {len(header)}")
        elif fields[0].strip("\ufeff ").lower() in own and (found := _order(fields, own)):
            order = found
            other = "" if order == sorted(order) else ", in another order, which the lines after it have"
            yield unreadable(number, f"line {line}: repeats the names of the columns{other}")
        else:
            fields = [fields[index] for index in order]
            row: Record = dict(zip(header, fields, strict=True))
            for name, (index, parse) in parsers.items():
                row[name] = _parsed(fields[index], parse)
            yield as_row(number, row)


def _data_in(header: Sequence[str]) -> str:
    """A cell of a first line that is data, as in a table without a header; empty if that line may be names.

    One question may be the name of a column; where most cells are sentences or numbers, they are data.
    """
    sentences = [name for name in header if len(name.split()) > 2 and name.rstrip().endswith((".", "!", "?"))]
    sentences += [name for name in header if len(name.split()) > 12]
    numbers = [name for name in header if _NUMBER.fullmatch(name.strip())]
    return sentences[0] if sentences and 2 * len({*sentences, *numbers}) > len(header) else ""


def _as_names(cells: Iterable[str]) -> list[str]:
    """Cells as names of columns, in which spaces around them and case do not count."""
    return [cell.strip("\ufeff ").lower() for cell in cells]


def _order(fields: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """Where each column's name is in a line that repeats the names of several columns; None for another line.

    Names of one letter, which may be answers to a multiple choice, count only in their own order.
    """
    found = _as_names(fields)
    is_other = found != names and (min(map(len, names)) < 2 or sorted(found) != sorted(names))
    if len(names) < 2 or is_other or len(set(names)) < len(names):
        return None
    return [found.index(name) for name in names]


class _Lines:
    """The lines of a text; `rewind` goes back to the second line after the last `mark`."""

    def __init__(self, text: Iterator[str]) -> None:
        self._text = text
        self._read: list[str] = []
        self._again: list[str] = []
        self.number = 0
        """Number of the last line that was read."""

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._text)
        if not self._read:
            line = line.removeprefix("\ufeff")
        self._read.append(line)
        self.number += 1
        return line

    def mark(self) -> int:
        """Forget what was read; the number of the next line."""
        self._read.clear()
        return self.number + 1

    def rewind(self) -> None:
        """Return to the line after the first one since the mark."""
        self._again.extend(reversed(self._read[1:]))
        self.number -= len(self._read) - 1
        self._read.clear()


def _records(path: Path, delimiter: str, quoting: int, spaced: bool = False) -> Iterator[tuple[int, list[str] | str]]:
    """Yield each record's first line (1-based) with its fields, or with the reason why there are none.

    After broken quoting the very next line is a new record, so that a stray quote costs only its own line.
    Invalid bytes become lone surrogates, which `as_row` refuses. `spaced`: ignore spaces after a delimiter. Excel's
    first line `sep=;` is no record, and a byte order mark where files were joined no part of a field.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    with open_bytes(path) as stream:
        lines = _Lines(io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline=""))
        dialect = partial(csv.reader, delimiter=delimiter, skipinitialspace=spaced, strict=True)
        records = dialect(lines, quoting=quoting)  # type: ignore[arg-type]
        while True:
            first = lines.mark()
            try:
                fields = next(records)
            except StopIteration:
                return
            except csv.Error as error:
                lines.rewind()
                yield first, f"line {first}: broken quoting ({error})"
            else:
                if first == 1 and _SEPARATOR.fullmatch(delimiter.join(fields)):
                    continue
                if fields:
                    yield first, fields


def _delimiter(path: Path, count: int | None = None) -> str:
    """The delimiter that splits a file's first line into `count`, else into the most columns; else a comma."""
    widths = {}
    with open_bytes(path) as stream:
        stated = _SEPARATOR.fullmatch(stream.readline(80).decode("utf-8-sig", "replace").strip("\r\n"))
    if stated:
        return stated[1]
    for delimiter in _DELIMITERS:
        _, header = next(_records(path, delimiter, csv.QUOTE_MINIMAL), (0, ""))
        widths[delimiter] = len(header) if isinstance(header, list) else 0
    return max(widths, key=lambda delimiter: (widths[delimiter] == count, widths[delimiter]))


def _has_spaces_after(path: Path, delimiter: str) -> bool:
    """Whether a space follows each delimiter of the first line, or stands before a quote in one of the next lines."""
    _, header = next(_records(path, delimiter, csv.QUOTE_NONE), (0, ""))
    if len(header) > 1 and isinstance(header, list) and all(name.startswith(" ") for name in header[1:]):
        return True
    first = islice(_records(path, delimiter, csv.QUOTE_MINIMAL), _SAMPLED)
    return any(isinstance(fields, list) and any(map(_QUOTE_AFTER_SPACE.match, fields[1:])) for _, fields in first)


def _quoting(path: Path) -> int:
    """How to read quotes in a tab-separated file: as in CSV if all of it follows that, else as plain characters.

    Many such files are written without quoting, where a text that starts with a quote would swallow the lines after it.
    """

    def consistent(quoting: int) -> bool:
        width = 0
        for _, fields in _records(path, "\t", quoting):
            width = width or len(fields)
            if isinstance(fields, str) or len(fields) != width:
                return False
        return True

    plain = not consistent(csv.QUOTE_MINIMAL) and consistent(csv.QUOTE_NONE)
    return csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL


def _parsers(header: Sequence[str], rows: list[list[str]], label: str) -> dict[str, tuple[int, Parser]]:
    """By column name: its index and the parser of its cells, if the first rows hold lists, objects or texts."""
    columns = zip(*(fields for fields in rows if len(fields) == len(header)), strict=True)
    parsers = {}
    for index, (name, cells) in enumerate(zip(header, columns, strict=False)):
        if parser := _parser(cells):
            log.info("%s: the cells of %s are read as %s", label, name, parser[1])
            parsers[name] = index, parser[0]
        elif _are_texts(cells):
            parsers[name] = index, _without_missing
    return parsers


def _parser(cells: Sequence[str]) -> tuple[Parser, str] | None:
    """The parser, and its name, of a column's cells that are not empty; None for a column of plain texts."""
    filled = [cell for cell in cells if cell.strip()]
    if not filled or not all(cell.lstrip().startswith(("[", "{")) for cell in filled):
        return None
    parsers: tuple[tuple[Parser, str], ...] = ((decode, "JSON"), (_literal, "Python literals"))
    for parse, name in parsers:
        try:
            if all(isinstance(parse(cell), list | dict) for cell in filled):
                return parse, name
        except _PARSE_ERRORS:
            continue
    return None


def _are_texts(cells: Sequence[str]) -> bool:
    """Whether most cells hold several words, so that one with `nan` alone is a missing one, and no label or answer."""
    filled = [cell for cell in cells if cell.strip() and cell.strip() not in _MISSING]
    return 2 * sum(len(cell.split()) > 2 for cell in filled) > len(filled) or (not filled and any(cells))


def _without_missing(cell: str) -> object:
    return None if cell.strip() in _MISSING else cell


def _parsed(cell: str, parse: Parser) -> object:
    """The value of a cell; a placeholder if it has no list or object, as others of its column have."""
    if not cell.strip():
        return cell
    try:
        return parse(cell)
    except _PARSE_ERRORS:
        return INVALID_TEXT + "it is not a list or an object, as other cells of its column are"


def _literal(cell: str) -> object:
    if len(cell) > _LONGEST_LITERAL:
        raise ValueError
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        value: object = ast.literal_eval(cell.strip())
        return value
