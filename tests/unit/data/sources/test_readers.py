import csv
import gzip
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rewardline.core.errors import UserError
from rewardline.data.conversation import Reject
from rewardline.data.formats.registry import converter
from rewardline.data.formats.settings import FormatSettings
from rewardline.data.sources import json_files, readers
from rewardline.data.sources.rows import INVALID_TEXT, Row

from support.paths import SHARED_DATA

GIVEN = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
NAMES = st.lists(st.text("abcåß語", min_size=1), min_size=1, max_size=4, unique=True)


def read(path: Path) -> list[Row]:
    return list(readers.read(path))


def values(path: Path) -> list[Any]:
    rows = read(path)
    assert [row.error for row in rows] == [None] * len(rows)
    assert [json.loads(row.record or "") for row in rows] == [row.value for row in rows]
    return [row.value for row in rows]


def table(names: list[str], rows: list[list[str]], delimiter: str) -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([names, *rows])
    return text.getvalue().encode()


def tables() -> st.SearchStrategy[tuple[list[str], list[list[str]]]]:
    tricky = TEXT | st.text('",\t;\r\n\\é x')
    return NAMES.flatmap(
        lambda names: st.tuples(
            st.just(names), st.lists(st.lists(tricky, min_size=len(names), max_size=len(names)), min_size=1)
        )
    )


@GIVEN
@given(st.lists(st.dictionaries(TEXT, JSON, max_size=4), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_json_lines_come_back_as_written(tmp_path: Path, rows: list[Any], ascii_only: bool, mark: bool) -> None:
    text = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\r\n" for row in rows)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" * mark + text.encode())
    assert values(path) == rows


@GIVEN
@given(st.lists(st.dictionaries(TEXT, JSON, max_size=4), min_size=1, max_size=5), st.booleans())
def test_json_comes_back_as_written(tmp_path: Path, rows: list[Any], wrapped: bool) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"version": 1, "notes": [], "data": rows} if wrapped else rows), encoding="utf-8")
    assert values(path) == rows


@GIVEN
@given(tables(), st.sampled_from([("a.csv", ","), ("a.csv", "\t"), ("a.csv", ";"), ("a.tsv", "\t")]))
def test_tables_come_back_as_written(
    tmp_path: Path, data: tuple[list[str], list[list[str]]], form: tuple[str, str]
) -> None:
    names, rows = data
    file, delimiter = form
    if len(names) == 1 and file == "a.csv":  # nothing shows the delimiter then: it is taken to be a comma
        delimiter = ","
    path = tmp_path / file
    path.write_bytes(table(names, rows, delimiter))
    assert values(path) == [dict(zip(names, row, strict=True)) for row in rows]


@GIVEN
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "text": st.none() | TEXT,
                "turns": st.lists(st.fixed_dictionaries({"role": TEXT, "content": TEXT})),
                "score": st.none() | st.floats(allow_nan=False, allow_infinity=False),
                "rank": st.none() | st.integers(-(2**63), 2**63 - 1),
                "good": st.none() | st.booleans(),
            }
        ),
        min_size=1,
    )
)
def test_parquet_comes_back_as_written(tmp_path: Path, rows: list[Any]) -> None:
    schema = pa.schema(
        {
            "text": pa.string(),
            "turns": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
            "score": pa.float64(),
            "rank": pa.int64(),
            "good": pa.bool_(),
        }
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "a.parquet", row_group_size=2)
    assert values(tmp_path / "a.parquet") == rows


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.csv", "a.TSV"])
@pytest.mark.parametrize("extension, compress", [(".gz", gzip.compress), (".zst", zstd)])
def test_compressed_files_read_as_plain_ones(
    tmp_path: Path, name: str, extension: str, compress: Callable[[bytes], bytes]
) -> None:
    rows = [{"prompt": "né\n", "n": str(index)} for index in range(5_000)]
    if "sv" in name.lower():
        delimiter = "\t" if "T" in name else ","
        data = table(["prompt", "n"], [[row["prompt"], row["n"]] for row in rows], delimiter)
    elif name == "a.json":
        data = json.dumps(rows).encode()
    else:
        data = "\n".join(map(json.dumps, rows)).encode()
    path = tmp_path / (name + extension)
    path.write_bytes(compress(data[:1000]) + compress(b"") + compress(data[1000:]))
    assert values(path) == rows


