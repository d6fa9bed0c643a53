"""What any stage loses or changes counts against one bound, and is a line of the final summary."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardline.core.errors import UserError
from rewardline.data.pairs import left_out
from rewardline.data.pairs.left_out import Loss
from rewardline.report.summary import account

from support.data_stages import build, pairs, tokenize

Json = dict[str, Any]
REFUSING = (
    "{% for m in messages %}{% if 'tool' in m.content %}{{ raise_exception('no tools') }}{% endif %}"
    "{{ m.content }}\n{% endfor %}"
)


def rows(count: int, word: str = "plain", start: int = 0) -> list[Json]:
    return [
        {"prompt": f"{word} question {k}", "chosen": f"good {k}", "rejected": f"bad {k}"}
        for k in range(start, start + count)
    ]


def lines(folder: Path) -> str:
    """The account of the final summary, on lines that are not broken."""
    return account([folder / "pairs" / "m" / "stats.json"], sorted(folder.glob("tokens/manifest.json")), [], width=500)


def test_pairs_that_a_template_refuses_count_against_the_bound(
    tmp_path: Path, base_models: Callable[..., Path]
) -> None:
    build(tmp_path, {"a": rows(8) + rows(32, "tool")}, eval_fraction=0.2, near_duplicates=None)
    shape: Json = {"template": "chat", "chat_template": REFUSING}
    with pytest.raises(UserError, match=r"32 of 40 pairs cannot be tokenized \(template_refused 32\)") as error:
        tokenize(tmp_path, base_models(), max_reject_fraction=0.2, **shape)
    assert "a.jsonl:" in str(error.value) and "the chat template refuses it: no tools" in str(error.value)
    assert not (tmp_path / "tokens").exists()
    tokenize(tmp_path, base_models(), max_reject_fraction=0.8, **shape)
    assert "lost as tokens of" in lines(tmp_path)
    assert "32 of 40 pairs (template_refused 32)" in lines(tmp_path)


def test_losses_of_all_stages_count_together(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    """15 of 100 rows and 9 of the other 85 pairs: each is allowed, 24% in all is not."""
    data = rows(76) + rows(9, "tool") + [{**row, "chosen": None} for row in rows(15, "empty")]
    build(tmp_path, {"a": data}, eval_fraction=0.2, near_duplicates=None, max_reject_fraction=0.2)
    with pytest.raises(UserError, match=r"15 of 100 rows .*; 9 of 85 pairs .*, 24.0% in all, more than"):
        tokenize(tmp_path, base_models(), max_reject_fraction=0.2, template="chat", chat_template=REFUSING)
    tokenize(tmp_path, base_models(), max_reject_fraction=0.24, template="chat", chat_template=REFUSING)


def test_answers_that_are_lost_of_rows_with_several_count_too(tmp_path: Path) -> None:
    data = [{"prompt": f"q {k}", "answers": ["a", "b", None], "scores": [2, 1, 0]} for k in range(20)]
    with pytest.raises(UserError, match=r"20 of 40 pairs of rows with several are unusable \(\w+ 20\)"):
        build(tmp_path, {"a": data}, {"a": {"format": "ranked"}}, max_reject_fraction=0.4)
    stats = build(tmp_path, {"a": data}, {"a": {"format": "ranked"}}, max_reject_fraction=0.5, near_duplicates=None)
    assert stats["rows_used"] == 20
    assert "lost 20 more pairs of rows that are used" in lines(tmp_path)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), max_size=5), st.floats(0, 1))
def test_the_bound_is_on_what_is_left_of_one_thing_on_its_whole_way(
    shares: list[tuple[int, int]], limit: float
) -> None:
    losses = [Loss({"bad": min(lost, total)}, total, "rows") for lost, total in shares]
    kept = 1.0
    for loss in losses:
        kept *= 1 - loss.lost / loss.total
    if abs(1 - kept - limit) > 1e-6:
        if 1 - kept > limit or kept == 0:
            with pytest.raises(UserError):
                left_out.check("m", "d", losses, limit, [], "Fix it")
        else:
            left_out.check("m", "d", losses, limit, [], "Fix it")


def test_a_bound_is_met_exactly() -> None:
    for tenths in range(10):
        left_out.check("m", "d", [Loss({"bad": tenths}, 10, "rows")], tenths / 10, [], "Fix it")


def test_one_broken_line_of_many_is_said(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    text = "".join(f'{{"prompt": "q {k}", "chosen": "good {k}", "rejected": "bad {k}"}}\n' for k in range(200))
    (tmp_path / "in" / "a.jsonl").write_text(text + "{broken\n")
    build(tmp_path, {"a": [str(tmp_path / "in" / "a.jsonl")]}, near_duplicates=None, eval_fraction=0.2)
    assert "m: lost 1 of 201 rows (unreadable 1)" in lines(tmp_path)


def test_what_is_not_read_of_rows_is_said(tmp_path: Path) -> None:
    data = [row | {"images": ["a.png"]} for row in rows(20)]
    build(tmp_path, {"a": data}, near_duplicates=None)
    assert "a: images are not read: only text is" in lines(tmp_path)


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_second_header_is_no_pair(tmp_path: Path, suffix: str) -> None:
    sign = {"csv": ",", "tsv": "\t"}[suffix]
    header = sign.join(["prompt", "chosen", "rejected"]) + "\n"
    tables = [header + "".join(sign.join(row.values()) + "\n" for row in rows(9, "q", 9 * k)) for k in range(3)]
    path = tmp_path / f"joined.{suffix}"
    path.write_text(tables[0] + tables[1] + "\ufeff" + tables[2], encoding="utf-8")
    stats = build(tmp_path, {"a": [str(path)]}, near_duplicates=None)
    assert (stats["pairs_out"], stats["rejects"]) == (27, {"unreadable": 2})
    assert "repeats the names of the columns" in stats["reject_examples"][0]["detail"]


MARGINS = ["1.5", "0.25", "2", "0", "1e-05", " 3.5 "]


def test_a_margin_is_read_whatever_the_type_of_its_column(tmp_path: Path) -> None:
    given_ = rows(len(MARGINS))
    typed: dict[str, list[Any]] = {
        "number": [float(text) for text in MARGINS],
        "decimal": [Decimal(text.strip()).quantize(Decimal("0.000001")) for text in MARGINS],
        "text": MARGINS,
    }
    files = {}
    for name, values in typed.items():
        table = pa.table({key: [row[key] for row in given_] for key in given_[0]} | {"margin": values})
        files[name] = tmp_path / f"{name}.parquet"
        pq.write_table(table, files[name])
    files["cells"] = tmp_path / "cells.csv"
    cells = [",".join([*row.values(), margin]) for row, margin in zip(given_, MARGINS, strict=True)]
    files["cells"].write_text("\n".join(["prompt,chosen,rejected,margin", *cells]))
    for name, path in files.items():
        folder = tmp_path / name
        build(folder, {"a": [str(path)]}, near_duplicates=None, eval_fraction=0.2)
        found = {
            row["prompt"][0]["content"]: row["margin"] for split in ("train", "eval") for row in pairs(folder, split)
        }
        expected = {row["prompt"]: float(margin) for row, margin in zip(given_, MARGINS, strict=True)}
        assert found == pytest.approx(expected), name


def test_a_margin_that_says_no_number_is_counted(tmp_path: Path) -> None:
    words = ["slightly better", "much better", "", None, 1.5, [2]]
    data = [{**row, "margin": word} for row, word in zip(rows(6), words, strict=True)]
    stats = build(tmp_path, {"a": data}, near_duplicates=None)
    assert stats["pairs_out"] == 6
    assert "m: margin ignored, as it is not a number, in 3 rows" in lines(tmp_path)


def test_what_the_split_held_out_is_said_beside_what_was_asked_for(tmp_path: Path) -> None:
    """Prompts that are nearly the same stay together, so that more of them are held out."""
    text = "Now tell me about the many hills of the old and quiet town number"
    data = [{**row, "prompt": f"{text} {k % 10} please {k}"} for k, row in enumerate(rows(60))]
    stats = build(tmp_path, {"a": data}, eval_fraction=0.2)
    share = stats["held_out"]["prompts"] / stats["held_out"]["of"]
    assert stats["held_out"]["of"] == 60 and share != 0.2
    assert f"{share:.1%} of the prompts are held out, eval_fraction is 20.0%" in lines(tmp_path)


def test_what_settings_leave_out_is_said_apart_from_what_is_lost(tmp_path: Path) -> None:
    data = [*rows(10), *rows(3), {"prompt": "p", "chosen": "a", "rejected": ""}]
    build(tmp_path, {"a": data}, eval_fraction=0.2, near_duplicates=None)
    assert "m: lost 1 of 14 rows (empty_answer 1)" in lines(tmp_path)
    assert "m: left out as the settings ask 3 of 14 rows (duplicate 3)" in lines(tmp_path)


def test_text_that_a_template_changes_is_said(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    data = [{**row, "chosen": f"<think>Hm.</think>{row['chosen']}"} for row in rows(12)] + rows(28, start=12)
    build(tmp_path, {"a": data}, eval_fraction=0.2, near_duplicates=None)
    template = "{% for m in messages %}{{ m.content.split('</think>') | last }}\n{% endfor %}"
    tokenize(tmp_path, base_models(), template="chat", chat_template=template)
    assert "leaves out or changes text of the answer in 12 of 40 pairs, such as reasoning" in lines(tmp_path)
