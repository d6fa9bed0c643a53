"""Lines that orjson reads give the rows that the standard library gives, or are left to it."""

import json
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardline.data.sources.rows import Row, as_row, decode, parse, plain_row

STRINGS = st.lists(
    st.sampled_from([
        *("a", "é", "\U0001f600", "\u2028", "\x7f", "/", r"\/", r"\n", r"\"", r"\\", r"\u0000", r"\\u0000", r"\u00e9"),
        *(r"\ud83d\ude00", r"\ud800", "\t", "'", ":", ","),
    ]),
    max_size=4,
).map(lambda parts: '"' + "".join(parts) + '"')  # fmt: skip
KEYS = st.sampled_from(['"a"', '"b"', r'"\u0061"', r'"a\""', '"é"', '""'])
NUMBERS = st.sampled_from([
    *("0", "-0", "1", "-7", "0.1", "-0.0", "1.50", "1e5", "1E-3", "0.0001", "0.00001", "1e15", "1e16", "1e22", "1e400"),
    *("9007199254740993", "123456789012345678", "18446744073709551615", "18446744073709551616", "NaN", "-Infinity"),
    *("-9223372036854775808", "-9223372036854775809", "01", "1."),
])  # fmt: skip
GAPS = st.sampled_from(["", "", " ", "\t ", "\n"])


def joined(brackets: str, items: list[str], gap: str) -> str:
    return brackets[0] + gap + f"{gap},{gap}".join(items) + gap + brackets[1]


def containers(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    entries = st.tuples(KEYS, GAPS, values).map(lambda entry: f"{entry[0]}{entry[1]}:{entry[1]}{entry[2]}")
    return st.one_of(
        st.builds(joined, st.just("{}"), st.lists(entries, max_size=4), GAPS),
        st.builds(joined, st.just("[]"), st.lists(values, max_size=3), GAPS),
    )


LINES = st.recursive(STRINGS | NUMBERS | st.sampled_from(["null", "true", "false", "x"]), containers, max_leaves=8)


def expected(line: str) -> Row | None:
    """The row as the standard library reads it; None if it does not."""
    try:
        return as_row(3, decode(line))
    except (ValueError, RecursionError):
        return None


@given(containers(LINES))
def test_a_line_gives_the_same_row_or_is_left_to_the_standard_library(line: str) -> None:
    found = plain_row(3, line.encode())
    if found is not None:
        row = expected(line)
        assert row is not None
        assert (repr(found.value), found) == (repr(row.value), row)
        assert found.record == json.dumps(found.value, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize("depth", [10, 900, 1100, 50_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deep_lines_are_left_to_the_standard_library(depth: int, opening: str, closing: str) -> None:
    line = '{"a":' + opening * depth + "1" + closing * depth + "}"
    assert plain_row(3, line.encode()) in (None, expected(line))


@pytest.mark.parametrize(("key", "escaped"), list(product(["a", "é", 'q"'], [True, False])))
def test_no_key_is_lost(key: str, escaped: bool) -> None:
    name = json.dumps(key, ensure_ascii=escaped)
    for line in (
        f'{{{name}: "x", {name}: "x"}}',
        f'{{"b": [{{{name}: 1, {name}: 1}}]}}',
        f'{{{name}:"\\\\",{name}:""}}',
    ):
        assert plain_row(1, line.encode()) is None
        row = expected(line)
        assert row is not None
        assert row.error is not None and "duplicate key" in row.error


@given(st.dictionaries(st.text(max_size=3), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=6,
), max_size=4))  # fmt: skip
def test_records_are_parsed_and_written_as_by_the_standard_library(value: dict[str, object]) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert repr(parse(text)) == repr(value)
    row = as_row(1, value)
    if row.error is None and not row.replaced:
        assert row.record == json.dumps(value, ensure_ascii=False, separators=(",", ":"))
