"""The models: SmolLM2 on growing shares of the data, a small encoder, TRL's RewardTrainer, and the untrained model."""

import json
import math
import os
import subprocess
from pathlib import Path

import pandas as pd
from baselines import likelihood
from pipeline import ENCODER, MODEL, RATES, ROOT, Family

from rewardline.core.settings import JsonObject
from rewardline.model.loading import load_base
from rewardline.scoring.batch_scorer import window_scorer
from rewardline.tokens.store import TokenDataset
from rewardline.tokens.tokenizer import load_tokenizer
from rewardline.training.batching import cut, order, steps

NAMES = {MODEL: "SmolLM2-135M", ENCODER: "MiniLM-L6"}
TRL = "TRL RewardTrainer"


def tune(family: Family, *models: str) -> dict[str, float]:
    """The learning rates of models that `select` has chosen on the eval split; trains the runs that compete."""
    if family.plan.rates == 1:
        return {model: RATES[model][0] for model in models}
    family.make([f"models/{model}-tuned/selection.json" for model in models])
    return {model: family.chosen(model)["training"]["learning_rate"] for model in models}


def train(
    family: Family, peer_python: str | None
) -> tuple[dict[str, str], dict[str, dict[str, pd.Series]], JsonObject]:
    """Train everything; `peer_python`: a Python with TRL, None for without.

    Returns the run of each method that is a run, which pairs each other method gets right, by test set and method, and
    facts of all that were trained.
    """
    rates = tune(family, MODEL, ENCODER)
    family.make([target for model in rates for target in family.evaluated(family.curve(model))], rates)
    runs = {
        f"{NAMES[model]}, {fraction:.0%} of the pairs": run
        for model in (ENCODER, MODEL)
        for fraction, run in zip(family.plan.fractions, family.curve(model), strict=True)
    }
    facts = {name: _facts(family, run) for name, run in runs.items()}
    others: dict[str, dict[str, pd.Series]] = {}
    for test in family.tests.values():
        tokens = family.results / "tokens" / test / MODEL
        path = family.folder / "likelihood" / f"{_hash(tokens)}.parquet"
        if not path.exists():
            _write(likelihood(family.results / "base" / MODEL, tokens, family.plan.precision), path)
        others[test] = dict(pd.read_parquet(path).items())
    if peer_python is not None:
        name = f"{TRL}, {family.plan.fractions[0]:.0%} of the pairs"
        folder, facts[name] = _train_peer(family, family.curve(MODEL)[0], peer_python)
        for test in family.tests.values():
            others[test][name] = _scored(family, folder, test)
    return runs, others, facts


def _hash(folder: Path) -> str:
    found: str = json.loads((folder / "manifest.json").read_text())["manifest_hash"]
    return found


def _write(frame: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    frame.to_parquet(partial)
    partial.replace(path)


def _facts(family: Family, run: str) -> JsonObject:
    facts = json.loads((family.results / "models" / run / "run.json").read_text())
    kept = ("steps", "pairs", "tokens", "seconds", "tokens_per_second")
    return {"run": run, "learning_rate": facts["training"]["learning_rate"], **{key: facts[key] for key in kept}}


def _train_peer(family: Family, run: str, python: str) -> tuple[Path, JsonObject]:
    """TRL on the pairs of a run in their order, from the same weights, with the same optimizer; the model's folder."""
    facts = json.loads((family.results / "models" / run / "run.json").read_text())
    training, seed = facts["training"], facts["seed"]
    data = TokenDataset(family.results / "tokens" / "train" / MODEL, "train", facts.get("fraction", 1.0))
    lines = []
    for pieces in steps(data.pair_counts, order(data, seed, 0), training["pairs_per_step"]):
        for piece in pieces:
            comparison = cut(data[piece.index], piece)
            ids = [[*comparison.prefix.tolist(), *tail.tolist()] for tail in comparison.tails]
            lines += [{"chosen": ids[pair.chosen], "rejected": ids[pair.rejected]} for pair in comparison.pairs]
    count = min(facts["steps"], math.ceil(len(lines) / training["pairs_per_step"]))
    folder = family.folder / "trl" / f"{_hash(family.results / 'tokens' / 'train' / MODEL)}-{run}"
    if not (folder / "model" / "config.json").exists():
        base = folder / "base"
        if not base.exists():
            folder.mkdir(parents=True, exist_ok=True)
            tokenizer = load_tokenizer(family.results / "base" / MODEL)
            load_base(family.results / "base" / MODEL, tokenizer, seed=seed).save_pretrained(base)
            tokenizer.save_pretrained(base)
        (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        job = {
            **{key: training[key] for key in ("pairs_per_step", "learning_rate", "schedule", "weight_decay")},
            **{"steps": count, "warmup_steps": round(training["warmup"] * count), "save_steps": 20},
            **{"bf16": training["precision"] == "bf16"},
            **{"max_length": data.manifest.max_length, "threads": family.plan.threads, "base": str(base)},
            **{"pairs": str(folder / "pairs.jsonl"), "output": str(folder)},
        }
        (folder / "job.json").write_text(json.dumps(job))
        program = ROOT / "benchmarks" / "peers" / "trl_reward.py"
        quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
        subprocess.run([python, str(program), str(folder / "job.json")], env={**os.environ, **quiet}, check=True)
    return folder / "model", {
        **{"steps": count, "pairs": len(lines), "learning_rate": training["learning_rate"]},
        **{"tokens": sum(len(ids) for line in lines for ids in line.values())},
    }


def _scored(family: Family, model: Path, test: str) -> pd.Series:
    """Which pairs of a test set a model of TRL gets right."""
    tokens = family.results / "tokens" / test / MODEL
    data = TokenDataset(tokens, "eval")
    path = model.parent / f"{_hash(tokens)}.parquet"
    if not path.exists():
        score = window_scorer(model, max_length=data.manifest.max_length, batch_tokens=4096, trust_remote_code=False)
        comparisons = [data[number] for number in range(len(data))]
        rows = []
        for comparison, scores in zip(comparisons, score(comparisons), strict=True):
            for pair in comparison.pairs:
                difference = scores[pair.chosen] - scores[pair.rejected]
                rows.append({"pair_id": pair.pair_id, "correct": (difference > 0) + 0.5 * (difference == 0)})
        _write(pd.DataFrame(rows).set_index("pair_id"), path)
    return pd.read_parquet(path).correct
