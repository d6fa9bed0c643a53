"""Inputs of the compared training runs and evaluations: model folder, tokens, and pairs in a fixed order."""

import gzip
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
Json = dict[str, Any]
LLAMA: Json = {"model_type": "llama", "max_position_embeddings": 4096}
SHAPES: dict[str, Json] = {
    "tiny": {
        **LLAMA,
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 49_152,
    },
    "smollm2-135m": {
        **LLAMA,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49_152,
    },
    "llama-1b": {
        **LLAMA,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
    },
}
"""Configurations of random models; their tokenizer is trained on the data and may be smaller than `vocab_size`."""


@dataclass(frozen=True)
class Work:
    """Inputs of all training runs.

    Attributes:
        folder: the working folder.
        tokens, base: folders for scripts/train.py; `base` has a score head, so that all runs start with the same one.
        settings: settings of scripts/train.py.
        pairs: JSON Lines file with the token ids {chosen, rejected} of each pair, in the order of scripts/train.py.
        lengths: number of tokens of each pair's chosen and rejected sequence.
        shared: number of tokens of each pair's common prefix.
        pad_id: id of the padding token.
        max_length: maximum number of tokens of a sequence.
        parameters: number of parameters without the embeddings.
    """

    folder: Path
    tokens: Path
    base: Path
    settings: Json
    pairs: Path
    lengths: list[tuple[int, int]]
    shared: list[int]
    pad_id: int
    max_length: int
    parameters: int


def prepare(folder: Path, data: Path | None, model: str, pairs: int, max_length: int, training: Json) -> Work:
    """Run the pipeline up to the tokens of at least `pairs` training pairs, in `folder`.

    `training` is the section `training` of the run; `model` is a name in `SHAPES` or a model folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source: Json = {"demo": {"pairs": pairs * 2, "seed": 1}}
    if data is not None:
        with (gzip.open if data.suffix == ".gz" else open)(data, "rt", encoding="utf-8") as stream:
            (folder / "data.jsonl").write_text("".join(islice(stream, round(pairs * 1.2) + 16)), encoding="utf-8")
        source = {"files": [str(folder / "data.jsonl")], "format": "transcript"}
    config: Json = {
        "datasets": {"d": source},
        "mixtures": {"m": {"datasets": {"d": 1.0}, "eval_fraction": 0.02}},
        "models": {"x": {"path": str(folder / "model"), "max_length": max_length, "template": "plain"}},
        "runs": {"r": {"mixture": "m", "model": "x", "training": training}},
    }
    # The pairs do not depend on the model, which is made with a tokenizer trained on them.
    _pipeline(folder, {**config, "models": {"x": {"path": "any/model"}}}, "results/pairs/m/stats.json")
    (folder / "model").mkdir(exist_ok=True)
    parameters = _make_model(folder, model)
    _pipeline(folder, config, "results/tokens/m/x/manifest.json")
    return _work(folder, config, parameters)


def _pipeline(folder: Path, config: Json, target: str) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    options = ["--cores", "2", "--quiet", "--directory", str(folder), "--configfile", str(folder / "config.yaml")]
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), target, *options]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def _make_model(folder: Path, name: str) -> int:
    """Save a model with a score head and its tokenizer to `folder/model`; returns its parameters without embeddings."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    from rewardline.tokens.settings import NewTokenizerSettings
    from rewardline.tokens.train_tokenizer import train_tokenizer

    torch.manual_seed(0)
    if name in SHAPES:
        values = dict(SHAPES[name])
        tokenizer = train_tokenizer(
            folder / "results/pairs/m/train", NewTokenizerSettings(mixture="m", vocab_size=values["vocab_size"])
        )
        ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        config = AutoConfig.for_model(values.pop("model_type"), num_labels=1, **ids, **values)
        model = AutoModelForSequenceClassification.from_config(config)
    else:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=1, dtype=torch.float32)
        if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
            tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
            model.resize_token_embeddings(max(len(tokenizer), model.config.vocab_size), mean_resizing=False)
        model.config.pad_token_id = tokenizer.pad_token_id
    tokenizer.save_pretrained(folder / "model")
    model.save_pretrained(folder / "model")
    embedding = model.get_input_embeddings().weight.numel()
    return sum(parameter.numel() for parameter in model.parameters()) - int(embedding)


def _work(folder: Path, config: Json, parameters: int) -> Work:
    from rewardline.tokens.store import TokenDataset
    from rewardline.training import batching
    from rewardline.training.settings import TrainingSettings

    training = TrainingSettings.model_validate(config["runs"]["r"]["training"]).as_json()
    tokens = folder / "results/tokens/m/x"
    data = TokenDataset(tokens, "train")
    per_step = training["pairs_per_step"]
    lengths, shared, lines = [], [], []
    plan = batching.steps(data.pair_counts, batching.order(data, 0, 0), per_step)
    # The peers take the same number of pairs in every step, so stop at the first step that cannot be filled.
    for pieces in plan[: training["max_steps"]]:
        rows = [batching.cut(data[piece.index], piece) for piece in pieces]
        if sum(len(row.pairs) for row in rows) < per_step:
            break
        for row in rows:
            for pair in row.pairs:
                chosen, rejected = (
                    [*row.prefix.tolist(), *row.tails[index].tolist()] for index in (pair.chosen, pair.rejected)
                )
                lines.append(json.dumps({"chosen": chosen, "rejected": rejected}))
                lengths.append((len(chosen), len(rejected)))
                shared.append(len(row.prefix))
    steps = len(lines) // per_step
    if not steps:
        raise SystemExit("the first step cannot be filled; use fewer --pairs-per-step")
    if steps < len(plan[: training["max_steps"]]):
        print(f"{steps} steps: the next one cannot be filled with complete comparisons", file=sys.stderr)
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {"run": "r", "mixture": "m", "model": "x", "seed": 0, "trust_remote_code": False}
    return Work(
        folder=folder,
        tokens=tokens,
        base=folder / "results/base/x",
        settings={**settings, "training": {**training, "max_steps": steps}},
        pairs=folder / "pairs.jsonl",
        lengths=lengths,
        shared=shared,
        pad_id=data.manifest.pad_id,
        max_length=data.manifest.max_length,
        parameters=parameters,
    )
