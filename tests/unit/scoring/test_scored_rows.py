"""The scoring stage: all rows with their scores, the best answers, and pairs for the next round."""

import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import collect_scores
import download
import score_rows
from rewardline.core.errors import UserError
from rewardline.core.hashing import file_sha256
from rewardline.data.parquet import read_rows, read_typed_rows
from rewardline.data.schema import Pair
from rewardline.scoring import row_shards
from rewardline.scoring.files import score_file
from rewardline.scoring.manifests import ScoredAnswers
from rewardline.scoring.text_scorer import Scorer

from support.data_stages import build, write_rows
from support.reward_models import reward_model

Json = dict[str, Any]
PLACES = ("Rome", "Oslo", "Cairo", "Lima", "Perth", "Quito", "Delhi", "Tunis")
BENCHMARK = "Which of the two rivers in the old town freezes first when the winter is cold and long?"
HELD_OUT = "How do I repair the chain of my bicycle when I have no tools with me on the road?"


def candidates() -> list[Json]:
    """Answers in rows of all kinds, where each prompt is in rows of two kinds, and rows without a score."""
    rows: list[Json] = []
    for k, place in enumerate(PLACES * 3):
        text = f"Where does number {k % 8} live? He lives in {place}."
        kinds: list[Json] = [
            {"prompt": text, "answer": f"In {place}, {k}.", "meta": {"k": k}},
            {"prompt": text, "answers": ["I do not know.", f"He lives in {place}", f"No {k}"], "tags": ["a"]},
            {"prompt": [{"role": "user", "content": text}], "chosen": f"{place}!", "rejected": f"Not {place} {k}"},
        ]
        rows.append({"id": k, **kinds[k % 3 if k < 16 else (k + 1) % 3]})
    for text in (BENCHMARK, f"Dear assistant, {BENCHMARK}", HELD_OUT, HELD_OUT.replace("chain", "old chain")):
        rows.append({"id": len(rows), "prompt": text, "answers": ["Yes, of course.", "No, never."]})
    return [*rows, {"id": 98, "prompt": "One?", "answer": "Only one."}, {"id": 99, "prompt": "", "answer": "Lost."}]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, base_models: Callable[..., Path]) -> Path:
    """A folder with a model, rows in the stored form, and a mixture with a benchmark."""
    folder = tmp_path_factory.mktemp("scoring")
    reward_model(base_models("llama"), folder / "model")
    weights = file_sha256(folder / "model" / "model.safetensors")
    facts = {"weights_sha256": weights, "tokenization": {"template": "plain", "max_length": 96}}
    (folder / "model" / "run.json").write_text(json.dumps(facts))
    write_rows(folder / "rows.jsonl", candidates())
    settings = json.dumps({"files": [str(folder / "rows.jsonl")]})
    assert download.main(["--name", "c", "--settings", settings, "--output", str(folder / "data")]) == 0
    pair = {"prompt": HELD_OUT, "chosen": "Use a stone.", "rejected": "Weep."}
    other = {"prompt": "What should be in the box that a painter takes to the seaside?", "chosen": "A", "rejected": "B"}
    bench = {"prompt": BENCHMARK, "chosen": "The smaller one.", "rejected": "Fish."}
    build(folder, {"d": [pair, other]}, benchmarks={"b": [bench]}, eval_fraction=0.5, seed=0)
    return folder


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_shards, "PART_ROWS", 4)


def score(place: Path, shards: int = 1, name: str = "whole") -> list[Path]:
    for shard in range(shards):
        settings = json.dumps({"name": "c", "shard": shard, "shards": shards})
        options = {"--data": place / "data" / "manifest.json", "--model": place / "model"}
        options |= {"--parts": place / name / "parts", "--output": place / name / str(shard)}
        assert score_rows.main(["--settings", settings, *(str(part) for one in options.items() for part in one)]) == 0
    return [place / name / str(shard) / "manifest.json" for shard in range(shards)]


