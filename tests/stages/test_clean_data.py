"""Planted duplicates, leaks, ties and contradictions through the data stages; shards that change nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from rewardline.data.pairs import cleaning, grouping, mixture
from rewardline.data.pairs.manifests import MixtureStatistics

from support.data_stages import build, pairs, prompts, tokenize, write_rows

Json = dict[str, Any]
WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "r", "s", "l", "t", "nd")]


def sentence(seed: int, words: int = 24) -> str:
    rng = np.random.default_rng(seed)
    return " ".join(WORDS[k] for k in rng.integers(len(WORDS), size=words))


def rows(count: int, start: int = 0) -> list[Json]:
    return [
        {"prompt": sentence(3 * k), "chosen": sentence(3 * k + 1), "rejected": sentence(3 * k + 2)}
        for k in range(start, start + count)
    ]


def content(folder: Path, split: str) -> list[Json]:
    """The pairs of a split without where they come from."""
    return [{key: value for key, value in row.items() if key not in ("file", "row")} for row in pairs(folder, split)]


def reasons(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "pairs" / "m" / "rejects.parquet")


def test_planted_cases_are_found_and_the_rows_add_up(tmp_path: Path) -> None:
    good = rows(100)
    planted: list[tuple[str, Json]] = [
        ("duplicate", dict(good[3])),
        ("duplicate", {**good[4], "prompt": good[4]["prompt"].upper() + " ?!", "chosen": good[4]["chosen"].title()}),
        ("near_duplicate", {**good[5], "prompt": good[5]["prompt"] + " please", "chosen": good[5]["chosen"] + "."}),
        ("contradiction", {**good[6], "chosen": good[6]["rejected"], "rejected": good[6]["chosen"]}),
        ("identical", {**good[7], "chosen": good[7]["rejected"]}),
        ("empty_answer", {**good[8], "chosen": "  "}),
        ("not_text", {**good[9], "chosen": 7}),
        ("not_text", {**good[10], "rejected": None}),
        ("not_text", {**good[11], "rejected": True}),
    ]
    stats = build(tmp_path, {"a": [*good, *(row for _, row in planted)]})
    expected = {reason: sum(r == reason for r, _ in planted) for reason, _ in planted}
    expected["contradiction"] += 1  # both go
    assert stats["rejects"] == dict(sorted(expected.items()))
    assert stats["rows_in"] == 109 == stats["rows_used"] + sum(stats["rejects"].values())
    assert stats["pairs_out"] == 99 == stats["train"] + stats["eval"]
    table = reasons(tmp_path)
    assert dict(table.reason.value_counts()) == expected
    assert set(table[table.reason == "not_text"].row) == {107, 108, 109}
    assert len(pairs(tmp_path, "train")) == stats["train"]
    typed = MixtureStatistics.read(tmp_path / "pairs" / "m" / "stats.json")
    sealed = {name: stats.pop(name) for name in ("xxh3", "manifest_hash", "manifest_path")}
    assert (typed.as_json(), typed.xxh3) == (stats, sealed["xxh3"])


def test_near_duplicates_of_a_prompt_are_on_one_side(tmp_path: Path) -> None:
    first, second = rows(150), rows(150)
    for k, row in enumerate(second):
        words = row["prompt"].split()
        row["prompt"] = " ".join([*words[:-1], "changed"]) if k % 2 else f"so {row['prompt']}"
        row["chosen"], row["rejected"] = sentence(9000 + k), sentence(8000 + k)
    stats = build(tmp_path, {"a": first, "b": second}, eval_fraction=0.3, near_duplicates=0.75)
    assert stats["pairs_out"] == 300
    assert stats["similar_prompts"]["groups"] > 140
    groups = json.loads((tmp_path / "prompts" / "manifest.json").read_text())["groups"]
    assert groups == stats["similar_prompts"]
    sides: dict[str, set[str]] = {}
    for split in ("train", "eval"):
        for text in prompts(tmp_path, split):
            sides.setdefault(" ".join(text.removeprefix("so ").split()[:20]), set()).add(split)
    assert sum(len(found) > 1 for found in sides.values()) <= 150 - stats["similar_prompts"]["groups"]


def test_prompts_of_benchmarks_are_not_trained_on(tmp_path: Path) -> None:
    data, test = rows(60), rows(6, start=500)
    leaks = [
        {**data[0], "prompt": test[0]["prompt"]},
        {**data[1], "prompt": test[1]["prompt"].title() + "!"},
        {**data[2], "prompt": test[2]["prompt"] + " now"},
        {**data[3], "prompt": f"{sentence(1, 30)} {' '.join(test[3]['prompt'].split()[:17])}"},
        {**data[59], "prompt": f"{sentence(1, 30)} {test[5]['prompt']} {sentence(2, 30)}"},
    ]
    fine = {**data[4], "prompt": " ".join(test[4]["prompt"].split()[:8]) + " " + sentence(3, 30)}
    stats = build(tmp_path, {"a": [*data[5:59], *leaks, fine]}, benchmarks={"t": test}, eval_fraction=0.0)
    assert stats["rejects"] == {"in_benchmark": 5}
    details = reasons(tmp_path).detail.tolist()
    assert sum("is in t" in text for text in details) == 2
    assert sum("nearly the same" in text for text in details) == 2
    assert sum("runs of 8 words" in text for text in details) == 1
    loose = build(
        tmp_path / "l", {"a": leaks}, None, {"t": test}, eval_fraction=0.0, decontamination=None, near_duplicates=None
    )
    assert loose["rejects"] == {"in_benchmark": 2}


def test_caps_and_weights_take_training_prompts_alone(tmp_path: Path) -> None:
    data = {"a": rows(300), "b": rows(300, start=1000)}
    everything = build(tmp_path / "everything", data, eval_fraction=0.2)
    weights = {"a": {"weight": 3.0, "cap": 50}, "b": 0.5}
    stats = build(tmp_path / "some", data, weights=weights, eval_fraction=0.2)
    assert stats["eval"] == everything["eval"]
    left_out = {name: facts["rejects"] for name, facts in stats["by_dataset"].items()}
    assert set(left_out["a"]) == {"over_cap"}
    assert set(left_out["b"]) == {"not_sampled"}
    train = pd.DataFrame(pairs(tmp_path / "some", "train"))
    assert 30 < (train.dataset == "a").sum() <= 50
    assert set(train[train.dataset == "a"].weight) == {3.0}
    assert 90 < (train.dataset == "b").sum() < 150


def test_shards_and_parts_change_nothing(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    data = rows(400)
    data += [{**row, "prompt": row["prompt"] + " please"} for row in data[:60]]
    data += [
        {"prompt": row["prompt"], "chosen": sentence(k), "rejected": sentence(k + 1)} for k, row in enumerate(data[:30])
    ]
    data += [{"prompt": 5, "chosen": "a", "rejected": "b"}] * 3
    one = build(tmp_path / "one", {"a": data}, eval_fraction=0.2)
    files = [write_rows(tmp_path / f"{k}.jsonl", data[100 * k : 100 * k + 100]) for k in range(5)]
    three = build(tmp_path / "three", {"a": files}, eval_fraction=0.2, shards=3)
    for stats in (one, three):
        stats.pop("parts")
        stats.pop("xxh3")
        stats.pop("manifest_hash")
        stats.pop("reject_examples")
    assert one == three
    base = base_models("llama")
    for split in ("train", "eval"):
        assert content(tmp_path / "one", split) == content(tmp_path / "three", split)
        tokens = [tokenize(tmp_path / name, base, split, max_length=256) for name in ("one", "three")]
        assert len(tokens[0]) == len(tokens[1]) > 0
        for index in range(len(tokens[0])):
            first, second = (data[index] for data in tokens)
            assert first.prefix.tolist() == second.prefix.tolist()
            assert [tail.tolist() for tail in first.tails] == [tail.tolist() for tail in second.tails]
            assert (first.prompt_id, first.pairs, first.answer_start) == (
                second.prompt_id,
                second.pairs,
                second.answer_start,
            )
    counts = [json.loads((tmp_path / name / "tokens" / "manifest.json").read_text()) for name in ("one", "three")]
    for manifest in counts:
        manifest.pop("xxh3")
        manifest.pop("manifest_hash")
        manifest.pop("manifest_path")
        for entry in manifest["splits"].values():
            entry.pop("shards")
    assert counts[0] == counts[1]


def test_a_restart_finds_its_work_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(**options: Any) -> Json:
        return build(tmp_path, {"a": rows(60)}, benchmarks={"t": rows(5, 90)}, shards=2, **options)

    first = run()
    outputs = [*tmp_path.glob("prompts/manifest.json"), *tmp_path.glob("shards/*/manifest.json")]
    outputs.append(tmp_path / "pairs" / "m" / "stats.json")
    contents = [path.read_bytes() for path in outputs]
    assert len(contents) == 4
    with monkeypatch.context() as patch:
        for module, function in ((grouping, "group_prompts"), (cleaning, "clean_shard"), (mixture, "build")):
            patch.setattr(module, function, Mock(side_effect=RuntimeError("computed again")))
        for path in outputs:
            path.unlink()
        assert run() == first
        assert [path.read_bytes() for path in outputs] == contents
        with pytest.raises(RuntimeError, match="computed again"):
            run(eval_fraction=0.5)
    assert run(eval_fraction=0.5)["eval"] > first["eval"]


def test_rows_that_give_pairs_to_several_shards_count_once(tmp_path: Path) -> None:
    data = [
        {"prompt": sentence(k), "answers": [sentence(k + 1), sentence(k + 2), sentence(k + 3)]}
        for k in range(0, 200, 4)
    ]
    data.append({**data[0], "answers": [*data[0]["answers"], sentence(77777)]})
    stats = build(tmp_path, {"a": data}, {"a": {"format": "ranked"}}, shards=3)
    assert stats["rows_used"] == 51 == stats["rows_in"]
    assert stats["pair_rejects"] == {"duplicate": 3}
    assert stats["pairs_out"] == 50 * 3 + 3


@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_max_reject_fraction_counts_over_all_files(tmp_path: Path, fraction: float) -> None:
    bad = [{"prompt": "p", "chosen": "a", "rejected": "a"}] * 20
    files = [write_rows(tmp_path / "a.jsonl", rows(80)), write_rows(tmp_path / "b.jsonl", [*rows(5, 200), *bad])]
    if fraction:
        assert build(tmp_path, {"a": files}, max_reject_fraction=fraction)["rejects"] == {"identical": 20}
    else:
        with pytest.raises(Exception, match="20 of 105 rows are unusable"):
            build(tmp_path, {"a": files}, max_reject_fraction=fraction)
