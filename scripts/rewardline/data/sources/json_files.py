"""Rows of JSON Lines and JSON files."""

import json
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rewardline.core.errors import UserError
from rewardline.data.sources.compression import open_bytes
from rewardline.data.sources.rows import Row, as_row, decode, json_type, unreadable

log = logging.getLogger(__name__)
LONGEST_LINE = 32 << 20
"""Bytes of a line of JSON."""
_BOM = b"\xef\xbb\xbf"


def read_json_lines(path: Path, _label: str) -> Iterator[Row]:
    """A row for each line that is not blank; memory is bounded by a line."""
    with open_bytes(path) as stream:
        for number, line in enumerate(iter(partial(stream.readline, LONGEST_LINE), b""), 1):
            if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = stream.readline(LONGEST_LINE)
                yield unreadable(number, f"a line of more than {LONGEST_LINE >> 20} MiB")
                continue
            text = (line.removeprefix(_BOM) if number == 1 else line).strip()
            if not text:
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


def read_json(path: Path, label: str) -> Iterator[Row]:
    """A row for each item of a list, or of the only list of objects in an object; the complete file is loaded."""
    with open_bytes(path) as stream:
        data = stream.read()
    if not data.strip():
        return
    try:
        value = decode(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and _is_object(data.removeprefix(_BOM).lstrip().partition(b"\n")[0]):
            log.info("%s has an object on each line: read as JSON Lines", label)
            yield from read_json_lines(path, label)
            return
        remedy = "Fix it, or name it .jsonl if it has an object on each line"
        raise UserError(f"{label} is not JSON: {error}. {remedy}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{label} is not UTF-8 at byte {error.start + 1}. Convert it, as with iconv") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{label} cannot be read as JSON: {error}. Save its rows as JSON Lines (.jsonl)") from error
    lists = [value] if isinstance(value, list) else []
    if isinstance(value, dict):
        lists = [item for item in value.values() if isinstance(item, list) and any(isinstance(v, dict) for v in item)]
    if len(lists) != 1:
        kind = f"an object with {len(lists)} such lists" if isinstance(value, dict) else json_type(value)
        raise UserError(
            f"{label} must be a list of objects, or an object that holds exactly one such list; it is {kind}. "
            "Save its rows as one list, or as JSON Lines (.jsonl)"
        )
    for number, item in enumerate(lists[0], 1):
        yield as_row(number, item)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