BAD_LINES = [
    (b'{"a": 1', "not JSON: Expecting"),
    (b'{"a": 1} {"a": 2}', "not JSON: Extra data at column 10"),
    (b"[1]", "not an object: array"),
    (b'"text"', "not an object: string"),
    (b"null", "not an object: null"),
    (b'{"a": "\xff"}', "invalid UTF-8 at byte 8"),
    (b'{"a": {"b": 1, "b": 2}}', "duplicate key 'b'"),
    (b'{"a": 1, "a": 1}', "duplicate key 'a'"),
    (b"NaN", "not an object: number"),
    (b'{"a": ' + b"9" * 5000 + b"}", "not JSON: Exceeds the limit"),
    (b'{"\\ud83d": 1}', "lone surrogate"),
    (b'{"a\\u0000": 1}', "NUL"),
    (b"\0\0\0\0", "not JSON"),
    (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
]


@pytest.mark.parametrize("line, reason", BAD_LINES)
def test_a_bad_line_stays_as_a_row_with_its_reason(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line + b'\n  \r\n{"a": "\\\\u0000 \\ud83d\\ude00"}')
    first, bad, last = read(path)
    assert (first.number, first.value, first.record) == (1, {"a": 1}, '{"a":1}')
    assert (bad.number, bad.value, bad.record) == (3, None, None)
    assert reason in str(bad.error)
    assert (last.number, last.record) == (5, '{"a":"\\\\u0000 😀"}')


@pytest.mark.parametrize(
    ("invalid", "kept"),
    [
        (b"[NaN, 1]", [None, 1]),
        (b"-Infinity", None),
        (b"1e999", None),
        (b'{"b": "\\ud83d"}', {"b": INVALID_TEXT + "it contains invalid UTF-8 or a lone surrogate"}),
        (b'"x\\u0000"', INVALID_TEXT + "it contains a NUL character"),
    ],
)
def test_an_invalid_value_costs_only_what_reads_it(tmp_path: Path, invalid: bytes, kept: Any) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt": "Q", "chosen": "A", "rejected": "B", "more": ' + invalid + b"}\n")
    (row,) = read(path)
    assert row.value is not None and row.value["more"] == kept
    assert json.loads(row.record or "") == row.value
    assert len(converter(FormatSettings(format="pairs"))(row.value)) == 1
    for field in ("prompt", "chosen", "margin"):
        with pytest.raises(Reject):
            converter(FormatSettings(format="pairs", fields={field: "more"}))(row.value)


def test_bad_rows_of_json_do_not_spoil_the_others(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1}, {"a": 1, "a": 2}, 3, {"b": NaN}, {"c": "\\ud800"}, {"a": [2]}]', encoding="utf-8")
    rows = read(path)
    assert [row.number for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row.error is None for row in rows] == [True, False, False, True, True, True]
    assert rows[5].record == '{"a":[2]}'


