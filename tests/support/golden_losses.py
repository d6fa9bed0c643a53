"""The first losses of training runs of tiny models: one run for each architecture, objective and batching."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from rewardline.model import lora
from rewardline.model.reward_model import RewardModel
from rewardline.tokens.store import TokenDataset
from rewardline.training import engine
from rewardline.training.batching import MicroBatchLoader
from rewardline.training.settings import TrainStageSettings
from rewardline.training.step import OptimizerStep

from support.engines import one_process
from support.families import FAMILIES, MIXTURES
from support.paths import ROOT
from support.tokens import random_comparison, write_tokens
from support.training_runs import training_settings

Json = dict[str, Any]
FILE = ROOT / "tests" / "golden" / "losses.json"
STEPS = 20
OBJECTIVES: dict[str, Json] = {
    "pairwise": {},
    "kwise": {"margin": True, "warmup": 4, "schedule": "linear"},
    "per_token": {"score": "first_padding", "centering": 0.1},
    "per_token_published": {"score": "mean", "label_smoothing": 0.1},
}
BATCHINGS = ("shared_prefix", "padded")
CASES: dict[str, tuple[str, Json]] = {
    f"{family} {loss} {batching}": (family, {"loss": loss, "batching": batching, **options})
    for family in FAMILIES
    for loss, options in OBJECTIVES.items()
    for batching in BATCHINGS
    if family not in MIXTURES  # whose experts change with the last bit
}
CASES |= {
    "gpt2 pairwise shared_prefix dropout": ("gpt2", {"dropout": 0.1}),
    "llama pairwise shared_prefix lora": ("llama", {"lora": {"rank": 4, "alpha": 8, "dropout": 0.1}}),
    "llama kwise shared_prefix zero 2": ("llama", {"loss": "kwise", "zero_stage": 2}),
}


def compute() -> dict[str, list[float]]:
    """The losses of all cases, computed by one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with one_process(), tempfile.TemporaryDirectory() as folder:
            data = _data(Path(folder) / "tokens")
            return {name: _losses(family, options, data) for name, (family, options) in CASES.items()}
    finally:
        torch.set_num_threads(threads)


def _data(folder: Path) -> TokenDataset:
    """Comparisons of two to four answers, some without a shared prefix, whose pairs differ in all that a loss reads."""
    rng = np.random.default_rng(0)
    shapes = [(int(rng.integers(0, 20)), [int(n) for n in rng.integers(1, 12, rng.integers(2, 5))]) for _ in range(40)]
    rows = [random_comparison(rng, prefix, tails) for prefix, tails in shapes]
    for row in rows:
        for number, pair in enumerate(row.pairs):
            weight = float(rng.uniform(0.5, 2))
            margin, confidence = float(rng.random()), float(rng.uniform(0.5, 1))
            row.pairs[number] = replace(pair, margin=margin, confidence=confidence, weight=weight)
    write_tokens(folder, rows, [])
    return TokenDataset(folder, "train")


def _losses(family: str, options: Json, data: TokenDataset) -> list[float]:
    training = training_settings(
        **{"max_steps": STEPS, "epochs": STEPS, "pairs_per_step": 6, "tokens_per_micro_batch": 120},
        **{"learning_rate": 3e-4, "eps": 1e-4, **options},
    )
    settings = TrainStageSettings(run="r", mixture="m", model="x", seed=1, training=training)
    model = _model(family, training.dropout or 0.0)
    if training.lora:
        lora.add_adapters(model, training.lora, settings.seed)
    wrapped = RewardModel(
        model, training.batching, "sdpa", score=training.score, raw=True, max_length=64, dtype=torch.float32
    )
    assert wrapped.batching == training.batching
    running = engine.create(wrapped, training, engine.deepspeed_config(training))
    loader = MicroBatchLoader(wrapped, training, data, 0, torch.device("cpu"), objective=True)
    step = OptimizerStep(running, settings, loader)
    return [step.take(number, planned, lambda _: None).sums.loss for number, planned in enumerate(step.steps(0))]


def _model(family: str, dropout: float) -> Any:
    torch.manual_seed(0)
    values = {**FAMILIES[family]}
    config = AutoConfig.for_model(
        values.pop("model_type"), vocab_size=90, num_labels=1, pad_token_id=0, bos_token_id=1, eos_token_id=2, **values
    )
    for name in config.to_dict():
        if name.endswith(("dropout", "_pdrop")) and isinstance(getattr(config, name), float | int):
            setattr(config, name, dropout)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        model.score.weight.normal_(std=0.1)
    return model
