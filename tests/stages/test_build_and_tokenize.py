"""Rows through the pairs and tokenize stages, as their command lines are used."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

import collect_scores
import download
import score_rows
from rewardline.core.errors import UserError
from rewardline.data.parquet import read_rows, read_typed_rows
from rewardline.scoring.files import score_file
from rewardline.scoring.results import RowScores
from rewardline.scoring.rows import columns, parse_row
from rewardline.scoring.server.app import Service
from rewardline.scoring.server.limits import Limits
from rewardline.scoring.text_scorer import Scorer
from rewardline.tokens.settings import TokenizeSettings
from rewardline.tokens.store import Comparison, TokenDataset
from rewardline.tokens.tokenizer import load_tokenizer
from rewardline.workflow.resolve import resolve
from rewardline.workflow.settings import join_settings

from support.data_stages import build, prompts, tokenize, write_rows
from support.pairs import pair_rows, write_pairs
from support.paths import ROOT
from support.project import restart
from support.training_runs import train

Json = dict[str, Any]


def rows(count: int, start: int = 0) -> list[Json]:
    return [
        {"prompt": f"question {k}", "chosen": f"good {k}", "rejected": f"bad {k}"} for k in range(start, start + count)
    ]


def test_one_prompt_is_on_one_side_across_datasets(tmp_path: Path) -> None:
    other = [{**row, "prompt": row["prompt"].upper() + "?!", "chosen": "another"} for row in rows(300)]
    stats = build(tmp_path, {"a": rows(300), "b": other}, eval_fraction=0.3)
    train, held_out = prompts(tmp_path, "train"), prompts(tmp_path, "eval")
    assert not {text.lower().strip("?!") for text in train} & {text.lower().strip("?!") for text in held_out}
    assert stats["pairs_out"] == 600
    assert 0.2 < stats["eval"] / 600 < 0.4


def test_equal_shares_hold_equal_prompts_in_every_dataset(tmp_path: Path) -> None:
    parts = {}
    for name, share in (("one", [0, 0.2]), ("two", [0.2, 0.6]), ("three", [0.6, 1])):
        folder = tmp_path / name
        stats = build(folder, {"d": rows(200)}, {"d": {"share": share}}, eval_fraction=0.1)
        parts[name] = prompts(folder, "train") | prompts(folder, "eval")
        assert stats["rows_in"] == 200 == stats["pairs_out"] + stats["rejects"]["outside_share"]
    assert sum(map(len, parts.values())) == 200 == len(set.union(*parts.values()))


def test_few_prompts_still_give_one_for_evaluation(tmp_path: Path) -> None:
    stats = build(tmp_path, {"a": rows(5)}, eval_fraction=0.0001)
    assert (stats["train"], stats["eval"]) == (4, 1)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (rows(3)[:1], {"eval_fraction": 0.5}, "no training pairs are left|eval_fraction"),
        ([{"prompt": 1, "chosen": "a", "rejected": "b"}] * 5, {}, "5 of 5 rows are unusable"),
        ([{"a": "b"}] * 5, {}, "format is not clear"),
        ([{**row, "prompt": "Say it."} for row in rows(6)], {"eval_fraction": 0.2}, "all 6 pairs have the same prompt"),
        (rows(8) + [{"prompt": "p", "chosen": None, "rejected": "b"}] * 3, {}, "3 of 11 rows are unusable"),
    ],
)
def test_data_that_cannot_be_used_is_named_with_a_remedy(
    tmp_path: Path, data: list[Json], options: Json, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build(tmp_path, {"a": data}, **options)
    assert not (tmp_path / "pairs" / "m").exists()


def test_ranked_answers_become_one_comparison(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    data = [{"prompt": f"q{k}", "answers": ["best", "middle", "worst"], "scores": [3, 2, 1]} for k in range(20)]
    stats = build(tmp_path, {"a": data}, {"a": {"format": "ranked"}}, eval_fraction=0.2)
    assert stats["rows_used"] == stats["rows_in"] == 20
    assert stats["pairs_out"] == 60
    train = tokenize(tmp_path, base_models("llama"))
    assert set(train.tail_counts.tolist()) == {3}
    assert set(train.pair_counts.tolist()) == {3}
    assert sorted(pair.margin or 0 for pair in train[0].pairs) == [1, 1, 2]


def test_pairs_name_the_authors_of_their_answers(tmp_path: Path) -> None:
    data = [{**row, "chosen_model": "one", "rejected_model": "other"} for row in rows(20)]
    build(tmp_path, {"a": data, "b": rows(20, 20)}, eval_fraction=0.5)
    pairs = [pair for split in ("train", "eval") for pair in read_rows(tmp_path / "pairs" / "m" / split)]
    written = {(pair["dataset"], pair["chosen_source"], pair["rejected_source"]) for pair in pairs}
    assert written == {("a", "one", "other"), ("b", None, None)}


def test_tokens_hold_every_pair_and_decode_to_its_text(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    pairs = pair_rows(30)
    write_pairs(tmp_path / "pairs" / "m", pairs[:24], pairs[24:])
    base = base_models("llama")
    data = tokenize(tmp_path, base)
    tokenizer = load_tokenizer(base)
    seen = {}
    for index in range(len(data)):
        comparison = data[index]
        for pair in comparison.pairs:
            texts = [
                tokenizer.decode(np.concatenate([comparison.prefix, comparison.tails[tail]]))
                for tail in (pair.chosen, pair.rejected)
            ]
            seen[pair.pair_id] = texts
    assert set(seen) == {row["pair_id"] for row in pairs[:24]}
    for row in pairs[:24]:
        question = row["prompt"][0]["content"]
        expected = [f"Human: {question}\n\nAssistant: {row[side]}<|end|>" for side in ("chosen", "rejected")]
        assert seen[row["pair_id"]] == expected
    assert TokenDataset(tmp_path / "tokens", "eval").pairs == 6


def test_pairs_that_do_not_fit_are_counted_and_kept_with_their_reason(
    tmp_path: Path, base_models: Callable[..., Path]
) -> None:
    pairs = pair_rows(12)
    pairs[3]["rejected"] = "far too long " * 40
    pairs[5]["prompt"][0]["content"] = "a long question " * 40
    write_pairs(tmp_path / "pairs" / "m", pairs[:10], pairs[10:])
    data = tokenize(tmp_path, base_models("llama"))
    manifest = json.loads((tmp_path / "tokens" / "manifest.json").read_text())
    assert data.pairs == 9
    assert manifest["dropped"] == {"answer_too_long": 1}
    assert manifest["truncated_pairs"] == 1
    assert manifest["truncated_tokens"] > 50
    rejects = pd.read_parquet(tmp_path / "tokens" / "rejects.parquet")
    assert pairs[3]["pair_id"] in rejects.detail[0]
    assert (data.prefix_lengths.max() + data.tail_lengths.max()) <= 64 + data.tail_lengths.max()


def test_one_overlong_answer_does_not_take_the_others_of_its_prompt_along(
    tmp_path: Path, base_models: Callable[..., Path]
) -> None:
    pairs = pair_rows(4)
    extra = {**pairs[0], "pair_id": "f" * 16, "rejected": "far too long " * 40}
    write_pairs(tmp_path / "pairs" / "m", [pairs[0], extra, *pairs[1:3]], pairs[3:])
    data = tokenize(tmp_path, base_models("llama"))
    assert {pair.pair_id for k in range(len(data)) for pair in data[k].pairs} == {p["pair_id"] for p in pairs[:3]}


def test_answers_that_no_pair_is_left_of_are_not_stored(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    pairs = pair_rows(4)
    same = {**pairs[0], "pair_id": "e" * 16, "chosen": "caf\u00e9", "rejected": "caf\u00e9"}
    write_pairs(tmp_path / "pairs" / "m", [pairs[0], same, *pairs[1:3]], pairs[3:])
    data = tokenize(tmp_path, base_models("llama"))
    assert data.tail_counts.tolist() == [2, 2, 2]
    rejects = pd.read_parquet(tmp_path / "tokens" / "rejects.parquet")
    assert (rejects.file[0], rejects.row[0], rejects.reason[0]) == ("f", 1, "same_tokens")


def test_memory_is_bounded_by_text_and_not_by_rows(tmp_path: Path) -> None:
    """Long rows, and rows that give many pairs: each process stays far below the size of the data."""
    text = "lorem ipsum " * 4_000
    data = [
        {"prompt": f"q {k}", "answers": [f"{text} {k} {n}" for n in range(12)], "scores": list(range(12))}
        for k in range(40)
    ]
    path = write_rows(tmp_path / "long.jsonl", data)
    script = (
        "import sys, resource; sys.path[:0] = ['tests', 'scripts']; from pathlib import Path;"
        "from support.data_stages import build;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024; before = peak();"
        f"stats = build(Path({str(tmp_path)!r}), {{'a': [{path!r}]}}, near_duplicates=None);"
        "assert stats['pairs_out'] == 40 * 66, stats;"
        "print('MiB', peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout.rpartition("MiB ")[2]) < 220, "250 MB of pairs"


def test_tokens_are_computed_again_only_if_something_has_changed(
    tmp_path: Path, base_models: Callable[..., Path]
) -> None:
    base = base_models("llama")
    write_pairs(tmp_path / "pairs" / "m", pair_rows(24), pair_rows(6, " of them"))
    tokenize(tmp_path, base)
    shard, tokens = tmp_path / "token-shards" / "0", tmp_path / "tokens"
    before = (tokens / "manifest.json").read_bytes()
    for folder in (shard, tokens):
        (folder / "manifest.json").unlink()  # as Snakemake does before it runs a stage again
    settings = TokenizeSettings(max_length=64, template="plain").canonical_json()
    places = ["--pairs", tmp_path / "pairs" / "m", "--base", base, "--output", shard]
    restart("tokenize_pairs", "--settings", settings, *places)
    places = ["--stats", tmp_path / "pairs" / "m" / "stats.json", "--shards", shard / "manifest.json"]
    restart("join_tokens", "--settings", '{"max_reject_fraction": 0.2}', *places, "--output", tokens)
    assert (tokens / "manifest.json").read_bytes() == before

    def is_computed_again(**settings: Any) -> bool:
        written = (shard / "train-00000.arrow").stat().st_mtime_ns
        tokenize(tmp_path, base, **settings)
        return (shard / "train-00000.arrow").stat().st_mtime_ns != written

    assert not is_computed_again()
    assert is_computed_again(max_length=48)
    write_pairs(tmp_path / "pairs" / "m", pair_rows(23), pair_rows(6, " of them"))
    assert is_computed_again(max_length=48)
    (shard / "train-00000.arrow").write_bytes(b"damaged")
    assert is_computed_again(max_length=48)
    assert TokenDataset(tokens, "train").pairs == 23


def test_a_damaged_manifest_is_named(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    write_pairs(tmp_path / "pairs" / "m", pair_rows(4), [])
    tokenize(tmp_path, base_models("llama"))
    path = tmp_path / "tokens" / "manifest.json"
    path.write_text(path.read_text().replace('"max_length": 64', '"max_length": "long"'))
    with pytest.raises(UserError, match=r"manifest.json is damaged \(it has changed since it was written\)"):
        TokenDataset(tmp_path / "tokens", "train")


def test_nothing_that_fits_is_an_error(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    pairs = [{**row, "chosen": "xylophones jump", "rejected": "zebras quack"} for row in pair_rows(4)]
    write_pairs(tmp_path / "pairs" / "m", pairs[:3], pairs[3:])
    with pytest.raises(
        UserError, match=r"4 of 4 pairs cannot be tokenized \(answer_too_long 4\), so that none is left"
    ):
        tokenize(tmp_path, base_models("llama"), max_length=8)
    assert not (tmp_path / "tokens").exists()


@pytest.mark.parametrize("name", ["harmless-base", "helpful-base"])
def test_real_transcripts_add_up(tmp_path: Path, shared_data: Path, name: str) -> None:
    source = shared_data / "hh_rlhf_test" / name / "test.jsonl.gz"
    with gzip.open(source, "rt") as stream:
        data = [json.loads(line) for line in stream][:600]
    stats = build(tmp_path, {"hh": data}, eval_fraction=0.1)
    assert stats["by_dataset"]["hh"]["format"] == "transcript"
    assert stats["rows_in"] == 600 == stats["pairs_out"] + sum(stats["rejects"].values())
    assert stats["pairs_out"] > 580
    for row in list(read_rows(tmp_path / "pairs" / "m" / "eval"))[:20]:
        prompt: Any = row["prompt"]
        turns = "".join(
            f"\n\n{ {'user': 'Human', 'assistant': 'Assistant'}[t['role']] }: {t['content']}" for t in prompt
        )
        text = " ".join(f"{turns}\n\nAssistant: {row['chosen']}".split())
        assert any(" ".join(raw["chosen"].split()) == text for raw in data)


WITH_TOOLS = (
    "{% for tool in tools or [] %}<|tool|>{{ tool | tojson }}{% endfor %}{% if terse %}<|terse|>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% for call in m.tool_calls or [] %}"
    "<|call|>{{ call.function.name }}{{ call.function.arguments | tojson }}{% endfor %}{% endfor %}"
)


def trajectory_row(n: int) -> Json:
    """The chosen side calls a tool and reads its result; the rejected one guesses, and is asked again."""
    arguments = {"a": n, "b": 1} if n % 2 else {"a": n}
    call = {"type": "function", "function": {"name": "add", "arguments": arguments}}
    question = {"role": "user", "content": f"Add one to {n}."}
    chosen = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": str(n + 1)},
        {"role": "assistant", "content": f"It is {n + 1}."},
    ]
    rejected = [
        {"role": "assistant", "content": f"It is {n}, I guess."},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "No."},
    ]
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    sides = {"chosen": [question, *chosen], "rejected": [question, *rejected]}
    return {**sides, "tools": tools, "chat_template_kwargs": {"terse": n % 3 == 0}}


def test_trajectories_train_and_score_as_they_are(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    base, rows = base_models("llama"), [trajectory_row(n) for n in range(40)]
    table = pa.Table.from_pylist(rows)  # in which calls have the arguments of all
    pq.write_table(table, tmp_path / "rows.parquet")
    stats = build(tmp_path, {"json": rows[:20], "table": [str(tmp_path / "rows.parquet")]}, eval_fraction=0.3)
    assert stats["pairs_out"] == 40 and stats["rejects"] == {"duplicate": 20}
    found = tokenize(tmp_path, base, template="chat", chat_template=WITH_TOOLS, max_length=300)
    assert not found.manifest.changed and not found.manifest.dropped
    tokenizer = load_tokenizer(base)
    texts = {
        tokenizer.apply_chat_template(
            one[side], chat_template=WITH_TOOLS, tools=one["tools"], tokenize=False, **one["chat_template_kwargs"]
        )
        + "<|end|>"
        for one in rows
        for side in ("chosen", "rejected")
    }
    read = [found[index] for index in range(len(found))]
    for item in read:
        assert {tokenizer.decode(np.concatenate([item.prefix, tail])) for tail in item.tails} <= texts
    train(tmp_path, tmp_path / "tokens", base, max_steps=2, eval_every=0, score="mean")
    scorer = Scorer(str(tmp_path / "out"))
    trained = {item.prefix.tobytes() + tail.tobytes(): item.answer_start for item in read for tail in item.tails}
    scored = [
        item for item in scorer.encode(*columns([parse_row(one) for one in rows])) if isinstance(item, Comparison)
    ]
    tails = {item.prefix.tobytes() + tail.tobytes(): item.answer_start for item in scored for tail in item.tails}
    assert len(scored) == 40 and trained.items() <= tails.items()
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    for name in ("rows.jsonl", "rows.parquet"):
        assert score_file(str(tmp_path / name), str(tmp_path / f"scored.{name}"), scorer) == 0
    lines = [json.loads(line) for line in (tmp_path / "scored.rows.jsonl").read_text().splitlines()]
    again = list(read_rows(tmp_path / "scored.rows.parquet"))
    expected = scorer.score_encoded(list(scored))
    for one, other, scores in zip(lines, again, expected, strict=True):
        assert [one["chosen_score"], one["rejected_score"]] == pytest.approx(scores, abs=1e-5)
        assert [other["chosen_score"], other["rejected_score"]] == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize("is_set", [True, False])
def test_names_of_systems_are_prompts_in_scores_where_training_reads_them(
    tmp_path: Path, base_models: Callable[..., Path], is_set: bool
) -> None:
    base, names = base_models("llama"), ("gpt-4-0613", "Claude 2", "llama-2-7b-chat")
    named = [{**row, "system": names[k % 3]} for k, row in enumerate(rows(24))]
    fields = {"system": "system"} if is_set else {}
    build(tmp_path, {"d": named}, {"d": {"fields": fields}}, eval_fraction=0.2)
    datasets: Json = {"d": {"files": ["d.jsonl"], "fields": fields}, "e": {"files": ["e.jsonl"]}}
    entries = {"models": {"x": {"path": "x"}}, "runs": {"r": {"mixture": "m", "model": "x"}}}
    config = resolve({"datasets": datasets, "mixtures": {"m": {"datasets": {"d": 1, "e": 1}}}, **entries})
    settings = join_settings(config, "m")
    assert settings.reads_names == is_set == ("reads_names" in settings.as_json())
    found = tokenize(tmp_path, base, reads_names=settings.reads_names)
    train(tmp_path, tmp_path / "tokens", base, max_steps=1, eval_every=0)
    scorer = Scorer(str(tmp_path / "out"))
    read = [parse_row(row, scorer.reads_names) for row in named]
    assert all(bool(row.ignored) != is_set for row in read)
    encoded = [item for item in scorer.encode(*columns(read)) if isinstance(item, Comparison)]
    texts = [
        {item.prefix.tobytes() + tail.tobytes() for item in every for tail in item.tails}
        for every in ([found[n] for n in range(len(found))], encoded)
    ]
    assert texts[0] and texts[0] <= texts[1]
    scores = [pytest.approx(one, abs=1e-5) for one in scorer.score_encoded(list(encoded))]
    write_rows(tmp_path / "rows.jsonl", named)
    assert score_file(str(tmp_path / "rows.jsonl"), str(tmp_path / "scored.jsonl"), scorer) == 0
    lines = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    assert [[line["chosen_score"], line["rejected_score"]] for line in lines] == scores
    with TestClient(Service(scorer, Limits()).app()) as client:
        replies = client.post("/score", json=named).json()
    assert [list(reply.values()) for reply in replies] == scores
    files = json.dumps({"files": [str(tmp_path / "rows.jsonl")]})
    assert download.main(["--name", "c", "--settings", files, "--output", str(tmp_path / "scored")]) == 0
    shard = json.dumps({"name": "c", "shard": 0, "shards": 1})
    options = {"--data": tmp_path / "scored" / "manifest.json", "--model": tmp_path / "out"}
    options |= {"--parts": tmp_path / "parts", "--output": tmp_path / "shard"}
    assert score_rows.main(["--settings", shard, *(str(part) for one in options.items() for part in one)]) == 0
    assert [row.scores for row in read_typed_rows(tmp_path / "shard", RowScores)] == scores
    options = {"--data": options["--data"], "--shards": tmp_path / "shard" / "manifest.json"}
    options["--output"] = tmp_path / "collected"
    plain = json.dumps({"name": "c", "run": "r"})
    assert collect_scores.main(["--settings", plain, *(str(part) for one in options.items() for part in one)]) == 0
    best = [row["prompt"] for row in pq.read_table(tmp_path / "collected" / "best.parquet").to_pylist()]
    assert {turns[0]["role"] for turns in best} == ({"system"} if is_set else {"user"})