def test_json_that_is_json_lines_is_read_as_such(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf\n{"a": 1}\n\n{"a": 2}\n{"a": \n')
    assert [(row.number, row.record) for row in read(path)] == [(2, '{"a":1}'), (4, '{"a":2}'), (5, None)]


def test_bad_rows_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'\xef\xbb\xbfa,b\n1,"two\nlines"\n\nonly one\n1,2,3\nx,\xff\ny,a\0b\n"stray" quote,2\n"never closed,3\n4,5\n'
    )
    rows = read(path)
    assert [row.number for row in rows] == list(range(1, 9))
    kept = [row.value for row in rows if row.value]
    assert [kept[0], kept[3]] == [{"a": "1", "b": "two\nlines"}, {"a": "4", "b": "5"}]
    assert [str(row["b"]).startswith(INVALID_TEXT) for row in kept] == [False, True, True, False]
    reasons = [str(row.error) for row in rows if row.error]
    for reason, expected in zip(
        reasons,
        ["line 5: 1 fields instead of 2", "line 6: 3 fields", "line 9: broken", "line 10: broken"],
        strict=True,
    ):
        assert expected in reason


def test_fields_of_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    long = 'line "one"\n' * 300_000
    path.write_bytes(table(["a", "b"], [["x", long], ["y", ""]], ","))
    assert values(path) == [{"a": "x", "b": long}, {"a": "y", "b": ""}]


def test_tab_separated_text_without_quoting_keeps_its_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('#id\ta1\ta2\n1\t"Yes," she said\tno, not\n2\t"open\tb\n3\tc\tclosed"\n', encoding="utf-8")
    assert values(path) == [
        {"#id": "1", "a1": '"Yes," she said', "a2": "no, not"},
        {"#id": "2", "a1": '"open', "a2": "b"},
        {"#id": "3", "a1": "c", "a2": 'closed"'},
    ]


def test_what_json_has_no_type_for(tmp_path: Path) -> None:
    when = datetime(2024, 2, 29, 12, 30, tzinfo=UTC)
    row = {"when": when, "day": when.date(), "price": Decimal("1.10"), "text": "é".encode(), "image": b"\xff\0"}
    columns = {key: [value] for key, value in row.items()}
    pq.write_table(
        pa.table({**columns, "map": pa.array([[("k", 1)]], pa.map_("string", "int64"))}), tmp_path / "a.parquet"
    )
    assert values_as_json(tmp_path / "a.parquet") == {
        "when": "2024-02-29T12:30:00+00:00",
        "day": "2024-02-29",
        "price": "1.10",
        "text": "é",
        "image": INVALID_TEXT + "bytes that are not UTF-8, in base64: /wA=",
        "map": [["k", 1]],
    }


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.txt.gz", "a.csv.zst"])
def test_a_table_without_names(tmp_path: Path, name: str) -> None:
    rows = [["1", "one, or", "a;b"], ["2", "two\nlines", "c"]]
    data = table(rows[0], rows[1:], "\t" if "csv" not in name else ",")
    data = gzip.compress(data) if name.endswith("gz") else zstd(data) if name.endswith("zst") else data
    (tmp_path / name).write_bytes(data)
    found = list(readers.read(tmp_path / name, columns=["id", "text", "more"]))
    assert [row.value for row in found] == [dict(zip(["id", "text", "more"], row, strict=True)) for row in rows]
    found = list(readers.read(tmp_path / name, columns=["id", "text", "more"]))
    assert [row.number for row in found] == [1, 2]
    with pytest.raises(UserError, match=r"none of its 2 rows.*3 fields instead of 4"):
        list(readers.read(tmp_path / name, columns=["id", "text", "more", "most"]))


def test_columns_are_for_tables(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"{}")
    with pytest.raises(UserError, match=r"csv, \.tsv and \.txt"):
        list(readers.read(tmp_path / "a.jsonl", columns=["a"]))
    (tmp_path / "a.csv").write_bytes(b"1,2")
    with pytest.raises(UserError, match=r"`columns` must name them, but .* twice"):
        list(readers.read(tmp_path / "a.csv", columns=["a", "a"]))


def values_as_json(path: Path) -> Any:
    (row,) = read(path)
    return json.loads(row.record or "")


def test_bad_values_of_parquet_cost_their_row_only(tmp_path: Path) -> None:
    invalid = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"\xff", b"c"]).buffers())
    far = pa.array([0, 0, 2**60], pa.timestamp("ms"))
    numbers = pa.array([float("nan"), 1.0, 2.0])
    for name, column, good in [("invalid", invalid, [1, 3]), ("far", far, [1, 2]), ("numbers", numbers, [1, 2, 3])]:
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"a": column}), path)
        rows = read(path)
        assert [row.number for row in rows] == [1, 2, 3]
        assert [row.number for row in rows if row.error is None] == good


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


MANY = b"".join(b'{"text": "%x"}\n' % (index * 7919**5) for index in range(20_000))


def parquet(columns: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="none", use_dictionary=False)
    return sink.getvalue()


def damaged_page() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": [f"{index * 7919**5:x}" for index in range(20_000)]}), sink, compression="zstd")
    data = sink.getvalue()
    return data[:5000] + b"\0" * 2000 + data[7000:]


