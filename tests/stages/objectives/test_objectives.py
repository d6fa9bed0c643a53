"""Training runs with other scores and losses: what they compute and export, and what reads it."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import AutoModelForSequenceClassification

import evaluate
from rewardline.data.schema import Message
from rewardline.model.loading import load_base, load_reward_model
from rewardline.model.reward_model import RewardModel
from rewardline.scoring.batch_scorer import score_comparisons
from rewardline.scoring.text_scorer import Scorer
from rewardline.tokens.encoder import ConversationEncoder, EncodedAnswers
from rewardline.tokens.store import Comparison, ComparisonPair, TokenDataset
from rewardline.tokens.tokenizer import load_tokenizer
from rewardline.training import batching

from support.tokens import random_comparison, write_tokens
from support.training_runs import losses, train

Json = dict[str, Any]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    shapes = [(int(rng.integers(0, 20)), [int(n) for n in rng.integers(1, 12, rng.integers(2, 5))]) for _ in range(60)]
    rows = [random_comparison(rng, prefix, tails, vocabulary=250) for prefix, tails in shapes]
    for row in rows:
        for k, pair in enumerate(row.pairs):
            weight = float(rng.uniform(0.5, 2))
            margin, confidence = float(rng.random()), float(rng.uniform(0.5, 1))
            row.pairs[k] = replace(pair, margin=margin, confidence=confidence, weight=weight)
    folder = tmp_path_factory.mktemp("data") / "m" / "x"
    write_tokens(folder, rows[:48], rows[48:])
    return folder


CASES: list[tuple[str, Json]] = [
    ("llama", {"loss": "kwise", "normalize": True, "margin": True}),
    ("llama", {"loss": "per_token_published", "score": "mean", "normalize": True, "label_smoothing": 0.1}),
    ("gpt2", {"loss": "per_token", "score": "first_padding", "centering": 0.1}),
    ("opt", {"loss": "per_token_published", "normalize": "fold"}),
]


Trained = tuple[Path, Path, Json, list[Json]]
"""A finished training run: its folder, its base model, its options and its log."""


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tokens: Path, base_models: Callable[..., Path]
) -> Callable[[int], Trained]:
    """Do (once) the training run of a case."""

    @cache
    def make(number: int) -> Trained:
        family, options = CASES[number]
        folder, base = tmp_path_factory.mktemp("trained"), base_models(family)
        return folder, base, options, train(folder, tokens, base, **options)[1]

    return make


@pytest.fixture(params=range(len(CASES)), ids=[f"{family}-{options['loss']}" for family, options in CASES])
def trained(request: pytest.FixtureRequest, finished: Callable[[int], Trained]) -> Trained:
    return finished(request.param)


def slow_values(model: Any, ids: list[int], pads: int) -> Tensor:
    """The head's value at each token of a sequence and of padding behind it, by plain transformers."""
    tokens, mask = torch.tensor([ids + [model.config.pad_token_id] * pads]), torch.tensor([[1] * len(ids) + [0] * pads])
    values: Tensor = model.score(model.base_model(tokens, attention_mask=mask).last_hidden_state)[0, :, 0]
    return values


def slow_score(values: Tensor, length: int, start: int, score: str) -> Tensor:
    if score == "mean":
        return values[start:length].mean()
    return values[length if score == "first_padding" else length - 1]


def slow_pair(model: Any, row: Comparison, pair: ComparisonPair, options: Json) -> Tensor:
    """The loss of a pair by plain transformers, one token after the other."""
    ids = [[*row.prefix.tolist(), *row.tails[tail].tolist()] for tail in (pair.chosen, pair.rejected)]
    width = max(map(len, ids))
    values = [slow_values(model, one, width - len(one) + 1) for one in ids]
    kind = options.get("score", "end")
    scores = [slow_score(v, len(one), row.answer_start, kind) for v, one in zip(values, ids, strict=True)]
    compared = [scores]
    if options["loss"].startswith("per_token"):
        first = next(k for k in range(width) if ids[0][k : k + 1] != ids[1][k : k + 1])
        last = [width - 1] * 2 if options["loss"].endswith("published") else [len(one) - 1 for one in ids]
        compared = [[values[side][min(t, last[side])] for side in (0, 1)] for t in range(first, width)]
    smooth = options.get("label_smoothing", 0.0)
    right = pair.confidence * (1 - smooth) + (1 - pair.confidence) * smooth
    losses = []
    for chosen, rejected in compared:
        z = chosen - rejected - ((pair.margin or 0.0) if options.get("margin") else 0.0)
        losses.append(-right * logsigmoid(z) - (1 - right) * logsigmoid(-z))
    centering: float = options.get("centering", 0.0)
    return torch.stack(losses).mean() + centering * (scores[0] + scores[1]).square()


