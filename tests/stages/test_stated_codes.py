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


@pytest.mark.parametrize("first", [1, 2])
def test_files_in_which_one_number_occurs_are_read_as_the_others(tmp_path: Path, first: int) -> None:
    data = pd.DataFrame(rows([first] * 12 + [1, 2] * 6 + [3 - first] * 12))
    paths = [str(tmp_path / name) for name in ("a.csv", "b.parquet", "c.jsonl")]
    data[:12].to_csv(paths[0], index=False)
    data[12:24].astype({"label": float}).to_parquet(paths[1])
    data[24:].to_json(paths[2], orient="records", lines=True)
    assert build(tmp_path, {"a": paths})["pairs_out"] == 36
    for pair in pairs(tmp_path, "train") + pairs(tmp_path, "eval"):
        word, number = pair["chosen"].split()
        assert word == ("one", "two")[data.label[int(number)] - 1]
    more = write_rows(tmp_path / "d.jsonl", rows([1, 0]))
    with pytest.raises(UserError, match=r"its format is not clear: .*for what label holds \(0, 1, 2\)"):
        build(tmp_path, {"a": [*paths, more]})


def test_the_number_of_the_best_answer_counts_from_the_same_number_in_all_files(tmp_path: Path) -> None:
    def chosen(files: list[list[int]]) -> set[str]:
        folder = tmp_path / "".join(f"{best}" for file in files for best in file)
        made, count = [], 0
        for k, file in enumerate(files):
            answers = [
                {"prompt": f"question {count + n}", "answers": ["A", "B", "C"], "best": b} for n, b in enumerate(file)
            ]
            made.append(write_rows(folder / f"{k}.jsonl", answers))
            count += len(file)
        build(folder, {"a": made}, {"a": {"pairing": "best_worst"}})
        return {pair["chosen"] for split in ("train", "eval") for pair in pairs(folder, split)}

    assert chosen([[1, 1, 1], [0, 0, 0], [2]]) == {"A", "B", "C"}
    assert chosen([[1, 1, 1], [2, 2, 2], [3]]) == {"A", "B", "C"}


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
