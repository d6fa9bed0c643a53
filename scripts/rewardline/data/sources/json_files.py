"""Rows of JSON Lines and JSON files."""

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path

from rewardline.core.errors import UserError
from rewardline.data.sources.compression import open_bytes
from rewardline.data.sources.rows import Row, as_row, decode, decode_many, json_type, plain_row, unreadable

log = logging.getLogger(__name__)
LONGEST_LINE = 32 << 20
"""Bytes of a line of JSON."""
_BOM = b"\xef\xbb\xbf"
_COLUMNS = {"prompt", "question", "instruction", "chosen", "rejected", "response", "answer"}
"""Names that tell columns by ids from rows by ids."""


def read_json_lines(path: Path, label: str) -> Iterator[Row]:
    """A row for each line that is not blank; memory is bounded by a line.

    A file with one JSON value over many lines, as a list is, is read as `read_json` does.
    """
    if _is_one_value(path):
        log.info("%s does not have an object on each line: read as JSON", label)
        yield from read_json(path, label)
        return
    with open_bytes(path) as stream:
        for number, line in enumerate(iter(partial(stream.readline, LONGEST_LINE), b""), 1):
            if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = stream.readline(LONGEST_LINE)
                yield unreadable(number, f"a line of more than {LONGEST_LINE >> 20} MiB")
                continue
            text = line.removeprefix(_BOM).strip()  # one inside is where files were joined
            if not text:
                continue
            if row := plain_row(number, text):
                yield row
                continue
            try:
                value = decode(text.decode("utf-8"))
            except UnicodeDecodeError as error:
                yield unreadable(number, f"invalid UTF-8 at byte {error.start + 1} of the line")
            except json.JSONDecodeError as error:
                yield unreadable(number, f"not JSON: {error.msg} at column {error.colno}")
            except RecursionError:
                yield unreadable(number, "nested too deeply")
            except ValueError as error:
                yield unreadable(number, f"not JSON: {error}")
            else:
                yield as_row(number, value)


def _is_one_value(path: Path) -> bool:
    """Whether the first line that is not blank holds rows, or is the start of a value over many lines."""
    if not path.is_file():
        return False  # what is read of a pipe is gone
    with open_bytes(path) as stream:
        lines = (line.removeprefix(_BOM).strip() for line in iter(partial(stream.readline, LONGEST_LINE), b""))
        texts = filter(None, lines)
        start = next(texts, b"")
        if not start.startswith(b"["):
            return start == b"{" and next(texts, b"").startswith((b'"', b"}"))  # else a broken line
    try:
        rows = json.loads(start)
    except (ValueError, RecursionError):
        return True
    return bool(rows) and all(isinstance(row, dict) for row in rows)


def read_json(path: Path, label: str) -> Iterator[Row]:
    """A row for each item of a list, or of an object that holds rows (see `_rows_of`); the complete file is loaded."""
    with open_bytes(path) as stream:
        data = stream.read()
    if not data.strip():
        return
    try:
        text = data.decode("utf-8-sig")
        try:
            values = iter(_rows_of(decode(text), label))
        except json.JSONDecodeError as error:
            if error.msg != "Extra data":
                raise
            if _is_object(text.lstrip().partition("\n")[0]):
                log.info("%s has an object on each line: read as JSON Lines", label)
                yield from read_json_lines(path, label)
                return
            # Objects one after another, as jq writes them; the first error is raised before a row is read.
            values = iter(list(chain.from_iterable(v if isinstance(v, list) else [v] for v in decode_many(text))))
    except json.JSONDecodeError as error:
        remedy = "Fix it, or name it .jsonl if it has an object on each line"
        raise UserError(f"{label} is not JSON: {error}. {remedy}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{label} is not UTF-8 at byte {error.start + 1}. Convert it, as with iconv") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{label} cannot be read as JSON: {error}. Save its rows as JSON Lines (.jsonl)") from error
    for number, item in enumerate(values, 1):
        yield as_row(number, item)


def _rows_of(value: object, label: str) -> list[object]:
    """The rows of a file's value.

    They are a list, or in an object: under its only key with a list of objects, under ids, or as columns, in lists or
    by row number as pandas writes them (`to_json`, also with `orient="split"`).
    """
    if isinstance(value, list):
        return value
    columns: list[tuple[str, list[object]]] = []
    if isinstance(value, dict):
        items = list(value.values())
        lists = [item for item in items if isinstance(item, list) and any(isinstance(v, dict) for v in item)]
        are_columns = len(items) > 1 and all(isinstance(item, list) for item in items)
        names, data = value.get("columns"), value.get("data")
        if isinstance(names, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
            return [dict(zip(map(str, names), row, strict=False)) for row in data]
        if are_columns and len(lists) < len(items) and len({len(item) for item in items}) == 1:
            columns = list(value.items())
        elif len(lists) == 1:
            return lists[0]
        elif len(items) > 1 and not lists and all(isinstance(item, dict) and item for item in items):
            inner = {key for item in items for key in item}
            by_number = all(key.isdecimal() for key in inner) and not all(key.isdecimal() for key in value)
            if by_number or (_COLUMNS & value.keys() and not _COLUMNS & inner):
                order = sorted(inner, key=int) if by_number else list(items[0])
                columns = [(name, [item.get(key) for key in order]) for name, item in value.items()]
            elif len(inner) <= 2 * max(map(len, items)):
                log.info("%s has %d rows by their ids: read without the ids", label, len(items))
                return items
    if columns:
        log.info("%s has rows as columns: %s", label, ", ".join(name for name, _ in columns)[:200])
        names, cells = [name for name, _ in columns], [cells for _, cells in columns]
        return [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]
    kind = json_type(value)
    if isinstance(value, dict):
        kind = f"an object with {len(lists)} such lists under {', '.join(value)[:200]}"
    raise UserError(
        f"{label} must be a list of objects, or an object that holds exactly one such list, or rows by id, or columns;"
        f" it is {kind}. Save its rows as one list, or as JSON Lines (.jsonl)"
    )


def _is_object(line: str) -> bool:
    with suppress(ValueError, RecursionError):
        return isinstance(json.loads(line), dict)
    return False
