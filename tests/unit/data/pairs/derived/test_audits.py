"""Folds of an audit, and the mixtures that are made of what it finds."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import relabel_pairs
import split_fold
from rewardline.core.errors import UserError
from rewardline.data.parquet import read_rows
from rewardline.report.summary import account

from support.data_stages import build

Json = dict[str, Any]
TOPICS = ("rivers", "trains", "bread", "stars", "whales", "clocks", "violins", "moss", "tides", "chalk")


def rows(count: int) -> list[Json]:
    """Two pairs of each prompt, and of each prompt a twin that is nearly the same."""
    made = []
    for k in range(count):
        topic = f"{TOPICS[k % 10]} number {k} of the long list that {TOPICS[k // 10 % 10]} and {k * 7919} begin"
        for prompt in (f"Tell me about {topic}.", f"Tell me about {topic}, please."):
            made += [{"prompt": prompt, "chosen": f"good {j} {k}", "rejected": f"bad {j} {k}"} for j in (0, 1)]
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audited")
    build(folder, {"d": rows(60)}, eval_fraction=0.2)
    return folder


def fold(folder: Path, out: Path, number: int, folds: int = 3) -> dict[str, list[Json]]:
    settings = json.dumps({"audit": "a", "number": number, "folds": folds})
    options = ["--pairs", str(folder / "pairs" / "m"), "--prompts", str(folder / "prompts")]
    written = ["--shard", str(out / "shard"), "--output", str(out / "pairs")]
    assert split_fold.main(["--name", f"a-fold{number}", "--settings", settings, *options, *written]) == 0
    found = {split: list(read_rows(out / "pairs" / split)) for split in ("train", "eval")}
    assert found == {split: list(read_rows(out / "shard" / split)) for split in found}
    return found


def test_each_training_pair_is_held_out_by_one_fold_without_its_twins(folder: Path, tmp_path: Path) -> None:
    train = list(read_rows(folder / "pairs" / "m" / "train"))
    held: Counter[Any] = Counter()
    for number in range(3):
        found = fold(folder, tmp_path / str(number), number)
        held.update(row["pair_id"] for row in found["eval"])
        assert {row["pair_id"] for row in (*found["train"], *found["eval"])} == {row["pair_id"] for row in train}
        numbers = [
            {str(row["prompt"][0]["content"]).split("number ")[1].split()[0] for row in found[split]} for split in found
        ]
        assert not numbers[0] & numbers[1], "prompts that are nearly the same are in one fold"
    assert held == Counter(row["pair_id"] for row in train)


def test_folds_of_too_few_prompts_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"audits\.a\.folds: of .* fold \d+ of 40 has \d; at least 10 .* Lower `folds`"):
        fold(folder, tmp_path, 0, folds=40)
    assert not (tmp_path / "pairs").exists()


def test_folds_count_the_prompts_of_labels_to_judge(tmp_path: Path) -> None:
    pairs = [{"prompt": f"Is {k * 7919} prime?", "chosen": f"Yes {k}.", "rejected": f"No {k}."} for k in range(4)]
    equal = [{"prompt": f"Was {k * 104729} odd?", "response_a": "A.", "response_b": f"B {k}.", "preference": "tie"}
             for k in range(30)]  # fmt: skip
    rated = [{"prompt": f"And is {k * 1299709} even?", "answer": f"Rated {k}.", "rating": k % 2} for k in range(60)]
    shapes: Json = {"r": {"format": "rated"}, "t": {"format": "preference", "ties": "keep"}}
    training = {"objective": {"type": "binary"}}
    build(tmp_path, {"d": pairs, "r": rated, "t": equal}, shapes, training=training, eval_fraction=0.01)
    with pytest.raises(
        UserError, match=r"folds: of [1-4] training prompts with labels to judge \(pairs that are no ties\)"
    ):
        fold(tmp_path, tmp_path / "out", 0, folds=2)


def relabeled(folder: Path, out: Path, probability: Mapping[Any, float | None], **settings: Any) -> Json:
    values = pa.array(probability.values(), pa.float64())
    labels = pa.table({"pair_id": list(probability), "probability": values})
    out.mkdir()
    pq.write_table(labels, out / "labels.parquet")
    own = json.dumps({"audit": "a", **settings})
    options = ["--pairs", str(folder / "pairs" / "m"), "--labels", str(out / "labels.parquet")]
    written = ["--shard", str(out / "shard"), "--output", str(out / "pairs")]
    assert relabel_pairs.main(["--name", "clean", "--settings", own, *options, *written]) == 0
    stats: Json = json.loads((out / "pairs" / "stats.json").read_text())
    return stats


def test_doubted_labels_are_dropped_flipped_or_softened_and_kept_aside(folder: Path, tmp_path: Path) -> None:
    before: dict[Any, Json] = {row["pair_id"]: row for row in read_rows(folder / "pairs" / "m" / "train")}
    held_out = list(read_rows(folder / "pairs" / "m" / "eval"))
    surest, likely, unlikely, *rest = before
    probability = {**dict.fromkeys(rest, 0.01), surest: 0.95, likely: 0.6, unlikely: 0.3, held_out[0]["pair_id"]: 0.99}
    counts = json.loads((folder / "pairs" / "m" / "stats.json").read_text())
    for action, below, changed in (
        ("drop", 0.5, [surest, likely]),
        ("flip", 0.1, [surest]),
        ("soften", 0.8, [*before][:3]),
    ):
        out = tmp_path / action
        stats = relabeled(folder, out, probability, action=action, below=below)
        after = list(read_rows(out / "pairs" / "train"))
        aside = {row["pair_id"]: row for row in read_rows(out / "pairs" / "audited.parquet")}
        assert aside.keys() == set(changed)
        assert all((one["action"], one["probability"]) == (action, probability[key]) for key, one in aside.items())
        assert all(aside[key]["chosen"] == before[key]["chosen"] for key in aside)
        assert list(read_rows(out / "pairs" / "eval")) == held_out, "what is held out stays"
        others = [row for row in after if row["pair_id"] in before and row["pair_id"] not in aside]
        assert others == [before[key] for key in before if key not in aside]
        assert stats["rows_in"] == stats["rows_used"] + sum(stats["rejects"].values()) == counts["rows_in"]
        lines = account([out / "pairs" / "stats.json"], [], [], width=500)
        if action == "drop":
            assert len(after) == stats["train"] == counts["train"] - 2
            assert stats["rejects"]["mislabeled"] == 2 and "mislabeled 2" in lines
            rejects = [row for row in read_rows(out / "pairs" / "rejects.parquet") if row["reason"] == "mislabeled"]
            assert "audit a: wrong with a probability of 0.950" in [row["detail"] for row in rejects]
            continue
        assert len(after) == stats["train"] == counts["train"]
        by_answers = {frozenset((row["chosen"], row["rejected"])): row for row in after}
        for key in changed:
            old = before[key]
            new = by_answers[frozenset((old["chosen"], old["rejected"]))]
            wrong = probability[key]
            assert (new["chosen"] == old["rejected"]) == (wrong > 0.5) == (new["pair_id"] != key)
            assert new["confidence"] == pytest.approx(max(wrong, 1 - wrong) if action == "soften" else 1.0)
        assert f"a label is {'flipped' if action == 'flip' else 'softened'} by audit a in {len(changed)} rows" in lines


def test_labels_that_are_not_judged_stay_and_it_is_said(folder: Path, tmp_path: Path) -> None:
    train = list(read_rows(folder / "pairs" / "m" / "train"))
    relabeled(folder, tmp_path / "a", dict.fromkeys((row["pair_id"] for row in train), None), action="flip")
    assert list(read_rows(tmp_path / "a" / "pairs" / "train")) == train
    lines = account([tmp_path / "a" / "pairs" / "stats.json"], [], [], width=500)
    assert f"clean: a label is kept, as audit a judges none, in {len(train)} rows" in lines


def test_a_cleaned_mixture_keeps_training_pairs(folder: Path, tmp_path: Path) -> None:
    train = dict.fromkeys((row["pair_id"] for row in read_rows(folder / "pairs" / "m" / "train")), 0.9)
    with pytest.raises(
        UserError, match=r"mixtures\.clean\.action: drop leaves none of \d+ training pairs.*lower `below`"
    ):
        relabeled(folder, tmp_path / "all", train, action="drop", below=0.5)
    assert relabeled(folder, tmp_path / "none", train, action="drop", below=0.05)["train"] == len(train)


def test_a_flipped_pair_is_that_of_rows_that_say_the_opposite(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "map"}}]
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "map", "arguments": {}}}]}
    turns = [call, {"role": "tool", "content": "North."}, {"role": "assistant", "content": "Go north."}]
    opposite: dict[str, dict[tuple[Any, ...], Json]] = {}
    for name, (chosen, rejected) in {"given": (turns, "South."), "reversed": ("South.", turns)}.items():
        rows = [
            {"prompt": f"Which way to {topic}?", "chosen": chosen, "rejected": rejected, "tools": tools}
            for topic in TOPICS
        ]
        build(tmp_path / name, {"d": rows}, eval_fraction=0.5)
        found = read_rows(tmp_path / name / "pairs" / "m" / "train")
        opposite[name] = {(row["prompt_id"], row["chosen"]): row for row in found}
    probability = {row["pair_id"]: 0.9 for row in opposite["given"].values()}
    relabeled(tmp_path / "given", tmp_path / "flip", probability, action="flip", below=0.5)
    flipped = list(read_rows(tmp_path / "flip" / "pairs" / "train"))
    assert flipped
    for row in flipped:
        expected = opposite["reversed"][row["prompt_id"], row["chosen"]]
        assert row == {**expected, "file": row["file"]}