FATAL = [
    ("a.jsonl", b"", "has no rows"),
    ("a.jsonl", b"\n \r\n", "has no rows"),
    ("a.jsonl.gz", gzip.compress(b"", mtime=0), "has no rows"),
    ("a.jsonl.zst", b"", "has no rows"),
    ("a.json", b" ", "has no rows"),
    ("a.json", b"[]", "has no rows"),
    ("a.csv", b"", "has no rows"),
    ("a.csv", b"a,b\n", "has no rows"),
    ("a.parquet", parquet({"a": pa.array([], pa.string())}), "has no rows"),
    ("a.jsonl", b"a\nb\n", "none of its 2 rows can be read; row 1: not JSON"),
    ("a.jsonl", '{"a": 1}\n'.encode("utf-16"), "none of its 2 rows can be read"),
    ("a.json", b"[1, 2]", "none of its 2 rows can be read"),
    ("a.txt", b"text", "unknown format. Known extensions: .jsonl, .ndjson, .json, .csv, .tsv, .parquet"),
    ("a", b"text", "unknown format"),
    ("a.parquet.gz", b"x", "unknown format"),
    ("a.jsonl.gz", truncated(gzip.compress(MANY, mtime=0)), r"damaged after row [1-9]\d{3,}"),
    ("a.jsonl.zst", truncated(zstd(MANY)), r"damaged after row [1-9]\d{3,}"),
    ("a.csv.gz", truncated(gzip.compress(b"a\n" + MANY.replace(b'"', b""), mtime=0)), r"damaged after row [1-9]\d{3,}"),
    ("a.csv.zst", truncated(zstd(b"a\n" + MANY.replace(b'"', b""))), r"damaged after row [1-9]\d{3,}"),
    ("a.json.gz", truncated(gzip.compress(MANY, mtime=0)), "damaged after row 0"),
    ("a.jsonl.gz", b"not gzip", "damaged after row 0"),
    ("a.jsonl.zst", b"not zstd", "damaged after row 0"),
    ("a.jsonl.gz", gzip.compress(MANY, mtime=0)[:-8] + b"\0" * 8, r"damaged after row [1-9]\d{3,}"),
    ("a.json", b'{"a": 1}', "an object with 0 such lists"),
    ("a.json", b'{"a": [{}], "b": [{}]}', "an object with 2 such lists"),
    ("a.json", b'"text"', "it is string"),
    ("a.json", b'[{"a": 1}, {"a": ', "is not JSON: Expecting value: line 1 column"),
    ("a.json", b'[{"a": "\xff"}]', "not UTF-8 at byte 9"),
    ("a.parquet", b"PAR1 no", "not a Parquet file"),
    ("a.parquet", b"", "not a Parquet file"),
    ("a.parquet", truncated(parquet({"a": ["x"] * 100})), "not a Parquet file"),
    ("a.parquet", damaged_page(), "damaged after row"),
    ("a.csv", b"a,a\n1,2\n", r"\['a'\] occur twice"),
    ("a.csv", b"a,\xff\n1,2\n", "not UTF-8"),
    ("a.csv", b'"a"b,c\n1,2\n', "broken quoting"),
]


@pytest.mark.parametrize("name, data, reason", FATAL)
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UserError, match=reason) as error:
        read(path)
    assert str(path) in str(error.value)


def test_messages_call_a_file_by_its_label(tmp_path: Path) -> None:
    (tmp_path / "blob.jsonl").write_bytes(b"")
    with pytest.raises(UserError, match="hub://owner/name"):
        list(readers.read(tmp_path / "blob.jsonl", "hub://owner/name@c/train/a.jsonl"))


@pytest.fixture
def shared() -> Path:
    folder = SHARED_DATA
    if not folder.is_dir():
        pytest.skip("real data is not here")
    return folder


@pytest.mark.parametrize(
    "pattern, count, keys",
    [
        ("hh_rlhf_test/harmless-base/test.jsonl.gz", 2312, ["chosen", "rejected"]),
        ("ukp_convarg1/UKPConvArg1Strict-CSV/*.csv", 11650, ["#id", "label", "a1", "a2"]),
        ("truthfulqa/data/v1/TruthfulQA.csv", 817, None),
        ("prometheus_hhh/eval/benchmark/data/*.json", 221, None),
    ],
)
def test_real_files_read_whole(shared: Path, pattern: str, count: int, keys: list[str] | None) -> None:
    rows = [row for path in sorted(shared.glob(pattern)) for row in readers.read(path)]
    assert len(rows) == count
    assert all(row.value is not None and keys in (None, list(row.value)) for row in rows)