def test_first_loss_and_gradient_are_those_of_a_slow_loop(trained: Trained, tokens: Path) -> None:
    _, base, options, lines = trained
    model = load_base(base, load_tokenizer(base), seed=1, dropout=0.0).eval()
    data = TokenDataset(tokens, "train")
    kwise = options["loss"] == "kwise"
    total, weights, units = torch.zeros(()), 0.0, 0.0
    for piece in batching.steps(data.pair_counts, batching.order(data, 1, 0), 8)[0]:
        row = data[piece.index]
        share = 1 / len(row.pairs) if kwise else 1.0
        for pair in row.pairs:
            total = total + slow_pair(model, row, pair, options) * pair.weight * share
            weights, units = weights + pair.weight * share, units + share
    assert losses(lines)[0] == pytest.approx(total.item() / weights, abs=2e-6)
    prompts = [np.array([pair.weight for pair in data[k].pairs]) for k in range(len(data))]
    assert lines[0]["score_std"] > 0
    mean = np.mean([p.mean() for p in prompts]) if kwise else np.concatenate(prompts).mean()
    torch.autograd.backward(total / (units * mean))
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    assert lines[0]["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)


def test_stored_normalization_gives_the_eval_split_mean_0_and_spread_1(trained: Trained, tokens: Path) -> None:
    folder, _, options, _ = trained
    run = json.loads((folder / "out" / "run.json").read_text())
    config = json.loads((folder / "out" / "config.json").read_text())["rewardline"]
    card = (folder / "out" / "README.md").read_text()
    assert config == {"score": options.get("score", "end"), "normalization": run["normalization"]}
    scores = np.concatenate([s for _, s in scored(folder, tokens)])
    if "normalize" not in options:
        assert run["normalization"] is None
        assert "not normalized" in card
        return
    assert scores.mean() == pytest.approx(0, abs=1e-4)
    assert scores.std() == pytest.approx(1, abs=1e-4)
    raw = np.concatenate([s for _, s in scored(folder, tokens, raw=True)])
    if options["normalize"] == "fold":
        assert np.array_equal(raw, scores)
    else:
        assert raw.mean() == pytest.approx(run["normalization"]["mean"], abs=1e-5)
        assert raw.std() == pytest.approx(run["normalization"]["std"], abs=1e-5)
    assert f"{run['normalization']['std']:.4g} * (a - b)" in card


def scored(folder: Path, tokens: Path, raw: bool = False) -> list[tuple[Any, Any]]:
    data = TokenDataset(tokens, "eval")
    model = RewardModel(load_reward_model(folder / "out"), raw=raw)
    rows = (data[k] for k in range(len(data)))
    return list(score_comparisons(model, rows, device=CPU, pad_id=model.model.config.pad_token_id))


def test_plain_transformers_score_alike_or_the_card_says_that_they_do_not(trained: Trained, tokens: Path) -> None:
    folder, _, options, _ = trained
    plain = AutoModelForSequenceClassification.from_pretrained(folder / "out").eval()
    differences = []
    for row, scores in scored(folder, tokens):
        for tail, score in zip(row.tails, scores, strict=True):
            ids = torch.tensor([[*row.prefix.tolist(), *tail.tolist()]])
            with torch.no_grad():
                differences.append(abs(plain(ids).logits.item() - score))
    card = (folder / "out" / "README.md").read_text()
    if options.get("score", "end") != "end":
        assert "gives **another score**" in card
    elif options["normalize"] is True:
        assert "gives the raw score" in card
    else:
        assert max(differences) < 1e-5
        return
    assert max(differences) > 1e-3


def test_evaluation_reads_what_is_stored(trained: Trained, tokens: Path, tmp_path: Path) -> None:
    folder, _, _, _ = trained
    settings = {"run": "r", "name": "r", "mixture": "m", "model": "x", "seed": 1, "benchmark": "eval"}
    places = ["--model", str(folder / "out"), "--tokens", str(tokens), "--output", str(tmp_path / "e")]
    assert evaluate.main(["--settings", json.dumps(settings), *places]) == 0
    found = pd.read_parquet(tmp_path / "e" / "scores.parquet").set_index("pair_id")
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    run = json.loads((folder / "out" / "run.json").read_text())
    normalization = run["normalization"]
    assert metrics["normalization"] == normalization
    assert metrics["accuracy"] == pytest.approx(run["final"]["eval_accuracy"], abs=1e-9)
    gaps = []
    for row, scores in scored(folder, tokens):
        for pair in row.pairs:
            assert found.loc[pair.pair_id, "chosen_score"] == pytest.approx(scores[pair.chosen], abs=1e-5)
            gaps.append(scores[pair.chosen] - scores[pair.rejected])
    scale = normalization["std"] if normalization else 1.0
    assert metrics["loss"] == pytest.approx(np.logaddexp(0, -scale * np.array(gaps)).mean(), abs=1e-5)


@pytest.mark.parametrize(
    ("number", "changes", "more"),
    [
        (0, {"zero_stage": 2, "batching": "padded"}, ("--processes", "2")),
        (1, {"zero_stage": 3, "tokens_per_micro_batch": 1000}, ()),
    ],
)
def test_how_training_is_distributed_does_not_change_it(
    tmp_path: Path,
    tokens: Path,
    finished: Callable[[int], Trained],
    number: int,
    changes: Json,
    more: tuple[str, ...],
) -> None:
    folder, base, options, expected = finished(number)
    _, lines = train(tmp_path, tokens, base, *more, **options, **changes)
    assert losses(lines) == pytest.approx(losses(expected), abs=3e-5)
    one, other = (json.loads((place / "out" / "run.json").read_text())["normalization"] for place in (folder, tmp_path))
    assert one == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize("raw", [False, True])
def test_score_gives_what_is_stored_or_the_raw_score(trained: Trained, raw: bool) -> None:
    folder, base, options, _ = trained
    scorer = Scorer(str(folder / "out"), raw=raw)
    prompt: list[Message] = [{"role": "user", "content": "How many are 1 and 2?"}]
    answers = ["They are 3.", "No"]
    (found,) = scorer.score([prompt], [answers])
    encoded = ConversationEncoder(load_tokenizer(base), max_length=64, template="plain").encode([prompt], [answers])[0]
    assert isinstance(encoded, EncodedAnswers)
    assert isinstance(found, list)
    model = load_reward_model(folder / "out")
    normalization = json.loads((folder / "out" / "run.json").read_text())["normalization"]
    for sequence, score in zip(encoded.sequences, found, strict=True):
        values = slow_values(model, sequence.tolist(), 1).detach()
        expected = slow_score(values, len(sequence), encoded.answer_start, options.get("score", "end")).item()
        if normalization and not normalization["folded"] and not raw:
            expected = (expected - normalization["mean"]) / normalization["std"]
        assert score == pytest.approx(expected, abs=1e-5)


def test_length_control_leaves_what_length_explains_to_its_own_term(
    tmp_path: Path, base_models: Callable[..., Path]
) -> None:
    """People like answers with a certain token, and long ones: scores follow length less, and the token as well."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(700):
        tails = [rng.integers(20, 60, n).astype(np.int32) for n in rng.integers(2, 24, 2)]
        good = rng.random(2) < 0.5
        for tail, is_good in zip(tails, good, strict=True):
            tail[0] = 10 + is_good
        logit = 3.0 * (int(good[0]) - int(good[1])) + 2.0 * math.log(len(tails[0]) / len(tails[1]))
        better = int(rng.random() > 1 / (1 + math.exp(-logit)))
        pair = ComparisonPair(f"{rng.integers(2**60):016x}", "d", "s", better, 1 - better)
        rows.append(Comparison(f"{rng.integers(2**60):016x}", np.array([5], dtype=np.int32), tails, [pair], 1))
    write_tokens(tmp_path / "m" / "x", rows[:600], rows[600:])
    follows, knows = {}, {}
    for control in (False, True):
        folder = tmp_path / str(control)
        options: Json = {"max_steps": 40, "pairs_per_step": 32, "tokens_per_micro_batch": 2048, "epochs": 20}
        train(folder, tmp_path / "m" / "x", base_models("llama"), length_control=control, **options)
        model = RewardModel(load_reward_model(folder / "out"), raw=True)
        found = list(score_comparisons(model, rows[600:], device=CPU, pad_id=0))
        leads = [scores[0] - scores[1] for _, scores in found]
        follows[control] = np.corrcoef(leads, [math.log(len(row.tails[0]) / len(row.tails[1])) for row, _ in found])[
            0, 1
        ]
        knows[control] = np.corrcoef(leads, [float(row.tails[0][0] - row.tails[1][0]) for row, _ in found])[0, 1]
    assert abs(follows[True]) < 0.6 * follows[False]
    assert knows[True] > knows[False] + 0.1
