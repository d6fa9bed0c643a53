"""Formats of several rows, id tables and soft labels through the data stages; each row is accounted for."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rewardline.core.errors import UserError

from support.data_stages import build, pairs, tokenize, write_rows

Json = dict[str, Any]


def labelled(prompt: int, *labels: bool) -> list[Json]:
    return [
        {"prompt": f"question {prompt}", "completion": f"answer {prompt} {k}", "label": label}
        for k, label in enumerate(labels)
    ]


def reasons(folder: Path) -> dict[str, int]:
    return dict(pd.read_parquet(folder / "pairs" / "m" / "rejects.parquet").reason.value_counts())


def test_labelled_answers_are_grouped_across_files_and_each_row_is_counted(tmp_path: Path) -> None:
    data = [row for k in range(30) for row in labelled(k, True, False, False)]
    data += [row for k in range(30, 35) for row in labelled(k, True)]
    data += [{"prompt": "q", "completion": None, "label": True}]
    files = [write_rows(tmp_path / f"{k}.jsonl", data[k::3]) for k in range(3)]
    stats = build(tmp_path, {"a": files}, {"a": {"format": "labelled"}}, shards=2)
    assert stats["pairs_out"] == 60
    assert (stats["rows_in"], stats["rows_used"]) == (96, 90)
    assert stats["rejects"] == {"not_text": 1, "one_sided": 5}
    assert reasons(tmp_path) == stats["rejects"]
    assert all(row["chosen"].endswith(" 0") for row in pairs(tmp_path, "train"))


def test_labelled_answers_in_files_converted_apart_are_refused(tmp_path: Path) -> None:
    rows = [row for k in range(9) for row in labelled(k, True, False)]
    files = [write_rows(tmp_path / f"{k}.jsonl", rows) for k in range(2)]
    shape = {"a": {"fields": {"answer": "completion", "label": "label"}}}
    with pytest.raises(UserError, match="set `format: labelled`"):
        build(tmp_path, {"a": files}, shape)


def test_votes_become_soft_labels_that_reach_the_tokens(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    data = [
        {"prompt": f"question {k}", "answer_a": f"one {k}", "answer_b": f"two {k}", "preference": label}
        for k in range(20)
        for label in "aab"
    ]
    stats = build(tmp_path, {"a": data}, {"a": {"format": "votes"}}, eval_fraction=0.2)
    assert (stats["rows_used"], stats["pairs_out"], stats["soft_labels"]) == (60, 20, 20)
    train = tokenize(tmp_path, base_models("llama"))
    assert {pair.confidence for k in range(len(train)) for pair in train[k].pairs} == {2 / 3}


def test_ids_are_joined_to_their_texts(tmp_path: Path) -> None:
    texts = [{"id": k, "text": f"text {k}"} for k in range(12)]
    data = [{"prompt": f"q {k}", "one": k, "two": k + 1, "preference": "one"} for k in range(12)]
    join = {path: {"dataset": "texts", "key": "id", "value": "text"} for path in ("one", "two")}
    fields = {"answer_a": "one", "answer_b": "two", "preference": "preference"}
    shape = {"a": {"join": join, "fields": fields, "values": {"first": "one"}}}
    stats = build(tmp_path, {"a": data}, shape, tables={"texts": texts})
    assert stats["by_dataset"]["a"]["format"] == "preference"
    assert stats["rejects"] == {"unknown_id": 1}
    assert {(row["chosen"], row["rejected"]) for split in ("train", "eval") for row in pairs(tmp_path, split)} == {
        (f"text {k}", f"text {k + 1}") for k in range(11)
    }
    left = pd.read_parquet(tmp_path / "pairs" / "m" / "rejects.parquet")
    assert left.row.tolist() == [12]


def test_kept_ties_are_for_training_alone(tmp_path: Path) -> None:
    data = [
        {"prompt": f"question {k}", "response_a": f"one {k}", "response_b": f"two {k}", "winner": ("a", "tie")[k % 2]}
        for k in range(200)
    ]
    stats = build(tmp_path, {"a": data}, {"a": {"ties": "keep"}}, eval_fraction=0.3)
    assert set(stats["rejects"]) == {"tie"}
    assert stats["pairs_out"] + stats["rejects"]["tie"] == 200
    assert {row["confidence"] for row in pairs(tmp_path, "train")} == {0.5, 1.0}
    assert {row["confidence"] for row in pairs(tmp_path, "eval")} == {1.0}


def test_real_labelled_answers(tmp_path: Path, shared_data: Path) -> None:
    found = sorted((shared_data / "llamafactory_demo").rglob("*kto*"))
    if not found:
        pytest.skip("no labelled answers at hand")
    content = found[0].read_bytes()
    text = (gzip.decompress(content) if found[0].suffix == ".gz" else content).decode()
    data = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
    other = [{"prompt": "p", "chosen": "c", "rejected": "r"}]
    stats = build(tmp_path, {"a": data}, {"a": {"format": "labelled"}}, benchmarks={"t": other}, eval_fraction=0.0)
    assert stats["rows_used"] == 2 * stats["pairs_out"] > 0
    assert stats["rows_in"] == len(data) == stats["rows_used"] + sum(stats["rejects"].values())