def test_a_line_that_is_too_long_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "LONGEST_LINE", 20)
    for name, compress in (("a.jsonl", bytes), ("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstd)):
        path = tmp_path / name
        path.write_bytes(compress(b'{"a": 1}\n{"a": "' + b"x" * 90 + b'"}\n{"a": 123456789012}\n{"a": "' + b"y" * 50))
        rows = read(path)
        assert [row.number for row in rows] == [1, 2, 3, 4]
        assert [row.value for row in rows] == [{"a": 1}, None, {"a": 123456789012}, None]
        assert str(rows[1].error).startswith("a line of more than")


PAIRS = [{"prompt": f"Name {n}.", "chosen": "Red, blue.", "rejected": "Table"} for n in range(3)]
COLUMNS = {key: [row[key] for row in PAIRS] for key in PAIRS[0]}
LINES = "".join(json.dumps(row) + "\n" for row in PAIRS)
TABLE = "prompt{0}chosen{0}rejected\n" + "".join(f'Name {n}.{{0}}"Red, blue."{{0}}Table\n' for n in range(3))
EXPORTS = {
    "list on many lines": ("a.jsonl", json.dumps(PAIRS, indent=1)),
    "list on one line": ("a.jsonl", json.dumps(PAIRS)),
    "a list and then another": ("a.jsonl", json.dumps(PAIRS[:1]) + "\n" + json.dumps(PAIRS[1:])),
    "objects on many lines": ("a.jsonl", "\n".join(json.dumps(row, indent=1) for row in PAIRS)),
    "objects on many lines in .json": ("a.json", "\n".join(json.dumps(row, indent=1) for row in PAIRS)),
    "rows by id": ("a.json", json.dumps({f"id{n}": row for n, row in enumerate(PAIRS)})),
    "rows by number": ("a.json", json.dumps(dict(enumerate(PAIRS)))),
    "to_json": ("a.json", json.dumps({key: dict(enumerate(cells)) for key, cells in COLUMNS.items()})),
    "to_json with an index": ("a.json", json.dumps({k: dict(zip("xyz", v, strict=True)) for k, v in COLUMNS.items()})),
    "to_json in .jsonl": ("a.jsonl", json.dumps({k: dict(enumerate(v)) for k, v in COLUMNS.items()}, indent=1)),
    "split": ("a.json", json.dumps({"columns": list(COLUMNS), "data": [list(row.values()) for row in PAIRS]})),
    "columns": ("a.json", json.dumps(COLUMNS)),
    "BOM": ("a.jsonl", "\ufeff" + LINES),
    "BOM inside": ("a.jsonl", LINES[: LINES.index("\n") + 1] + "\ufeff" + LINES[LINES.index("\n") + 1 :]),
    "CRLF": ("a.jsonl", LINES.replace("\n", "\r\n")),
    "CRLF in a table": ("a.csv", TABLE.format(",").replace("\n", "\r\n")),
    "CR in a table": ("a.csv", TABLE.format(",").replace("\n", "\r")),
    "BOM inside a table": ("a.csv", "\ufeff" + TABLE.format(",").replace("Name 1", "\ufeffName 1")),
    "sep=": ("a.csv", "sep=;\n" + TABLE.format(";")),
    "BOM and sep=": ("a.csv", '\ufeff"sep=;"\r\n' + TABLE.format(";")),
    "sep= saved again": ("a.csv", "sep=;;;\n" + TABLE.format(";")),
    "sep= with a character of its own": ("a.csv", "sep=^\n" + TABLE.format("^")),
    "spaces after commas": ("a.csv", TABLE.format(", ")),
    "spaces after the commas of some rows": (
        "a.csv",
        TABLE.format(",").replace('0.,"', '0., "').replace('2.,"', '2.,  "'),
    ),
    "spaces after semicolons": ("a.csv", TABLE.format("; ")),
    "bars": ("a.csv", TABLE.format("|")),
}


@pytest.mark.parametrize(("name", "text"), EXPORTS.values(), ids=EXPORTS)
def test_what_spreadsheets_and_scripts_export_is_read(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert values(path) == PAIRS


@pytest.mark.parametrize(
    "other", ["PROMPT, Chosen ,rejected", "\ufeffprompt,chosen,rejected", "rejected,chosen,prompt"]
)
def test_names_of_columns_may_come_again_in_another_way(tmp_path: Path, other: str) -> None:
    path = tmp_path / "a.csv"
    names = [name.strip("\ufeff ").lower() for name in other.split(",")]
    others = "".join(",".join(f'"{row[name]}"' for name in names) + "\n" for row in PAIRS)
    path.write_text(TABLE.format(",") + f"{other}\n{others}")
    rows = read(path)
    assert [row.value for row in rows if row.error is None] == [*PAIRS, *PAIRS]
    (error,) = (row.error for row in rows if row.error)
    assert error.startswith("line 5: repeats the names of the columns")
    assert ("in another order" in error) == (names[0] == "rejected")


@pytest.mark.parametrize("missing", ["nan", "NA", "None", " <NA> "])
def test_a_missing_text_in_a_table_is_null(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "a.csv"
    texts = ["It is red.", missing, "It is green, I think."]
    path.write_text("text,label,none\n" + "".join(f'"{text}",{missing},{missing}\n' for text in texts) + '"None",a,\n')
    assert [row["text"] for row in values(path)] == [texts[0], None, texts[2], None]
    assert [row["label"] for row in values(path)] == [missing, missing, missing, "a"], "which may be a label"
    assert [row["none"] for row in values(path)] == [None, None, None, ""]


def test_answers_of_a_multiple_choice_are_no_names(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("A,B\nB,A\nb,a\n")
    assert values(path) == [{"A": "B", "B": "A"}, {"A": "b", "B": "a"}]


def test_lines_of_json_stay_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('["a", "b"]\n' + LINES + '{"prompt": \n')
    assert [row.number for row in read(path) if row.error is None] == [2, 3, 4]
    for broken in ('{"prompt": \n', "{\n", "\n{\n"):
        path.write_text(broken + LINES)
        assert len([row for row in read(path) if row.error is None]) == 3


@pytest.mark.parametrize("first", ["Name one.,Red is a colour.,Table is one.", "What is it?,A red thing indeed.,0.5"])
def test_a_table_without_a_header_asks_for_its_columns(tmp_path: Path, first: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{first}\n" + "Name two.,The Nile.,Perhaps.\n" * 3)
    with pytest.raises(UserError, match=r"Set `columns: \[\.\.\.\]` with the 3 names"):
        read(path)
    assert len(list(readers.read(path, columns=["prompt", "chosen", "rejected"]))) == 4
    path.write_text("Timestamp,Which answer is better?,Rater\n" + "today,the first,5\n")
    assert len(read(path)) == 1


def test_numbers_of_single_precision_are_those_that_were_meant(tmp_path: Path) -> None:
    single = pa.float32()
    columns = {
        "flat": pa.array([0.3, None, 1e-20], single),
        "list": pa.array([[0.1, None], None, []], pa.large_list(single)),
        "float": pa.array([{"x": [0.9], "y": "b"}] * 3, pa.struct([("x", pa.list_(single, 1)), ("y", pa.string())])),
        "double": [0.1 + 0.2] * 3,
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    first, second, third = values(tmp_path / "a.parquet")
    assert first == {"flat": 0.3, "list": [0.1, None], "float": {"x": [0.9], "y": "b"}, "double": 0.1 + 0.2}
    assert (second["flat"], second["list"], third["flat"], third["list"]) == (None, None, 1e-20, [])


def test_what_parquet_fills_in_is_not_given_to_chat_templates(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"chat_template_kwargs": {"enable_thinking": False}, "tools": [{"name": "a", "strict": True}]},
        {"chat_template_kwargs": {"date": "today"}, "tools": [{"name": "b"}]},
        {"chat_template_kwargs": None, "tools": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert values(tmp_path / "a.parquet") == rows
