"""The choice of pairs to label: against a plain computation, and as a loop whose labels are the next round's data."""

import json
import math
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import JsonValue

import choose_pairs
import download
from rewardline.core.artifacts import write_manifest, write_sealed
from rewardline.data.parquet import PartWriter, read_rows, read_typed_rows
from rewardline.data.schema import Pair, arrow_schema
from rewardline.scoring.manifests import PairsToLabel
from rewardline.scoring.results import RowScores, ScoredRows
from rewardline.scoring.to_label import choose
from rewardline.scoring.to_label.acquisition import CRITERIA, disagreement, probabilities, uncertainty
from rewardline.workflow.config import Config
from rewardline.workflow.resolve import ConfigError, resolve
from rewardline.workflow.runs import labeling_table
from rewardline.workflow.settings import choose_settings

from support.data_stages import build, write_rows

Json = dict[str, Any]
STDS = {"a": 1.0, "b": 4.0, "c": 1.0}
"""By member: the standard deviation by which its scores are normalized; `a` has no normalization."""
RIVER = "Which of the two rivers in the old town freezes first when the winter is cold and long?"


def test_acquisition_is_that_of_a_plain_loop() -> None:
    members = np.random.default_rng(0).random((4, 30))

    def entropy(p: float) -> float:
        return -sum(x * math.log(x) for x in (p, 1 - p) if x > 0)

    for k, column in enumerate(members.T.tolist()):
        mean = math.fsum(column) / 4
        assert disagreement(members)[k] == pytest.approx(entropy(mean) - math.fsum(map(entropy, column)) / 4, abs=1e-12)
        assert uncertainty(members)[k] == pytest.approx(mean * (1 - mean))
    ends = probabilities(np.array([[1e3, 0.0, 2.0], [-1e3, 0.0, 2.0]]))
    assert disagreement(ends) == pytest.approx([math.log(2), 0.0, 0.0])
    assert uncertainty(ends)[:2] == pytest.approx([0.25, 0.25])
    assert ends[0, 2] == pytest.approx(1 / (1 + math.exp(-2)))


