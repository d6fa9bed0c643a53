"""Ids in rows replaced by what they stand for in the rows of another data set.

    joins = {"answer1_id": JoinSettings(dataset="answers", key="answer_id", value="text")}
    build_tables(joins, {"answers": rows_of_answers}, Path("tables.sqlite"))
    with Tables(joins, Path("tables.sqlite")) as tables:
        record = tables.join(record)

The tables lie in one SQLite file, so that memory does not grow with them and several processes can read them at once.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from rewardline.core.errors import UserError
from rewardline.data.conversation import Reject, kind
from rewardline.data.formats.fields import Record, steps_of, walk
from rewardline.data.formats.options import code
from rewardline.data.formats.settings import JoinSettings

Joins = Mapping[str, JoinSettings]
"""By path in a row: what stands for the id there."""


class _Table(NamedTuple):
    dataset: str
    key: str
    value: str | None


def _tables(joins: Joins) -> dict[str, _Table]:
    """The table that each path needs; `UserError` for a bad path or key."""
    result = {}
    for path, join in joins.items():
        for each in (path, join.key, *([join.value] if join.value else [])):
            if any(isinstance(step, str) and "*" in step for step in steps_of(each)):
                raise UserError(f"join: {each}: a path of a join has no * in a key")
        result[path] = _Table(join.dataset, join.key, join.value)
    return result


def check_joins(joins: Joins) -> None:
    """Raise `UserError` for joins that no row can be read with."""
    _tables(joins)


def build_tables(joins: Joins, rows: Mapping[str, Iterable[Record]], path: Path) -> dict[str, dict[str, int]]:
    """Write the tables that `joins` need, from the rows of each data set that they name; each is read once.

    Returns, by data set, how many rows it has (`rows`), how many have no usable id or value (`unusable`), and how many
    repeat one of the same id and content (`repeated`).

    Raises:
        UserError: an id stands for different contents.
    """
    by_dataset: dict[str, list[tuple[int, _Table]]] = {}
    for number, table in enumerate(_distinct(joins)):
        by_dataset.setdefault(table.dataset, []).append((number, table))
    counts = {}
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -16000;"
            "CREATE TABLE entries (number INTEGER, id TEXT, content TEXT, PRIMARY KEY (number, id)) WITHOUT ROWID;"
            "BEGIN"
        )
        for dataset, tables in by_dataset.items():
            count = Counter(rows=0, unusable=0, repeated=0)
            for record in rows[dataset]:
                count["rows"] += 1
                for number, table in tables:
                    count[_insert(connection, number, table, record)] += 1
            counts[dataset] = {name: count[name] for name in ("rows", "unusable", "repeated")}
        connection.execute("COMMIT")
    return counts


def _distinct(joins: Joins) -> list[_Table]:
    return list(dict.fromkeys(_tables(joins).values()))


def _insert(connection: sqlite3.Connection, number: int, table: _Table, record: Record) -> str:
    try:
        name = _id(walk(record, table.key))
        value = record if table.value is None else walk(record, table.value)
    except Reject:
        return "unusable"
    content = json.dumps(value, ensure_ascii=False, sort_keys=True)
    try:
        connection.execute("INSERT INTO entries VALUES (?, ?, ?)", (number, name, content))
    except sqlite3.IntegrityError:
        query = "SELECT content FROM entries WHERE number = ? AND id = ?"
        ((before,),) = connection.execute(query, (number, name))
        if before == content:
            return "repeated"
        what = table.value or "row"
        raise UserError(
            f"join: in data set {table.dataset}, the {table.key} {name[:80]!r} stands for more than one {what}: "
            f"{before[:80]} and {content[:80]}. Mend its rows, or set `value` to what is the same in them"
        ) from None
    return "inserted"


def _id(value: Any) -> str:
    """An id as text: 1, 1.0 and "1" are one, as tables without types have them."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Reject("unknown_id", f"an id is {kind(value)}")
    return code(value) if abs(value) < 1e9 else str(value)


class Tables:
    """The tables of `build_tables`, open for reading."""

    def __init__(self, joins: Joins, path: Path) -> None:
        tables = _tables(joins)
        numbers = {table: number for number, table in enumerate(_distinct(joins))}
        self._places = [(path, steps_of(path), table, numbers[table]) for path, table in tables.items()]
        self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)

    def __enter__(self) -> "Tables":
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def join(self, record: Record) -> Record:
        """A copy of the row with what its ids stand for in their place; the row itself stays as it is.

        Raises `Reject`: `missing_field` where a path is not there, `unknown_id` for an id that the table has not.
        """
        if not isinstance(record, dict):
            raise Reject("not_object", "the row is not an object with named fields")
        for path, steps, table, number in self._places:
            found = walk(record, path)
            if path in record:
                record = {**record, path: self._find(found, path, table, number)}
            else:
                record = self._put(record, steps, path, table, number)
        return record

    def _put(self, value: Any, steps: tuple[str | int | None, ...], path: str, table: _Table, number: int) -> Any:
        if not steps:
            return self._find(value, path, table, number)
        step, rest = steps[0], steps[1:]
        if step is None:
            return [self._put(item, rest, path, table, number) for item in value]
        if isinstance(step, int):
            copy = list(value)
            copy[step] = self._put(value[step], rest, path, table, number)
            return copy
        return {**value, step: self._put(value[step], rest, path, table, number)}

    def _find(self, value: Any, path: str, table: _Table, number: int) -> Any:
        name = _id(value)
        query = "SELECT content FROM entries WHERE number = ? AND id = ?"
        try:
            found = self._connection.execute(query, (number, name)).fetchone()
        except UnicodeEncodeError:
            found = None
        if found is None:
            raise Reject("unknown_id", f"{path}: data set {table.dataset} has no row with {table.key} {name[:80]!r}")
        return json.loads(found[0])
