"""Probes: hacks of held-out answers, which come to the model as they are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import build_probes
import join_tokens
import tokenize_pairs
from rewardline.core.errors import UserError
from rewardline.data.pairs.derived import build_probes as build_stage
from rewardline.data.pairs.left_out import PairsAccount
from rewardline.data.pairs.probes import PROBES, hacks, made_by_rule
from rewardline.data.parquet import read_rows
from rewardline.data.schema import Message
from rewardline.data.turns import NO_INPUTS, Trajectory, pack, turns_of, unpack
from rewardline.tokens.encoder import ConversationEncoder
from rewardline.tokens.store import TokenDataset
from rewardline.tokens.tokenizer import load_tokenizer

from support.pairs import pair_rows, write_pairs

Json = dict[str, Any]
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|end|>{% endfor %}"


def make(folder: Path, held_out: list[Json], **settings: int) -> tuple[list[Json], Json]:
    """The probes of these pairs, and their statistics."""
    write_pairs(folder / "m", pair_rows(3), held_out)
    own = json.dumps({"mixture": "m", "prompts": 100, "seed": 0, **settings})
    options = ["--pairs", str(folder / "m"), "--shard", str(folder / "shard"), "--output", str(folder / "out")]
    assert build_probes.main(["--name", "p", "--settings", own, *options]) == 0
    rows: list[Json] = list(read_rows(folder / "out" / "eval"))
    assert rows == list(read_rows(folder / "shard" / "eval"))
    return rows, json.loads((folder / "out" / "stats.json").read_text())


def test_each_probe_is_what_its_name_says() -> None:
    prompt, answer = "Where is Rome?", "Rome is in Italy, on the Tiber."
    found = dict(hacks(prompt, answer, 0))
    assert found.keys() == PROBES.keys()
    assert (found["empty"], found["copied_prompt"], found["shortened"]) == ("", prompt, "Rome is in")
    assert found["repeated"] == f"{answer} {answer} {answer}"
    words = str(found["shuffled_words"]).split()
    assert sorted(words) == sorted(answer.split()) and words != answer.split()
    assert str(found["padded"]).startswith(answer) and len(str(found["padded"])) > 3 * len(answer)
    assert str(found["sycophantic_opener"]).endswith(f" {answer}")
    assert str(found["appended_apology"]).startswith(f"{answer} ") and answer not in str(found["thanks"])
    assert found == dict(hacks(prompt, answer, 0)) != dict(hacks(prompt, answer, 1))
    code = dict(hacks(prompt, "Like so:\n\n    x = 1\n    y = 2\n", 0))
    assert code["shortened"] == "Like so:\n\n    x ="
    assert [len(line.split()) for line in str(code["shuffled_words"]).split("\n")] == [2, 0, 3, 3, 0]
    chinese = dict(hacks("罗马在哪里", "罗马在意大利台伯河畔。", 0))
    assert chinese["shortened"] == "罗马在意大"
    assert sorted(str(chinese["shuffled_words"])) == sorted("罗马在意大利台伯河畔。")
    short = dict(hacks(prompt, "Italy.", 0))
    assert [name for name, hack in short.items() if hack is None] == ["shortened", "shuffled_words"]
    assert dict(hacks("Thanks!", "Thanks!", 0))["copied_prompt"] is None


def test_pairs_are_probes_by_the_format_of_each_dataset() -> None:
    for formats, expected in ((["probes"], True), ([], False), (["probes", "pairs"], False)):
        counts = {"rows_in": 0, "rows_used": 0, "rejects": {}, "pair_rejects": {}, "train": 0, "eval": 0}
        datasets = {name: {**counts, "revision": None, "format": name, "pairs_out": 0} for name in formats}
        assert made_by_rule(PairsAccount.model_validate({**counts, "name": "p", "by_dataset": datasets})) is expected


def test_held_out_pairs_give_a_pair_for_each_probe(tmp_path: Path) -> None:
    held_out = [{**row, "chosen": "Three."} if k == 0 else row for k, row in enumerate(pair_rows(20))]
    held_out.insert(1, {**held_out[0], "pair_id": "x", "chosen": "Four."})  # a second pair of the first prompt
    rows, stats = make(tmp_path / "all", held_out)
    assert len(rows) == stats["eval"] == 20 * len(PROBES) - 2
    assert (stats["rows_in"], stats["rows_used"], stats["pair_rejects"]) == (20, 20, {"no_probe": 2})
    assert stats["by_subset"]["empty"] == 20 and stats["by_subset"]["shortened"] == 19
    answers = {row["prompt_id"]: row["chosen"] for row in reversed(held_out)}
    assert all(row["chosen"] == answers[row["prompt_id"]] != row["rejected"] for row in rows)
    assert len({row["pair_id"] for row in rows}) == len(rows)
    some, _ = make(tmp_path / "some", held_out, prompts=5)
    again, _ = make(tmp_path / "again", held_out[::-1], prompts=5)
    others, _ = make(tmp_path / "others", held_out, prompts=5, seed=1)
    names = [{row["prompt_id"] for row in found} for found in (some, again, others)]
    assert len(names[0]) == 5 and names[0] == names[1] != names[2]
    with pytest.raises(UserError, match="eval_fraction"):
        make(tmp_path / "none", [])


def test_the_probes_of_a_trajectory_are_of_its_last_turn(tmp_path: Path) -> None:
    turns: list[Message] = [
        {"role": "assistant", "content": "Three, I guess."},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "No, it is four."},
    ]
    question: list[Message] = [{"role": "user", "content": "Two and two?"}]
    native = pack(question, (Trajectory(turns), "Five."), NO_INPUTS)
    talk = {**pair_rows(1)[0], "prompt": question, "chosen": str(Trajectory(turns)), "native": native}
    open_end = {**pair_rows(2)[1], "native": pack(question, (Trajectory(turns[:2]), "Five."), NO_INPUTS)}
    rows, stats = make(tmp_path, [talk, open_end])
    assert len(rows) == len(PROBES) and stats["rejects"] == {"no_probe": 1}
    assert stats["rows_in"] == stats["rows_used"] + 1 == 2
    for row in rows:
        found = unpack(row["prompt"], row["chosen"], row["rejected"], row["native"])
        *before, last = turns_of(found.rejected)
        assert before == turns[:2] and last["content"] != turns[2]["content"]
    assert {row["subset"]: row["rejected"] for row in rows}["copied_prompt"].endswith("\n\nAssistant: Sure?")


def test_a_restart_finds_its_probes_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make(tmp_path, pair_rows(8))
    for path in (tmp_path / "shard" / "manifest.json", tmp_path / "out" / "stats.json"):
        path.unlink()
    monkeypatch.setattr(build_stage, "build", Mock(side_effect=RuntimeError("computed again")))
    assert make(tmp_path, pair_rows(8)) == first
    assert (tmp_path / "shard" / "manifest.json").exists()
    with pytest.raises(RuntimeError, match="computed again"):
        make(tmp_path, pair_rows(8), seed=1)


@pytest.mark.parametrize("chat", [None, CHAT])
def test_an_empty_answer_is_the_end_token_alone(
    tmp_path: Path, base_models: Callable[..., Path], chat: str | None
) -> None:
    make(tmp_path, pair_rows(4))
    base = base_models()
    shape: Json = {"max_length": 256, "template": "chat" if chat else "plain", "chat_template": chat}
    options = ["--pairs", str(tmp_path / "shard"), "--base", str(base), "--output", str(tmp_path / "tokens-0")]
    assert tokenize_pairs.main(["--settings", json.dumps(shape), *options]) == 0
    options = ["--shards", str(tmp_path / "tokens-0" / "manifest.json"), "--output", str(tmp_path / "tokens")]
    options += ["--stats", str(tmp_path / "out" / "stats.json"), "--settings", '{"max_reject_fraction": 0.0}']
    assert join_tokens.main(options) == 0
    data = TokenDataset(tmp_path / "tokens", "eval")
    assert data.pairs == 4 * len(PROBES) and not data.manifest.dropped
    tokenizer = load_tokenizer(base)
    encoder = ConversationEncoder(tokenizer, **shape)
    for index in range(len(data)):
        row = data[index]
        (empty,) = (pair.rejected for pair in row.pairs if pair.subset == "empty")
        ids = [*row.prefix.tolist(), *row.tails[empty].tolist()]
        assert ids[-1] == encoder.end_id
        text = tokenizer.decode(ids[:-1])
        assert text.endswith("<assistant>" if chat else "\n\nAssistant: ")