def pool() -> list[Json]:
    """Answers in rows of several kinds, some to one prompt; prompts that are reserved, nearly the same, or alone."""
    rows: list[Json] = []
    for k in range(40):
        text = f"Where does number {k * 7919} live in the year {k * 31}?"
        rows.append({"prompt": text, "answers": [f"In town {k}, {j}." for j in range(3)]})
        if k % 5 == 0:
            rows.append({"prompt": text, "answer": f"Nowhere, {k}."})
    for text in (RIVER, RIVER.replace("two ", ""), RIVER.replace("long", "so long")):
        rows.append({"prompt": text, "chosen": f"The smaller one, {len(text)}.", "rejected": "Neither."})
    rows.append({"prompt": "Who wrote the hymn that the village sings?", "answer": "Only one answer."})
    rows.append({"prompt": "What did the painter leave at the seaside inn?", "answers": ["A box.", "A hat."]})
    return [*rows, {"prompt": "", "answer": "Lost."}]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows in the stored form, the scores of three members in two shards, and models as far as they are read."""
    folder, rng = tmp_path_factory.mktemp("pool"), np.random.default_rng(1)
    settings = json.dumps({"files": [write_rows(folder / "rows.jsonl", pool())]})
    assert download.main(["--name", "next", "--settings", settings, "--output", str(folder / "data")]) == 0
    rows = pool()
    for name, std in STDS.items():
        normalization: JsonValue = None if name == "a" else {"mean": 0.3, "std": std}
        (folder / name).mkdir()
        write_sealed(folder / name / "run.json", {"normalization": normalization})
        for shard, own in enumerate((rows[:20], rows[20:])):
            out = folder / "scored" / name / str(shard)
            writer = PartWriter[RowScores](out, arrow_schema(RowScores))
            for row in own:
                count = len(row.get("answers") or [key for key in ("answer", "chosen", "rejected") if key in row])
                scores = rng.normal(0, 2 / std, count).astype(np.float32).tolist()
                lost = not row["prompt"]
                writer.add(RowScores(None, "empty_prompt", "no prompt") if lost else RowScores(scores, None, None))
            write_manifest(out, ScoredRows(rows=len(own), names=["scores"], cut=3, parts=writer.close()))
    bench = {"prompt": "What did the painter leave at the seaside inn?", "chosen": "A hat.", "rejected": "Fish."}
    others = [
        {"prompt": f"Is {k * 104729} a prime number?", "chosen": f"{k}: yes.", "rejected": f"{k}: no."}
        for k in range(9)
    ]
    build(folder, {"d": others}, benchmarks={"b": [bench]}, eval_fraction=0.2, seed=0)
    return folder


def chosen(place: Path, out: Path, members: str = "abc", known: Path | None = None, **settings: Any) -> list[Json]:
    values = {"name": "next", "runs": list(members), "by": "disagreement", "near_duplicates": 0.8, **settings}
    shards = [str(place / "scored" / name / str(shard) / "manifest.json") for name in members for shard in (0, 1)]
    options = ["--data", str(place / "data" / "manifest.json"), "--shards", *shards]
    options += ["--models", *(str(place / name / "run.json") for name in members)]
    options += [f"--benchmarks={path}" for path in (place / "candidates" / "b").glob("*/manifest.json")]
    options += [f"--pairs={(known or place) / 'pairs' / 'm' / 'stats.json'}"]
    options += ["--output", str(out / "next"), "--lines", str(out / "next.jsonl")]
    assert choose_pairs.main(["--settings", json.dumps(values), *options]) == 0
    return [json.loads(line) for line in (out / "next.jsonl").read_text().splitlines()]


def every_pair(place: Path, members: str, by: str) -> list[tuple[float, str, frozenset[str]]]:
    """Acquisition, prompt and answers of each pair of the pool, by a plain computation, the best first."""
    scores: dict[str, dict[str, list[float]]] = {}
    columns = [
        [row["scores"] for shard in (0, 1) for row in read_rows(place / "scored" / name / str(shard))]
        for name in members
    ]
    for row, *of_row in zip(pool(), *columns, strict=True):
        if row["prompt"]:
            answers = row.get("answers") or [row[key] for key in ("answer", "chosen", "rejected") if key in row]
            for answer, values in zip(answers, zip(*of_row, strict=True), strict=True):
                scores.setdefault(row["prompt"], {}).setdefault(answer, list(values))
    found = []
    for prompt, answers in scores.items():
        for one, two in combinations(answers, 2):
            margins = [STDS[name] * (x - y) for name, x, y in zip(members, answers[one], answers[two], strict=True)]
            value = CRITERIA[by](1 / (1 + np.exp(-np.array(margins)))[:, None])[0]  # type: ignore[index]
            found.append((float(value), prompt, frozenset((one, two))))
    return sorted(found, key=lambda pair: -pair[0])


@pytest.mark.parametrize(("members", "by"), [("abc", "disagreement"), ("b", "uncertainty")])
@pytest.mark.parametrize(("number", "per_prompt"), [(10, 1), (60, 2), (1000, 1)])
def test_the_pairs_that_teach_most_are_chosen(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: str, by: str, number: int, per_prompt: int
) -> None:
    monkeypatch.setattr(choose, "_WAITING", 3)
    lines = chosen(place, tmp_path, members, number=number, per_prompt=per_prompt, by=by)
    expected, count = list[tuple[float, str, frozenset[str]]](), Counter[str]()
    every = every_pair(place, members, by)
    for value, prompt, answers in every:
        group = RIVER if "rivers" in prompt else prompt
        if "painter" not in prompt and count[group] < per_prompt and len(expected) < number:
            count[group] += 1
            expected.append((value, prompt, answers))
    found = [(line["acquisition"], line["prompt"], frozenset((line["answer_a"], line["answer_b"]))) for line in lines]
    assert [value for value, _, _ in found] == pytest.approx([value for value, _, _ in expected], abs=1e-6)
    assert {(prompt, answers) for _, prompt, answers in found} == {pair[1:] for pair in expected}
    assert all(line["probabilities"].keys() == set(members) for line in lines)
    if number == 1000:
        first = np.array([line["answer_a"] < line["answer_b"] for line in lines])
        assert 0.2 < first.mean() < 0.8, "which answer comes first says nothing"
    manifest = PairsToLabel.read(tmp_path / "next" / "manifest.json")
    assert manifest.without_pair == {"in_benchmark": 1, "one_answer": 1}
    assert (manifest.rejects, manifest.cut, manifest.pairs) == ({"empty_prompt": 1}, 6, len(lines))
    assert manifest.pairs + sum(manifest.left_out.values()) == len(every) - 1
    assert f"{len(lines):,} of {len(every) - 1:,} pairs" in manifest.lines()[0]
    reasons = Counter(row["reason"] for row in read_rows(tmp_path / "next" / "rejects.parquet"))
    assert reasons == {**manifest.without_pair, **manifest.rejects}
    (tmp_path / "next.jsonl").unlink()
    assert chosen(place, tmp_path, members, number=number, per_prompt=per_prompt, by=by) == lines


def test_labels_are_the_next_rounds_data_and_are_not_asked_for_again(place: Path, tmp_path: Path) -> None:
    first = chosen(place, tmp_path / "1", number=15)
    for line in first:
        line["preference"] = "a" if len(line["answer_a"]) % 2 else "b"
    stats = build(tmp_path, {"labeled": first}, eval_fraction=0.2)
    assert (stats["train"] + stats["eval"], stats["rejects"]) == (15, {})
    read = [row for split in ("train", "eval") for row in read_rows(tmp_path / "pairs" / "m" / split)]
    winners = {line["answer_a" if line["preference"] == "a" else "answer_b"] for line in first}
    assert {row["chosen"] for row in read} == winners
    second = chosen(place, tmp_path / "2", number=500, per_prompt=9, known=tmp_path)
    asked, again = ({frozenset((line["answer_a"], line["answer_b"])) for line in lines} for lines in (first, second))
    assert again and not asked & again
    manifest = PairsToLabel.read(tmp_path / "2" / "next" / "manifest.json")
    assert manifest.without_pair["held_out"] == stats["eval"]
    trained = {row.prompt[0]["content"] for row in read_typed_rows(tmp_path / "pairs" / "m" / "train", Pair)}
    assert trained & {line["prompt"] for line in second}, "their other answers may be compared"


def test_prompts_of_several_turns_are_messages(place: Path, tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is the sea?"}]
    rows = [{"prompt": turns, "answers": ["West.", "East."]}, {"prompt": "And the river?", "answers": ["A", "B", "A"]}]
    folder = tmp_path / "turns"
    settings = json.dumps({"files": [write_rows(folder / "rows.jsonl", rows)]})
    assert download.main(["--name", "next", "--settings", settings, "--output", str(folder / "data")]) == 0
    for shard, own in enumerate(([[0.0, 1.0], [1.0, 2.0, 1.0]], [])):
        out = folder / "scored" / "a" / str(shard)
        writer = PartWriter[RowScores](out, arrow_schema(RowScores))
        for scores in own:
            writer.add(RowScores(scores, None, None))
        write_manifest(out, ScoredRows(rows=len(own), names=["scores"], cut=0, parts=writer.close()))
    (folder / "a").mkdir()
    write_sealed(folder / "a" / "run.json", {})
    lines = chosen(folder, tmp_path / "out", "a", known=place, by="uncertainty")
    assert [turns] == [line["prompt"] for line in lines if line["answer_a"] in ("West.", "East.")]
    assert all(isinstance(line["prompt"], list) for line in lines) and len(lines) == 2
    stats = build(tmp_path, {"d": [{**line, "preference": "b"} for line in lines]}, eval_fraction=0.5)
    assert stats["pairs_out"] == 2


def base() -> Json:
    run = {"mixture": "m", "model": "x", "training": {}}
    grid = {"training.warmup": [1, 2, 3, 4], "halving": {"min_steps": 5}}
    return {
        "datasets": {"d": {"files": ["a.jsonl"]}},
        "mixtures": {"m": {"datasets": {"d": 1.0}}, "n": {"datasets": {"d": 1.0}, "seed": 2}},
        "models": {"x": {"path": "owner/name"}, "y": {"path": "owner/other"}},
        "runs": {
            **{"one": run, "two": {**run, "seeds": [0, 1]}, "other": {**run, "model": "y", "mixture": "n"}},
            **{"both": {"ensemble": ["one", "two-seed1"]}, "mean": {"average": ["two"]}, "half": {**run, "grid": grid}},
        },
        "select": {"from": ["two"], "as": "best"},
        "scoring": {"s": {"files": ["s.jsonl"], "run": "one"}},
    }


def test_models_may_be_runs_seeds_ensembles_averages_and_choices_of_any_tokenizer() -> None:
    config = base()
    wanted = {
        "one": (["one"], "uncertainty"),
        "two": (["two-seed0", "two-seed1"], "disagreement"),
        "both": (["one", "two-seed1"], "disagreement"),
        "best": (["best"], "uncertainty"),
    }
    config["to_label"] = {f"p-{name}": {"files": ["p.jsonl"], "runs": name} for name in wanted}
    config["to_label"]["p-all"] = {"files": ["p.jsonl"], "runs": ["other", "mean", "one", "both"]}
    wanted["all"] = (["other", "mean", "one", "two-seed1"], "disagreement")
    resolved: Config = resolve(config)
    table = labeling_table(resolved)
    for name, (models, by) in wanted.items():
        settings = choose_settings(resolved, table[f"p-{name}"])
        assert (settings.runs, settings.by) == (models, by)
    assert table["p-all"].mixtures == ("m", "n") and table["p-two"].mixtures == ("m",)
    assert labeling_table(resolved, {"one"}).keys() == {"p-one"}
    assert labeling_table(resolved, {"both"}).keys() >= {"p-one", "p-both"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.update(runs="on"), "to_label.p.runs: 'on' is not defined; did you mean one"),
        (lambda e: e.update(runs=["one", "tow"]), "to_label.p.runs: 'tow' is not defined"),
        (lambda e: e.update(runs=[]), "to_label.p.runs"),
        (lambda e: e.update(by="disagreement"), "disagreement needs two or more models, and runs has one only"),
        (lambda e: e.update(by="agreement"), "to_label.p.by: 'agreement' is not allowed"),
        (lambda e: e.update(runs="half"), "to_label.p.runs: halving may end the training of half-warmup=1.0"),
        (lambda e: e.update(number=0), "to_label.p.number: 0 is not allowed"),
        (lambda e: e.update(per_prompts=2), "to_label.p.per_prompts: unknown key; did you mean per_prompt"),
        (lambda e: e.pop("files"), "to_label.p: has no source; expected exactly one of hub, files"),
        (lambda e: e.update(hub="a/b") or e.pop("files"), "to_label.p: a hub dataset needs `revision`"),
    ],
)  # fmt: skip
def test_mistakes_are_named(change: Callable[[Json], None], message: str) -> None:
    config = base()
    config["to_label"] = {"p": {"files": ["p.jsonl"], "runs": "one"}}
    change(config["to_label"]["p"])
    with pytest.raises(ConfigError) as error:
        resolve(config)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["d", "s", "a/b"])
def test_a_name_is_its_own(name: str) -> None:
    with pytest.raises(ConfigError, match=f"to_label.{name}: (the name is taken|a name consists of)"):
        resolve({**base(), "to_label": {name: {"files": ["p.jsonl"], "runs": "one"}}})
