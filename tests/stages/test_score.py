"""Scores of one's own text: the table, files of every kind, models of every kind, and what is wrong with either."""

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import zstandard
from huggingface_hub import constants
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

import score
from rewardline.core.cli import print_anything
from rewardline.core.errors import UserError
from rewardline.data.schema import Message
from rewardline.scoring.text_scorer import Scorer

from support.paths import ROOT
from support.reward_models import reward_model

Json = dict[str, Any]
SEED_TABLE = {
    "Please tell me about Microsoft in a few sentence?": (
        "Microsoft is a company from Redmond that makes Windows, Office and the Azure cloud. It was founded in 1975.",
        "I am not sure. What is your favourite colour? I am not sure.",
    ),
    "Explain the moon landing to a 6 year old in a few sentences.": (
        "In 1969 three astronauts flew to the Moon in a big rocket. Two of them walked on it and came home safely.",
        "I don't know, I don't know.",
    ),
}
ROWS: list[Json] = [
    {"prompt": "How many are 3 and 4?", "answer": "They are 7.", "id": 10**20, "note": "ä"},
    {"prompt": "How many are 3 and 4?", "answers": ["They are 7.", "They are 8.", "No"], "id": None},
    {"prompt": [{"role": "user", "content": "How many are 3 and 4?"}], "chosen": "They are 7.", "rejected": "No"},
    {"messages": [{"role": "user", "content": "How many are 3 and 4?"}, {"role": "assistant", "content": "No"}]},
    {
        "prompt": "How many are 3 and 4?",
        "chosen": [{"role": "assistant", "content": "They are 7."}],
        "rejected": [{"role": "user", "content": "How many are 3 and 4?"}, {"role": "assistant", "content": "No"}],
    },
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, base_models: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("models") / "reward"
    reward_model(base_models("llama"), folder)
    return folder


@pytest.fixture(scope="module")
def scorer(model: Path) -> Scorer:
    return Scorer(str(model))


def plain_scores(model: Path, prompt: str, answers: list[str]) -> list[float]:
    """As a person would with transformers alone, one text at a time."""
    loaded = AutoModelForSequenceClassification.from_pretrained(model).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    scores = []
    for answer in answers:
        text = f"Human: {prompt}\n\nAssistant: {answer}{tokenizer.eos_token}"
        with torch.inference_mode():
            scores.append(loaded(**tokenizer(text, return_tensors="pt")).logits[0, 0].item())
    return scores


def scored(model: Path, source: Path | str, target: Path, *more: str) -> tuple[int, list[Json]]:
    code = score.main(["--model", str(model), "--input", str(source), "--output", str(target), *more])
    return code, [json.loads(line) for line in target.read_text().splitlines()]


def test_the_table_shows_query_answer_and_score_best_first(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options, expected = [], []
    for prompt, answers in SEED_TABLE.items():
        options += [f"--prompt={prompt}", *[f"--answer={answer}" for answer in answers]]
        ranked = sorted(zip(plain_scores(model, prompt, list(answers)), answers, strict=True), reverse=True)
        expected += [(prompt, answer, number) for number, answer in ranked]
    assert score.main(["--model", str(model), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["query", "answer", "score"]
    assert max(map(len, lines)) <= 100
    rules = [index for index, line in enumerate(lines) if set(line) == {"-"}]
    blocks = [lines[begin + 1 : end] for begin, end in pairwise(rules)]
    assert len(blocks) == len(expected) == 4
    for block, (prompt, answer, number) in zip(blocks, expected, strict=True):
        assert float(block[0].split()[-1]) == pytest.approx(number, abs=1e-4)
        assert " ".join(line[:43].strip() for line in block).strip() == prompt
        assert " ".join(line[45:88].strip() for line in block).strip() == answer


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--answer=a"],
        ["--prompt=a"],
        ["--prompt= ", "--answer=a"],
        ["--prompt=a", "--input=b"],
        ["--prompt=a", "--answer=b", "--output=c"],
    ],
)
def test_a_prompt_needs_text_and_answers(model: Path, options: list[str]) -> None:
    with pytest.raises(UserError, match="--prompt"):
        score.main(["--model", str(model), *options])


def test_every_shape_of_row_gets_the_scores_that_transformers_give(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text("\n\n".join(json.dumps(row) for row in ROWS))
    code, rows = scored(model, source, tmp_path / "out.jsonl")
    assert code == 0
    seven, eight, no = plain_scores(model, "How many are 3 and 4?", ["They are 7.", "They are 8.", "No"])
    pair = {"chosen_score": seven, "rejected_score": no}
    expected: list[Json] = [{"score": seven}, {"scores": [seven, eight, no]}, pair, {"score": no}, pair]
    for before, after, new in zip(ROWS, rows, expected, strict=True):
        assert list(after) == [*before, *new], "the columns stay, in their order, and scores follow"
        assert {key: after[key] for key in before} == before
        for name, value in new.items():
            assert after[name] == pytest.approx(value, abs=1e-5)


def test_scores_depend_neither_on_batches_nor_on_neighbours_nor_on_order(model: Path, scorer: Scorer) -> None:
    texts = [f"How many are {k} and {k}? " + "Say it. " * (k % 5) for k in range(30)]
    prompts = [[Message(role="user", content=text)] for text in texts]
    answers = [[f"They are {2 * k}.", "No" * (1 + k % 7), "They"][: 1 + k % 3] for k in range(30)]
    together = scorer.score(prompts, answers)
    assert all(isinstance(found, list) for found in together)
    small = Scorer(str(model), batch_tokens=40)
    for k in reversed(range(30)):
        (alone,) = scorer.score([prompts[k]], [answers[k]])
        (tight,) = small.score([prompts[k]], [list(reversed(answers[k]))])
        assert alone == pytest.approx(together[k], abs=1e-5)
        assert isinstance(tight, list)
        assert tight[::-1] == pytest.approx(together[k], abs=1e-5)


def test_bad_rows_say_why_and_where_and_cost_nothing_else(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {
        "{": "not JSON",
        "[1]": "not an object",
        '{"prompt": "a"}': "neither `answer`",
        '{"answer": "a", "note": 1}': "no `prompt`",
        '{"prompt": " ", "answer": "a"}': "empty",
        '{"prompt": "a", "answers": []}': "at least one",
        '{"prompt": "a", "answer": 3}': "a number, not text",
        '{"prompt": "a", "answer": "\\ud800"}': "lone surrogate",
        '{"prompt": "a", "answer": "' + "word " * 3000 + '"}': "the answer alone has",
        '{"prompt": "a", "answer": "' + "a" * 1_000_001 + '"}': "1,000,000 are allowed",
        '{"prompt": [{"role": "judge", "content": "a"}], "answer": "a"}': "role 'judge'",
        '{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "a"}]}': "no turn of the",
        '{"prompt": "a", "answer": "a", "score": 1}': "",
    }
    good = json.dumps(ROWS[0])
    lines = [text for line in list(bad)[:-1] for text in (line, good)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    code, rows = scored(model, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert code == 1
    assert [row["score"] for row in rows[1::2]] == pytest.approx([rows[1]["score"]] * (len(bad) - 1), abs=1e-5)
    for row, reason in zip(rows[::2], bad.values(), strict=False):
        assert reason in row["error"]
    assert rows[6]["note"] == 1, "a bad row keeps its columns"
    messages = capsys.readouterr().err
    assert "in.jsonl row 1: not JSON" in messages
    assert "12 of 24 rows could not be scored" in messages
    (tmp_path / "in.jsonl").write_text("\n".join([good, list(bad)[-1]]))
    with pytest.raises(UserError, match=r"in\.jsonl row 2 has `score` already; give --prefix"):
        scored(model, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    code, rows = scored(model, tmp_path / "in.jsonl", tmp_path / "new.jsonl", "--prefix", "my_")
    assert (code, rows[1]["score"]) == (0, 1)
    assert isinstance(rows[1]["my_score"], float)


def test_parquet_keeps_its_schema_and_its_order(model: Path, tmp_path: Path) -> None:
    count = 1200
    prompts: list[Any] = [f"How many are {k} and {k}?" for k in range(count)]
    prompts[700] = ""
    table = pa.table(
        {
            "prompt": prompts,
            "chosen": [f"They are {2 * k}." for k in range(count)],
            "rejected": ["No"] * count,
            "when": pa.array(range(count), pa.timestamp("us", "UTC")),
            "kind": pa.array(["a", "b"] * (count // 2)).dictionary_encode(),
        }
    ).replace_schema_metadata({"origin": "here"})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=100)
    base = ["--model", str(model), "--input", str(tmp_path / "in.parquet"), "--output"]
    assert score.main([*base, str(tmp_path / "out.parquet")]) == 1
    result = pq.read_table(tmp_path / "out.parquet")
    assert result.column_names == [*table.column_names, "chosen_score", "rejected_score", "error"]
    assert result.select(table.column_names).equals(table)
    assert result.schema.metadata[b"origin"] == b"here"
    missing = result.column("chosen_score").is_null().to_pylist()
    assert [index for index, null in enumerate(missing) if null] == [700]
    assert "empty" in result.column("error")[700].as_py()
    assert score.main([*base, str(tmp_path / "out.jsonl.gz")]) == 1
    with gzip.open(tmp_path / "out.jsonl.gz", "rt") as stream:
        lines = [json.loads(line) for line in stream]
    assert [line.get("chosen_score") is None for line in lines] == missing
    for name in ("chosen_score", "rejected_score"):
        kept = [index for index in range(count) if index != 700]
        found = [lines[index][name] for index in kept]
        assert found == pytest.approx([result.column(name)[index].as_py() for index in kept], abs=1e-5)
    assert lines[1]["when"].startswith("1970-01-01")
    expected = plain_scores(model, prompts[3], ["They are 6."])
    assert lines[3]["chosen_score"] == pytest.approx(expected[0], abs=1e-5)


def test_compressed_files_and_the_terminal_are_read_and_written(model: Path, tmp_path: Path) -> None:
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "in.jsonl.zst").write_bytes(zstandard.compress(text.encode()))
    score.main(
        ["--model", str(model), "--input", str(tmp_path / "in.jsonl.zst"), "--output", str(tmp_path / "o.jsonl.zst")]
    )
    with zstandard.open(tmp_path / "o.jsonl.zst", "rt") as stream:
        expected = stream.read()
    command = [sys.executable, str(ROOT / "scripts" / "score.py"), "--model", str(model), "--input", "-"]
    log = ["--log", str(tmp_path / "log")]
    done = subprocess.run([*command, *log], input=text + "3", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    rounded = partial(json.loads, parse_float=lambda number: round(float(number), 4))  # the batches differ
    lines = [*map(rounded, done.stdout.splitlines())]
    assert lines[:-1] == [*map(rounded, expected.splitlines())]
    assert lines[-1] == {"row": 6, "error": "not an object: integer"}
    assert "stdin row 6: not an object" in (tmp_path / "log").read_text()


def test_a_pipe_is_written_to_and_a_link_is_followed(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps(ROWS[0]))
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit((tmp_path / "pipe").read_text)
        score.main(["--model", str(model), "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "pipe")])
        assert "score" in json.loads(read.result())
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    scored(model, tmp_path / "in.jsonl", tmp_path / "link.jsonl")
    assert (tmp_path / "link.jsonl").is_symlink()
    assert "score" in json.loads((tmp_path / "elsewhere.jsonl").read_text())


def test_prompts_that_are_cut_are_counted_and_no_rows_are_no_secret(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": "Say it. " * count, "answer": "They are 7."} for count in (1, 100, 200)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, found = scored(model, tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--max-length", "64")
    uncut, *cut = (row["score"] for row in found)
    assert code == 0
    assert cut[0] == pytest.approx(cut[1], abs=1e-5)
    assert cut[0] != pytest.approx(uncut, abs=1e-3)
    assert "2 prompts lost their beginning, to fit into 64 tokens" in capsys.readouterr().err
    (tmp_path / "in.jsonl").write_text("")
    assert scored(model, tmp_path / "in.jsonl", tmp_path / "out.jsonl") == (0, [])
    assert "in.jsonl has no rows" in capsys.readouterr().err


def test_files_that_cannot_be_read_or_written_leave_no_output(model: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS[0]))
    (tmp_path / "rows.xyz").write_text("")
    (tmp_path / "bad.parquet").write_text("no")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "other.parquet")
    twice = pa.Table.from_arrays([pa.array(["a"])] * 3, ["prompt", "answer", "prompt"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    text = "".join(json.dumps({"prompt": f"{k * k}", "answer": "b"}) + "\n" for k in range(2000))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(text.encode())[:-2000])
    long = pa.table({"prompt": [f"{k * k}" for k in range(20_000)], "answer": ["b"] * 20_000})
    pq.write_table(long, tmp_path / "spoilt.parquet", use_dictionary=False)
    with (tmp_path / "spoilt.parquet").open("r+b") as stream:
        stream.seek(100)
        stream.write(b"spoilt" * 500)
    (tmp_path / "folder.jsonl").mkdir()
    for source, target, message in (
        ("missing.jsonl", "out.jsonl", "does not exist"),
        (".", "out.jsonl", "is not a file"),
        ("rows.xyz", "out.jsonl", "unknown format"),
        ("rows.jsonl", "out.parquet", "only rows from Parquet"),
        ("bad.parquet", "out.parquet", "damaged"),
        ("other.parquet", "out.parquet", "its columns are text"),
        ("twice.parquet", "out.parquet", "two columns of the same name"),
        ("cut.jsonl.gz", "out.jsonl", r"cut\.jsonl\.gz is damaged after row \d+"),
        ("spoilt.parquet", "out.parquet", "spoilt.parquet is damaged after row 0"),
        ("rows.jsonl", "out.csv.gz", "name it .jsonl"),
        ("rows.jsonl", "folder.jsonl", "is a folder"),
    ):
        with pytest.raises(UserError, match=message):
            score.main(["--model", str(model), "--input", str(tmp_path / source), "--output", str(tmp_path / target)])
    assert not list(tmp_path.glob("*out*"))


def edited(model: Path, folder: Path, name: str, **changes: Any) -> str:
    shutil.copytree(model, folder)
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return str(folder)


def test_models_that_cannot_score_are_refused(model: Path, tmp_path: Path, base_models: Callable[..., Path]) -> None:
    base = base_models("llama")
    several = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    several.save_pretrained(tmp_path / "several")
    endless = edited(model, tmp_path / "endless", "tokenizer_config.json", eos_token=None)
    broken = tmp_path / "broken"
    loaded = reward_model(base, broken)
    with torch.no_grad():
        loaded.get_submodule("score").weight[0, 3] = float("nan")
    loaded.save_pretrained(broken)
    adapter = edited(model, tmp_path / "adapter", "config.json")
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter" / "model.safetensors").rename(tmp_path / "adapter" / "adapter_model.safetensors")
    wordless = edited(model, tmp_path / "wordless", "config.json")
    for path in (tmp_path / "wordless").glob("tokenizer*"):
        path.unlink()
    (tmp_path / "empty").mkdir()
    for folder, message in (
        (str(base), "score head .* is missing"),
        (str(tmp_path / "several"), "a classifier with 3 labels"),
        (endless, "no end token"),
        (str(broken), "score.weight holds values that are not finite"),
        (str(tmp_path / "nowhere"), "is not a folder"),
        (adapter, "LoRA adapter"),
        (wordless, "no tokenizer; give --tokenizer"),
        (str(tmp_path / "empty"), "no config.json"),
        (edited(model, tmp_path / "wide", "config.json", hidden_size=16), "another shape|cannot be loaded"),
    ):
        with pytest.raises(UserError, match=message):
            Scorer(folder)


def test_a_model_of_another_tool_is_read_where_its_chat_template_ends(
    tmp_path: Path, base_models: Callable[..., Path]
) -> None:
    reward_model(base_models("qwen2"), tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.chat_template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<|end|>\n{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "model")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    prompt, answers = [Message(role="user", content="How many are 1 and 2?")], ["They are 3.", "No"]
    (found,) = Scorer(str(tmp_path / "model")).score([prompt], [answers])
    for answer, number in zip(answers, found if isinstance(found, list) else [], strict=True):
        messages = [*prompt, {"role": "assistant", "content": answer}]
        ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
        with torch.inference_mode():
            assert number == pytest.approx(loaded(**ids).logits[0, 0].item(), abs=1e-5)


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_neither_a_padding_token_nor_a_decoder_is_needed(
    tmp_path: Path, base_models: Callable[..., Path], kind: str
) -> None:
    base = base_models("llama")
    folder = tmp_path / "model"
    if kind == "bert":
        shutil.copytree(base, folder)
        (folder / "model.safetensors").unlink()
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        words = len(AutoTokenizer.from_pretrained(base))
        config = AutoConfig.for_model("bert", vocab_size=words, num_labels=1, pad_token_id=1, **sizes)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    else:
        reward_model(base, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": None}))
    assert AutoTokenizer.from_pretrained(folder).pad_token is None
    (folder / "run.json").write_text("[]")  # another tool's
    answers = ["They are 7.", "No", "They are 8, are they not?"]
    (found,) = Scorer(str(folder)).score([[{"role": "user", "content": "How many are 3 and 4?"}]], [answers])
    assert found == pytest.approx(plain_scores(folder, "How many are 3 and 4?", answers), abs=1e-5)


def test_a_model_of_the_hub_is_taken_from_its_cache(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "models--someone--reward"
    shutil.copytree(model, home / "snapshots" / ("c" * 40))
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("c" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (found,) = Scorer("someone/reward").score([[{"role": "user", "content": "How many are 3 and 4?"}]], [["No"]])
    assert found == pytest.approx(plain_scores(model, "How many are 3 and 4?", ["No"]), abs=1e-5)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set, and someone/other"):
        Scorer("someone/other")


def test_a_score_that_is_no_number_costs_its_row_alone(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    folder = tmp_path / "model"
    loaded = reward_model(base_models("opt"), folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (poison,) = tokenizer.encode("~", add_special_tokens=False)
    with torch.no_grad():
        loaded.get_input_embeddings().weight[poison] = 3e38  # too much for the projection behind it
        loaded.get_submodule("model.decoder.project_in").weight.mul_(1000)
    loaded.save_pretrained(folder)
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({"prompt": "a", "answer": text}) for text in "1~2"))
    code, rows = scored(folder, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert code == 1
    assert ["score" in row for row in rows] == [True, False, True]
    assert "not a finite number" in rows[1]["error"]


def test_a_terminal_without_unicode_shows_escapes_and_rows_stay_utf_8(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    for options, expected in (
        (["--prompt", "Wie viel? Größer?", "--answer", "7 €"], b"Gr\\xf6\\xdfer? "),
        (["--input", str(tmp_path / "rows.jsonl")], '"note":"ä"'.encode()),
    ):
        written = io.BytesIO()
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
        print_anything()
        assert score.main(["--model", str(model), *options]) == 0
        sys.stdout.flush()
        assert expected in written.getvalue()


def test_a_tilde_is_the_home_folder(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").symlink_to(model)
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    options = ["--tokenizer=~/model", "--input=~/rows.jsonl", "--output=~/out/scored.jsonl"]
    assert score.main(["--model=~/model", *options]) == 0
    assert json.loads((tmp_path / "out" / "scored.jsonl").read_text())["score"]
