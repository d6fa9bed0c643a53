"""Ids in rows, replaced by the texts or rows of another dataset that they refer to.

    joins = {"answer1_id": JoinSettings(dataset="answers", key="answer_id", value="text")}
    build_index(joins, {"answers": rows_of_answers}, Path("index.sqlite"))
    with JoinIndex(joins, Path("index.sqlite")) as index:
        record = index.join(record)

The index is one SQLite file, made once for a dataset and read by every job that converts a part of it: memory does not
grow with it. The table joins of duckdb or pyarrow do not fit: ids may be nested in lists, 1 and "1" are one id, an id
that is not found rejects its row alone, and the rows must keep their order.
"""

import json
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, JsonValue

from rewardline.core.artifacts import Manifest, verify
from rewardline.core.errors import UserError
from rewardline.data.conversation import Reject, describe_type
from rewardline.data.formats.fields import Record, Step, label_text, steps_of, value_at
from rewardline.data.formats.settings import JoinIndexSettings, JoinSettings
from rewardline.data.stored_rows import read_stored_rows

log = logging.getLogger(__name__)
FILE: Final = "index.sqlite"
Joins = Mapping[str, JoinSettings]
"""By path of an id in a row: what it refers to."""
_SELECT: Final = "SELECT content FROM entries WHERE number = ? AND id = ?"


class JoinCounts(BaseModel):
    """The rows of a joined dataset: all, those without a usable id or value, and those that repeat another one."""

    rows: int
    unusable: int
    repeated: int


class JoinIndexManifest(Manifest):
    """What `index_joins.py` says of the index of a dataset's joins."""

    datasets: dict[str, JoinCounts]


def check_joins(joins: Joins) -> None:
    """Check joins before any row is read.

    Raises:
        UserError: a bad path or key.
    """
    for path in (path for key, join in joins.items() for path in (key, join.key, join.value) if path):
        if any(isinstance(step, str) and "*" in step for step in steps_of(path, "join: ")):
            raise UserError(f"join: {path!r}: a path of a join has no * in a key")


def index_joins(settings: JoinIndexSettings, manifests: Sequence[Path], out: Path) -> JoinIndexManifest:
    """Write the index of a dataset's joins to the folder `out`, from the manifests of the joined datasets' rows.

    Raises:
        UserError: as `build_index`, or rows are missing or damaged.
    """
    rows = {
        manifest.parent.name: (json.loads(row.record) for row in read_stored_rows(manifest) if row.record)
        for manifest in manifests
    }
    counts = build_index(settings.join, rows, out / FILE)
    for name, count in counts.items():
        log.info("%s: %d rows, %d unusable, %d repeated", name, count.rows, count.unusable, count.repeated)
    return JoinIndexManifest(datasets=counts)


def build_index(joins: Joins, rows: Mapping[str, Iterable[Record]], path: Path) -> dict[str, JoinCounts]:
    """Write the index that `joins` need, from the rows of each dataset that they name; each is read once.

    Raises:
        UserError: an id refers to different contents.
    """
    check_joins(joins)
    distinct = _distinct(joins)
    counts = {}
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -16000;"
            "CREATE TABLE entries (number INTEGER, id TEXT, content TEXT, PRIMARY KEY (number, id)) WITHOUT ROWID;"
            "BEGIN"
        )
        for dataset in dict.fromkeys(join.dataset for join in distinct):
            numbered = [(number, join) for number, join in enumerate(distinct) if join.dataset == dataset]
            count = Counter(rows=0, unusable=0, repeated=0)
            for record in rows[dataset]:
                count["rows"] += 1
                for number, join in numbered:
                    count[_insert(connection, number, join, record)] += 1
            counts[dataset] = JoinCounts.model_validate(count)
        connection.execute("COMMIT")
    return counts


def _distinct(joins: Joins) -> list[JoinSettings]:
    """The joins without repetitions; the index of each is its number in the table."""
    return list(dict.fromkeys(joins.values()))


def _insert(connection: sqlite3.Connection, number: int, join: JoinSettings, record: Record) -> str:
    """Add an entry; the name of the count that the row belongs to."""
    try:
        name = _id_text(value_at(record, join.key))
        value = record if join.value is None else value_at(record, join.value)
    except Reject:
        return "unusable"
    content = json.dumps(value, ensure_ascii=False, sort_keys=True)
    if connection.execute("INSERT OR IGNORE INTO entries VALUES (?, ?, ?)", (number, name, content)).rowcount:
        return "indexed"
    ((before,),) = connection.execute(_SELECT, (number, name))
    if before == content:
        return "repeated"
    raise UserError(
        f"join: in dataset {join.dataset}, the {join.key} {name[:80]!r} refers to more than one {join.value or 'row'}: "
        f"{before[:80]} and {content[:80]}. Fix its rows, or set `value` to what is the same in them"
    )


def _id_text(value: object) -> str:
    """An id as text: 1, 1.0 and "1" are one, as tables without types have them."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Reject("unknown_id", f"an id is {describe_type(value)}")
    return label_text(value) if abs(value) < 1e9 else str(value)


class JoinIndex:
    """An index of `build_index`, open for reading."""

    def __init__(self, joins: Joins, path: Path) -> None:
        distinct = _distinct(joins)
        self._joins = [(path, steps_of(path), join, distinct.index(join)) for path, join in joins.items()]
        self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)

    @classmethod
    def open(cls, joins: Joins, manifest: Path) -> Self:
        """The index with this manifest.

        Raises:
            UserError: it is missing or damaged.
        """
        path = manifest.parent / FILE
        verify(path, manifest.name)
        return cls(joins, path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def join(self, record: Record) -> Record:
        """A copy of the row in which its ids are replaced by what they refer to.

        Raises `Reject`: `missing_field` where there is no such path, `unknown_id` for an id that is not in the index.
        """
        if not isinstance(record, dict):
            raise Reject("not_object", "the row is not an object with named fields")
        result = {**record}
        for path, steps, join, number in self._joins:
            value_at(result, path)
            first, *rest = (path,) if path in result else steps
            result[str(first)] = _replaced(result[str(first)], rest, partial(self._find, path, join, number))
        return result

    def _find(self, path: str, join: JoinSettings, number: int, value: object) -> JsonValue:
        name = _id_text(value)
        try:
            found = self._connection.execute(_SELECT, (number, name)).fetchone()
        except UnicodeEncodeError:
            found = None
        if found is None:
            raise Reject("unknown_id", f"{path}: dataset {join.dataset} has no row with {join.key} {name[:80]!r}")
        content: JsonValue = json.loads(found[0])
        return content


def _replaced(value: JsonValue, steps: Sequence[Step], find: Callable[[object], JsonValue]) -> JsonValue:
    """A copy of a value with the ids at a path replaced; the path is there."""
    if not steps:
        return find(value)
    step, *rest = steps
    if isinstance(value, dict) and isinstance(step, str):
        return {**value, step: _replaced(value[step], rest, find)}
    if isinstance(value, list) and isinstance(step, int):
        step %= len(value)
        return [*value[:step], _replaced(value[step], rest, find), *value[step + 1 :]]
    return [_replaced(item, rest, find) for item in value] if isinstance(value, list) else value
