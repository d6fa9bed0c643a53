"""Base models from folders of every kind, and what is refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import base_model
from rewardline.core.errors import UserError
from rewardline.core.hashing import file_sha256
from rewardline.model.loading import load_base
from rewardline.report.summary import account
from rewardline.scoring.text_scorer import Scorer
from rewardline.tokens.store import Comparison
from rewardline.tokens.tokenizer import load_tokenizer

from support.data_stages import build, tokenize
from support.families import FAMILIES
from support.pairs import pair_rows, write_pairs
from support.project import restart
from support.training_runs import train


def take(source: Path | str, out: Path, **settings: Any) -> dict[str, Any]:
    options = {"path": str(source), "revision": "main", "convert_bin": False, "trust_remote_code": False, **settings}
    base_model.main(["--settings", json.dumps(options), "--output", str(out)])
    manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return manifest


def test_new_model_and_tokenizer_are_the_same_each_time(tmp_path: Path) -> None:
    hashes = []
    for name in ("one", "two"):
        with pytest.MonkeyPatch.context() as patch:
            (tmp_path / name).mkdir()
            patch.chdir(tmp_path / name)
            write_pairs(Path("results/pairs/m"), pair_rows(60), [])
            tokenizer = {"mixture": "m", "vocab_size": 400, "bos_token": None, "eos_token": "<e>", "pad_token": "<p>"}
            settings = {"init": {"config": FAMILIES["llama"], "seed": 0, "tokenizer": tokenizer}}
            base_model.main(["--settings", json.dumps(settings), "--pairs", "results/pairs/m/train", "--output", "out"])
            hashes.append(json.loads(Path("out/manifest.json").read_text())["files"])
    assert hashes[0] == hashes[1]


def test_local_folder_is_taken_over_without_code(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    shutil.copytree(base_models("llama"), tmp_path / "source")
    (tmp_path / "source" / "modeling_custom.py").write_text("raise SystemExit('executed')")
    manifest = take(tmp_path / "source", tmp_path / "out")
    assert manifest["model_type"] == "llama"
    assert not (tmp_path / "out" / "modeling_custom.py").exists()


def test_a_model_is_prepared_again_only_if_something_has_changed(
    tmp_path: Path, base_models: Callable[..., Path]
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(base_models("llama"), source)
    manifest = take(source, out)
    assert manifest["files"] == [{"file": name, "sha256": file_sha256(out / name)} for name in manifest["xxh3"]]
    (out / "manifest.json").unlink()
    settings = json.dumps({"path": str(source)})
    restart("base_model", "--settings", settings, "--output", out)
    assert json.loads((out / "manifest.json").read_text()) == manifest
    written = (out / "config.json").stat().st_mtime_ns
    take(source, out)
    assert (out / "config.json").stat().st_mtime_ns == written
    config = (source / "config.json").read_text()
    (source / "config.json").write_text(config.replace("0.02", "0.03"))  # of the same size
    assert take(source, out)["files"] != manifest["files"]
    assert (out / "config.json").stat().st_mtime_ns != written


def test_a_chat_template_comes_with_its_tokens(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    base = base_models("llama")
    source = load_tokenizer(base)
    source.add_special_tokens({"additional_special_tokens": ["<|im_start|>"], "eos_token": "<|im_end|>"})
    source.chat_template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    source.save_pretrained(tmp_path / "chat")
    settings = {"path": str(base), "chat_template_from": str(tmp_path / "chat")}
    out = tmp_path / "out"
    assert base_model.main(["--settings", json.dumps(settings), "--output", str(out)]) == 0
    tokenizer = load_tokenizer(out)
    assert (tokenizer.chat_template, tokenizer.eos_token) == (source.chat_template, "<|im_end|>")
    assert len(tokenizer) == len(load_tokenizer(base)) + 2
    assert tokenizer("<|im_start|>a<|im_end|>")["input_ids"][::2] == tokenizer.convert_tokens_to_ids(
        ["<|im_start|>", "<|im_end|>"]
    )
    weight = load_base(out, tokenizer, seed=0).get_input_embeddings().weight
    torch.testing.assert_close(weight[-2:], weight[:-2].mean(0).expand(2, -1))
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["vocabulary"] == len(tokenizer) and "with 2 new tokens" in manifest["notes"][-1]
    source.chat_template = None
    source.save_pretrained(tmp_path / "none")
    settings["chat_template_from"] = str(tmp_path / "none")
    with pytest.raises(UserError, match="has no chat template; name another"):
        base_model.main(["--settings", json.dumps(settings), "--output", str(tmp_path / "refused")])


def test_a_tokenizer_without_an_end_token_needs_the_setting_alone(
    tmp_path: Path, base_models: Callable[..., Path]
) -> None:
    source, base = tmp_path / "source", tmp_path / "base"
    shutil.copytree(base_models("llama"), source)
    path = source / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["eos_token"]
    path.write_text(json.dumps(config))
    take(source, base)
    rows = [{"prompt": f"question {n}", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(20)]
    build(tmp_path, {"a": rows}, eval_fraction=0.3)
    with pytest.raises(UserError, match="has no end token; set end_token to a token"):
        tokenize(tmp_path, base)
    tokenize(tmp_path, base, end_token="?")
    train(tmp_path, tmp_path / "tokens", base, max_steps=2, eval_every=0)
    cores = len(os.sched_getaffinity(0))
    assert cores == 1 or f"computes with 1 of {cores} cores" in (tmp_path / "log").read_text()
    scorer = Scorer(str(tmp_path / "out"))
    assert load_tokenizer(tmp_path / "out").eos_token == "?"
    (item,) = scorer.encode([[{"role": "user", "content": "question 1"}]], [["yes 1"]])
    assert isinstance(item, Comparison) and list(item.tails[0])[-1] == load_tokenizer(base).get_vocab()["?"]
    assert scorer.score_encoded(scorer.encode_texts(["Human: question 1\n\nAssistant: yes 1"], True)) == (
        scorer.score_encoded([item])
    )


def test_sharded_weights_are_taken_over(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    base = base_models("llama")
    model = AutoModelForCausalLM.from_pretrained(base)
    load_tokenizer(base).save_pretrained(tmp_path / "source")
    model.save_pretrained(tmp_path / "source", max_shard_size="20KB")
    assert len(list((tmp_path / "source").glob("*.safetensors"))) > 1
    take(tmp_path / "source", tmp_path / "out")
    loaded = load_base(tmp_path / "out", load_tokenizer(tmp_path / "out"), seed=0)
    assert torch.equal(loaded.model.embed_tokens.weight, model.model.embed_tokens.weight)


def test_pickled_weights_are_refused_unless_their_conversion_is_asked_for(
    tmp_path: Path, base_models: Callable[..., Path]
) -> None:
    source = tmp_path / "source"
    shutil.copytree(base_models("llama"), source)
    weights = load_file(source / "model.safetensors")
    torch.save(weights, source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    with pytest.raises(UserError, match="convert_bin"):
        take(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    take(source, tmp_path / "out", convert_bin=True)
    converted = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(converted[name], weights[name]) for name in weights)
    load_base(tmp_path / "out", load_tokenizer(tmp_path / "out"), seed=0)


@pytest.mark.parametrize("shard_size", ["1GB", "20KB"])
def test_a_value_head_beside_the_weights_becomes_the_score_head(
    tmp_path: Path, base_models: Callable[..., Path], shard_size: str
) -> None:
    source, out, base = tmp_path / "source", tmp_path / "out", base_models("llama")
    model = AutoModelForCausalLM.from_pretrained(base)
    load_tokenizer(base).save_pretrained(source)
    model.save_pretrained(source, max_shard_size=shard_size)
    head = torch.randn(1, model.config.hidden_size)
    weights = {"v_head.summary.weight": head, "v_head.summary.bias": torch.tensor([0.5])}
    save_file(weights, source / "value_head.safetensors")
    save_file({"old": torch.ones(1)}, source / "consolidated.safetensors")
    notes = take(source, out)["notes"]
    assert [note.split(":")[0] for note in notes] == [
        "consolidated.safetensors is not used",
        "value_head.safetensors is the score head that training starts with",
        "its bias 0.5 is left out",
    ]
    loaded = load_base(out, load_tokenizer(out), seed=0)
    assert torch.equal(loaded.score.weight, head)
    assert torch.equal(loaded.model.embed_tokens.weight, model.model.embed_tokens.weight)
    assert "value_head.safetensors is the score head" in account([], [], [out / "manifest.json"])


@pytest.mark.parametrize("shape", [(2, 64), (1, 1, 64), (64,)])
def test_a_value_head_of_another_kind_is_refused(
    tmp_path: Path, base_models: Callable[..., Path], shape: tuple[int, ...]
) -> None:
    shutil.copytree(base_models("llama"), tmp_path / "source")
    save_file({"v_head.summary.weight": torch.ones(shape)}, tmp_path / "source" / "value_head.safetensors")
    with pytest.raises(UserError, match=r"value_head\.safetensors is no score head \(v_head\.summary\.weight"):
        take(tmp_path / "source", tmp_path / "out")


def test_a_pickled_value_head_is_not_ignored(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    shutil.copytree(base_models("llama"), tmp_path / "source")
    torch.save({"v_head.summary.weight": torch.ones(1, 64)}, tmp_path / "source" / "value_head.bin")
    with pytest.raises(UserError, match=r"value_head\.bin"):
        take(tmp_path / "source", tmp_path / "out")


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


def test_a_malicious_pickle_is_not_executed(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    source = tmp_path / "source"
    shutil.copytree(base_models("llama"), source)
    (source / "model.safetensors").unlink()
    torch.save({"weight": Malicious()}, source / "pytorch_model.bin")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        with pytest.raises(UserError, match="pytorch_model"):
            take(source, tmp_path / "out", convert_bin=True)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [("no weights", "has no weights"), ("no config", "config.json"), ("no tokenizer", "tokenizer")],
)
def test_incomplete_folder_is_refused(
    tmp_path: Path, base_models: Callable[..., Path], damage: str, message: str
) -> None:
    source = tmp_path / "source"
    shutil.copytree(base_models("llama"), source)
    names = {"no weights": "model.safetensors", "no config": "config.json", "no tokenizer": "tokenizer.json"}
    (source / names[damage]).unlink()
    with pytest.raises(UserError, match=message):
        take(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "./nowhere"}, "is not a folder"),
        ({"gguf": {"file": "nowhere.gguf"}}, "does not exist"),
        ({"init": {"config": {"model_type": "nothing"}, "seed": 0}}, "init.config"),
        ({"init": {"config": {"model_type": "llama", "hidden_size": "x"}, "seed": 0}}, "init.config"),
    ],
)
def test_model_that_cannot_be_made_is_refused(
    tmp_path: Path, settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pairs(Path("results/pairs/m"), pair_rows(10), [])
    if "init" in settings:
        names = {"bos_token": None, "eos_token": "<e>", "pad_token": "<p>"}
        settings["init"]["tokenizer"] = {"mixture": "m", "vocab_size": 300, **names}
    options = {"revision": "main", "convert_bin": False, "trust_remote_code": False, **settings}
    with pytest.raises(UserError, match=message):
        base_model.main(["--settings", json.dumps(options), "--pairs", "results/pairs/m/train", "--output", "out"])
    assert not Path("out").exists()