def collect(place: Path, shards: list[Path], out: Path, reserved: bool = True, **settings: Any) -> Path:
    options = ["--data", place / "data" / "manifest.json", "--output", out, "--shards", *shards]
    if reserved:
        options += ["--held-out", place / "pairs" / "m" / "stats.json"]
        options += [f"--benchmarks={path}" for path in (place / "candidates" / "b").glob("*/manifest.json")]
    rules = {"near_duplicates": 0.8, "decontamination": {}} if settings.get("pairs") is not None else {}
    values = json.dumps({"name": "c", "run": "r", **rules, **settings})
    assert collect_scores.main(["--settings", values, *map(str, options)]) == 0
    return out


def answers_by_prompt(rows: list[Json]) -> dict[str, dict[str, float]]:
    """The scores in `scores.parquet` by prompt and answer, read without the library."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        if row["error"] is not None:
            continue
        values = json.loads(row["prompt"]) if row["prompt"].startswith(("[", '"')) else row["prompt"]
        prompt = values if isinstance(values, str) else values[0]["content"]
        texts = [row[name] for name in ("answer", "chosen", "rejected") if row[name] is not None]
        scores = [row[name] for name in ("score", "chosen_score", "rejected_score") if row[name] is not None]
        for answer, value in zip(row["answers"] or texts, row["scores"] or scores, strict=True):
            found[prompt].setdefault(answer, value)
    return found


def test_scores_are_those_of_score_py_whatever_the_shards_and_kills(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = collect(place, score(place), tmp_path / "whole", pairs={})
    scorer = Scorer(str(place / "model"))
    score_file(str(place / "rows.jsonl"), str(tmp_path / "scored.jsonl"), scorer)
    expected = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    rows = pq.read_table(whole / "scores.parquet").to_pylist()
    assert [row["id"] for row in rows] == [row["id"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        for name in ("score", "scores", "chosen_score", "rejected_score"):
            assert row[name] == (pytest.approx(other[name], abs=1e-5) if name in other else None)
        assert row["error"] == other.get("error")
        assert (
            row["meta"] == other.get("meta")
            and row["tags"] == other.get("tags")
            and row["answers"] == other.get("answers")
        )

    calls: list[int] = []
    compute = row_shards._scored

    def killed(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return compute(*arguments)

    monkeypatch.setattr(row_shards, "_scored", killed)
    with pytest.raises(KeyboardInterrupt):
        score(place, 3, "shared")
    assert not (place / "shared" / "1" / "manifest.json").exists()
    shards = score(place, 3, "shared")
    parts = -(-len(rows) // 4)
    assert len(calls) == parts + 1, "no part is computed twice"
    (place / "shared" / "2" / "manifest.json").unlink()
    score(place, 3, "shared")
    assert len(calls) == parts + 1
    (tmp_path / "again" / tmp_path.name).mkdir(
        parents=True
    )  # a manifest holds the name of its folder, and of that above
    resumed = collect(place, shards, tmp_path / "again" / tmp_path.name / "whole", pairs={})
    for path in whole.iterdir():
        assert path.is_dir() or path.name.startswith(".") or path.read_bytes() == (resumed / path.name).read_bytes()


def test_the_best_of_each_prompt_over_all_rows(place: Path, tmp_path: Path) -> None:
    out = collect(place, score(place), tmp_path / "out", reserved=False)
    found = answers_by_prompt(pq.read_table(out / "scores.parquet").to_pylist())
    best = {row["prompt"][-1]["content"]: row for row in pq.read_table(out / "best.parquet").to_pylist()}
    assert best.keys() == found.keys() and max(map(len, found.values())) > 3
    rows = candidates()
    for prompt, scores in found.items():
        row = best[prompt]
        assert row["score"] == max(scores.values()) and scores[row["answer"]] == row["score"]
        assert row["answers"] == len(scores)
        assert row["mean_score"] == pytest.approx(sum(scores.values()) / len(scores), abs=1e-6)
        origin = rows[row["row"] - 1]
        texts = origin.get("answers") or [origin[name] for name in ("answer", "chosen", "rejected") if name in origin]
        assert texts[row["position"]] == row["answer"]
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["rows"], manifest["prompts"], manifest["pairs"]) == (len(rows), len(found), None)
    assert manifest["rejects"] == {"empty_prompt": 1}
    assert [row["row"] for row in read_rows(out / "rejects.parquet")] == [len(rows)]
    assert not (out / "pairs.parquet").exists()


def test_pairs_are_of_no_benchmark_and_of_no_held_out_prompt(place: Path, tmp_path: Path) -> None:
    out = collect(place, score(place), tmp_path / "out", pairs={})
    found = answers_by_prompt(pq.read_table(out / "scores.parquet").to_pylist())
    pairs = pq.read_table(out / "pairs.parquet").to_pylist()
    assert {row["prompt"][-1]["content"] for row in pairs} == {text for text in found if text.startswith("Where")}
    for row in pairs:
        scores = found[row["prompt"][-1]["content"]]
        assert scores[row["chosen"]] == max(scores.values()) and scores[row["rejected"]] == min(scores.values())
        assert row["margin"] == pytest.approx(row["chosen_score"] - row["rejected_score"])
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["without_pair"] == {"held_out": 2, "in_benchmark": 2, "one_answer": 1}
    assert {row["reason"] for row in read_rows(out / "rejects.parquet")} == {*manifest["without_pair"], "empty_prompt"}
    # They are a dataset for the next round.
    stats = build(tmp_path / "next", {"d": [str(out / "pairs.parquet")]}, eval_fraction=0.2)
    assert (stats["train"] + stats["eval"], stats["rejects"]) == (len(pairs), {})
    read = [row for split in ("train", "eval") for row in read_rows(tmp_path / "next" / "pairs" / "m" / split)]
    made = {(row["chosen"], row["rejected"]): row["margin"] for row in read}
    assert made == {(row["chosen"], row["rejected"]): pytest.approx(row["margin"]) for row in pairs}


def test_pairs_by_margin(place: Path, tmp_path: Path) -> None:
    shards = score(place)
    everything = collect(place, shards, tmp_path / "all", reserved=False, pairs={"pairing": "all"})
    found = answers_by_prompt(pq.read_table(everything / "scores.parquet").to_pylist())
    margins = [[abs(a - b) for a, b in combinations(scores.values(), 2) if a != b] for scores in found.values()]
    assert len(pq.read_table(everything / "pairs.parquet")) == sum(map(len, margins))
    least = sorted(margin for one in margins for margin in one)[10]
    rule = {"pairing": "all", "min_margin": least, "max_pairs": 2}
    out = collect(place, shards, tmp_path / "wide", reserved=False, pairs=rule)
    kept = [sorted((margin for margin in one if margin >= least), reverse=True)[:2] for one in margins]
    made = sorted(row["margin"] for row in pq.read_table(out / "pairs.parquet").to_pylist())
    assert made == pytest.approx(sorted(margin for one in kept for margin in one))
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["pairs"] == len(made)
    assert manifest["pairs_left_out"].keys() == {"max_pairs", "small_margin"}


def test_what_is_in_the_way_is_named(place: Path, tmp_path: Path) -> None:
    shards = score(place)
    with pytest.raises(UserError, match=r"c: 1 of 30 rows have no score \(empty_prompt 1\).*max_reject_fraction"):
        collect(place, shards, tmp_path / "out", reserved=False, max_reject_fraction=0.01)
    rows = [{**row, "scores": 1} for row in candidates()[:5]]
    write_rows(tmp_path / "rows.jsonl", rows)
    (tmp_path / "model").symlink_to(place / "model")
    settings = json.dumps({"files": [str(tmp_path / "rows.jsonl")]})
    assert download.main(["--name", "c", "--settings", settings, "--output", str(tmp_path / "data")]) == 0
    shards = score(tmp_path)
    with pytest.raises(UserError, match=r"have a column `scores` already; set scoring\.c\.prefix"):
        collect(tmp_path, shards, tmp_path / "out", reserved=False)
    table = pq.read_table(collect(tmp_path, shards, tmp_path / "out", reserved=False, prefix="new_") / "scores.parquet")
    assert {"scores", "new_scores", "new_score", "new_error"} <= set(table.column_names)


def test_answers_with_tools_or_turns_are_scored_and_give_no_pair(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = [{"type": "function", "function": {"name": "map", "parameters": {"type": "object", "properties": {}}}}]
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "map", "arguments": {}}}]}
    turns = [call, {"role": "tool", "content": "North."}, {"role": "assistant", "content": "Go north."}]
    rows: list[Json] = [
        {"prompt": "Which way?", "answers": ["North.", "South."]},
        {"prompt": "Which way?", "answers": ["North.", "South."], "tools": tools},
        {"prompt": "And back?", "answers": [turns, "South."], "tools": tools},
        {"prompt": "Which way?", "answers": ["North.", "South."], "tools": "a map"},
    ]
    folder = tmp_path / "tools"
    (folder / "data").parent.mkdir()
    shutil.copytree(place / "model", folder / "model")
    facts = json.loads((place / "model" / "run.json").read_text())
    facts["tokenization"] = {"template": "chat", "max_length": 256}
    (folder / "model" / "chat_template.jinja").write_text(
        "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}{% for m in messages %}{{ m.role }}: "
        "{{ m.content }}{% endfor %}"
    )
    (folder / "model" / "run.json").write_text(json.dumps(facts))
    write_rows(folder / "rows.jsonl", rows)
    settings = json.dumps({"files": [str(folder / "rows.jsonl")]})
    assert download.main(["--name", "c", "--settings", settings, "--output", str(folder / "data")]) == 0
    out = collect(folder, score(folder), folder / "out", reserved=False, pairs={})
    score_file(str(folder / "rows.jsonl"), str(folder / "scored.jsonl"), Scorer(str(folder / "model")))
    ignored = "tools ignored, as it is not a list of JSON schemas, in 1 rows"
    assert f"rows.jsonl: {ignored}" in capsys.readouterr().err
    assert f"c: {ignored}" in ScoredAnswers.read(out / "manifest.json").lines()
    expected = [json.loads(line)["scores"] for line in (folder / "scored.jsonl").read_text().splitlines()]
    found = [row["scores"] for row in pq.read_table(out / "scores.parquet").to_pylist()]
    assert found == [pytest.approx(scores, abs=1e-5) for scores in expected]
    assert found[0] != pytest.approx(found[1], abs=1e-3), "the template renders the tools"
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["rejects"], manifest["prompts"], manifest["pairs"]) == ({}, 3, 1)
    assert manifest["without_pair"] == {"several_turns": 2}
    best = pq.read_table(out / "best.parquet").to_pylist()
    assert sorted(row["native"] is None for row in best) == [False, False, True]
    assert [row["row"] for row in best if row["native"] is None] == [1]


def test_the_chat_template_gets_what_each_row_has_for_it(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "model", tmp_path / "model")
    facts = json.loads((place / "model" / "run.json").read_text())
    facts["tokenization"] = {"template": "chat", "max_length": 256}
    (tmp_path / "model" / "run.json").write_text(json.dumps(facts))
    template = "{{ tools | tojson if tools }}{{ mood }}{% for m in messages %}{{ m.role ~ m.content }}.{% endfor %}"
    (tmp_path / "model" / "chat_template.jinja").write_text(template)
    row = {"prompt": "Which way?", "answers": ["North", "South"]}
    tools = [{"type": "function", "function": {"name": "map"}}]
    rows = [row, {**row, "tools": tools}, {**row, "chat_template_kwargs": {"mood": "sad"}}]
    write_rows(tmp_path / "rows.jsonl", rows)
    settings = json.dumps({"files": [str(tmp_path / "rows.jsonl")]})
    assert download.main(["--name", "c", "--settings", settings, "--output", str(tmp_path / "data")]) == 0
    out = collect(tmp_path, score(tmp_path), tmp_path / "out", reserved=False)
    found = [row["scores"] for row in pq.read_table(out / "scores.parquet").to_pylist()]
    score_file(str(tmp_path / "rows.jsonl"), str(tmp_path / "scored.jsonl"), Scorer(str(tmp_path / "model")))
    lines = (tmp_path / "scored.jsonl").read_text().splitlines()
    assert found == [pytest.approx(json.loads(line)["scores"], abs=1e-5) for line in lines]
    assert len(set(map(tuple, found))) == 3


def test_no_pair_is_of_a_prompt_that_any_mixture_holds_out(place: Path, tmp_path: Path) -> None:
    mine = [{"prompt": f"{text}{BENCHMARK}", "chosen": "A", "rejected": "B"} for text in ("", "Once more, quickly: ")]
    build(tmp_path, {"d": mine}, eval_fraction=0.5, near_duplicates=None, seed=6)
    texts = [pair.prompt[0]["content"] for pair in read_typed_rows(tmp_path / "pairs" / "m" / "eval", Pair)]
    assert texts == [BENCHMARK]
    options = [place / "data" / "manifest.json", place / "pairs" / "m" / "stats.json"]
    options.append(tmp_path / "pairs" / "m" / "stats.json")
    data, *held_out = map(str, options)
    values = json.dumps({"name": "c", "run": "r", "pairs": {}, "near_duplicates": 0.8, "decontamination": {}})
    arguments = ["--settings", values, "--data", data, "--shards", *map(str, score(place))]
    arguments += [f"--held-out={path}" for path in held_out]
    assert collect_scores.main([*arguments, "--output", str(tmp_path / "out")]) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["without_pair"]["held_out"] == 4  # with two that are nearly the same


def test_any_parts_may_be_missing(place: Path) -> None:
    (manifest,) = score(place, 1, "gaps")
    before = {path.name: path.read_bytes() for path in manifest.parent.glob("*.parquet")}
    shutil.rmtree(manifest.parent)
    parts = sorted((place / "gaps" / "parts").glob("*/*.scores"))
    for number in (1, 2, 5):
        parts[number].unlink()
    score(place, 1, "gaps")
    assert {path.name: path.read_bytes() for path in manifest.parent.glob("*.parquet")} == before


def test_damage_to_scores_is_named_by_whoever_reads_them(place: Path, tmp_path: Path) -> None:
    manifests = score(place, 2, "damaged")
    intact = {path: path.read_bytes() for manifest in manifests for path in manifest.parent.iterdir()}
    for name, kind in product(("manifest.json", "part-00000.parquet"), ("byte", "cut", "lost", "swapped")):
        path, other = (manifest.with_name(name) for manifest in manifests)
        content = bytearray(intact[path])
        content[len(content) // 2] ^= 1
        path.write_bytes({"byte": bytes(content), "cut": bytes(content[:-9]), "swapped": intact[other]}.get(kind, b""))
        if kind == "lost":
            path.unlink()
        with pytest.raises(UserError, match=rf"{path} (is damaged|does not exist)"):
            collect(place, manifests, tmp_path / "out", reserved=False)
        for one, before in intact.items():
            one.write_bytes(before)


def test_pairs_for_the_next_round_are_not_read_once_damaged(place: Path, tmp_path: Path) -> None:
    pairs = collect(place, score(place), tmp_path / "out", pairs={}) / "pairs.parquet"
    content = bytearray(pairs.read_bytes())
    content[100] ^= 1
    pairs.write_bytes(content)
    settings = json.dumps({"files": [str(pairs)]})
    for _ in range(2):
        with pytest.raises(UserError, match=r"pairs\.parquet is damaged"):
            download.main(["--name", "d", "--settings", settings, "--output", str(tmp_path / "data")])
