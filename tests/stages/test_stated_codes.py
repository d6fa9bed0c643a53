"""What numbers mean is decided by the first rows of a dataset; a later row that contradicts it stops the stage."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rewardline.core.errors import UserError

from support.data_stages import build, pairs, write_rows

Json = dict[str, Any]


def rows(labels: list[Any]) -> list[Json]:
    return [
        {"prompt": f"question {n}", "response_1": f"one {n}", "response_2": f"two {n}", "label": label}
        for n, label in enumerate(labels)
    ]


def test_a_late_number_stops_the_stage(tmp_path: Path) -> None:
    late = rows([1, 2] * 30 + [0])
    with pytest.raises(UserError, match=r"b\.jsonl:61: who won by '0'\? set `values: .*first 50 rows have no such"):
        build(tmp_path, {"a": rows([1, 2] * 5)}, benchmarks={"b": late})
    stats = build(tmp_path, {"a": late}, {"a": {"values": {"first": 1, "second": 2}}})
    assert stats["rejects"] == {"unknown_code": 1} and stats["pairs_out"] == 60


def test_numbers_are_decided_once_and_read_the_same_everywhere(tmp_path: Path) -> None:
    stats = build(tmp_path, {"a": rows([1, 2, "tie"] * 20)})
    assert stats["pairs_out"] == 40 and stats["rejects"] == {"tie": 20}
    for pair in pairs(tmp_path, "train"):
        word, number = pair["chosen"].split()
        assert word == ("one", "two")[int(number) % 3]


@pytest.mark.parametrize("settings", [{}, {"format": "preference"}], ids=str)
def test_numbers_that_may_mean_anything_stop_the_stage(tmp_path: Path, settings: Json) -> None:
    with pytest.raises(UserError, match=r"is not clear: .*a\.jsonl:1 has the keys .*values: {first: \.\.\."):
        build(tmp_path, {"a": rows([0] * 5 + [1] * 50)}, {"a": settings})


def test_rows_that_where_leaves_out_are_counted(tmp_path: Path) -> None:
    data = [row | {"split": ("val", "train", "Test")[n % 3], "k": n % 2} for n, row in enumerate(rows([1, 2] * 90))]
    where = {"split": ["train", "test"], "k": "1"}
    settings = {"a": {"where": where, "values": {"first": 1, "second": 2}}}
    stats = build(tmp_path, {"a": data}, settings)
    assert stats["pairs_out"] == 60 and stats["rejects"] == {"filtered": 120}
    rejects = pd.read_parquet(tmp_path / "pairs" / "m" / "rejects.parquet")
    assert rejects.detail[rejects.row == 1].item() == "k is '0'"
    with pytest.raises(UserError, match="passes `where`"):
        build(tmp_path / "none", {"a": data}, {"a": {"where": {"split": "other"}}})


def test_messages_in_the_cells_of_a_table(tmp_path: Path) -> None:
    def talk(n: int, text: str) -> list[Json]:
        return [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": f"it's {text} {n}"}]

    for name, write in (("json", json.dumps), ("python", str)):
        table = [{"chosen": write(talk(n, "good")), "rejected": write(talk(n, "bad"))} for n in range(20)]
        path = tmp_path / f"{name}.csv"
        pd.DataFrame(table).to_csv(path, index=False)
        build(tmp_path / name, {"a": [str(path)]})
        found = pairs(tmp_path / name, "train") + pairs(tmp_path / name, "eval")
        assert {pair["chosen"] for pair in found} == {f"it's good {n}" for n in range(20)}


def test_a_bad_cell_costs_what_reads_it(tmp_path: Path) -> None:
    table = [{"prompt": f"question {n}", "answers": '["A", "B"]', "scores": "[1, 2]", "tags": "[]"} for n in range(70)]
    table[60]["tags"] = "none"
    table[61]["scores"] = "1 and 2"
    pd.DataFrame(table).to_csv(tmp_path / "a.csv", index=False)
    stats = build(tmp_path, {"a": [str(tmp_path / "a.csv")]})
    assert stats["rows_used"] == 69 and sum(stats["rejects"].values()) == 1


def test_a_file_may_have_brackets_in_its_name(tmp_path: Path) -> None:
    build(tmp_path, {"a": [write_rows(tmp_path / "data[1].jsonl", rows([1, 2] * 5))]})
