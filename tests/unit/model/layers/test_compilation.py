"""Compiled layers, mostly on the compiler's front end alone: its back end takes a minute on a CPU."""

import copy
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rewardline.core.cli import log
from rewardline.core.errors import UserError
from rewardline.model.batch import collate
from rewardline.model.layers import compilation
from rewardline.model.packing import flex
from rewardline.model.reward_model import RewardModel
from rewardline.training.loop import TrainingLoop
from rewardline.training.step import compiles

from support.models import LONGEST, comparisons, encoder, random_model
from support.tokens import random_comparison
from support.training_runs import training_settings


@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_layers_compute_the_same_and_compile_a_handful_of_times(checkpointing: bool) -> None:
    plain = random_model("llama", num_hidden_layers=3)
    compiled = RewardModel(copy.deepcopy(plain.model), max_length=LONGEST)
    if checkpointing:
        for model in (plain, compiled):
            model.model.activation_checkpointing_enable({"use_reentrant": False})
    compilation.compile_layers(compiled.model, "eager")
    assert compilation.is_compiled(compiled.model)
    assert list(compiled.state_dict()) == list(plain.state_dict()), "no names with _orig_mod"
    rng, before, counts = np.random.default_rng(0), flex.compilations(), []
    for step in range(9):
        lengths = rng.integers(1, 1 + int(rng.choice([10, 80])), (1 + step % 6, 3)).tolist()
        batch = collate([random_comparison(rng, prefix, tails) for prefix, *tails in lengths], "shared_prefix", 0)
        results = []
        for model in (plain.train(step % 3 > 0), compiled.train(step % 3 > 0)):
            with torch.set_grad_enabled(step % 3 > 0):
                scores = model(batch)
            if step % 3:
                torch.autograd.backward(scores.sum())
            results.append([scores, *(parameter.grad for parameter in model.parameters())])
            model.zero_grad()
        for one, other in zip(*results, strict=True):
            assert one is other is None or torch.equal(one, other)
        counts.append(flex.compilations() - before)
    assert 0 < counts[1] == counts[-1] <= 10, counts
    compilation.undo(compiled.model)
    assert not compilation.is_compiled(compiled.model)


def wrong(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
    return lambda *inputs: [1.01 * part if isinstance(part, torch.Tensor) else part for part in graph(*inputs)]


def failing(_graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
    raise RuntimeError("no such instruction")


@pytest.mark.parametrize(("backend", "problem"), [(wrong, "scores differ by"), (failing, "no such instruction")])
def test_layers_that_fail_or_differ_are_found(backend: Any, problem: str) -> None:
    model = random_model("llama", num_hidden_layers=3).train()
    compilation.compile_layers(model.model, backend)
    found = compilation.problem(model, collate(comparisons(), "shared_prefix", 0))
    assert problem in (found or "")
    assert compilation.is_compiled(model.model)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("choice", "backend", "steps", "message"),
    [
        ("auto", failing, 10, "the training run is short"),
        ("auto", failing, 10**12, "not compiled: .*no such instruction"),
        (True, failing, 10, "layers cannot be compiled here: .*no such instruction"),
        (True, "eager", 10, "layers are compiled"),
    ],
)
def test_a_training_starts_with_layers_that_work(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    choice: Any,
    backend: Any,
    steps: int,
    message: str,
) -> None:
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level("INFO")
    model, batch = random_model("llama", num_hidden_layers=3).train(), collate(comparisons(), "shared_prefix", 0)
    compilation.compile_layers(model.model, backend)
    step = SimpleNamespace(
        loader=SimpleNamespace(load=lambda _: iter([(batch, True)])),
        sampler=SimpleNamespace(steps=lambda _: iter([(0.0, [])])),
    )
    training = SimpleNamespace(training=training_settings(compile=choice))
    loop: Any = SimpleNamespace(
        model=model, optimizer_step=step, settings=training, total_steps=steps, engine=SimpleNamespace(device=None)
    )
    if choice is True and backend is failing:
        with pytest.raises(UserError, match=rf"training\.compile: {message}"):
            TrainingLoop._check_compiled_layers(loop)
        return
    TrainingLoop._check_compiled_layers(loop)
    assert re.search(message, caplog.text)
    assert compilation.is_compiled(model.model) == (backend == "eager")


def test_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    llama, experts = random_model("llama").model, random_model("mixtral").model
    assert [compiles(training_settings(compile=value), llama) for value in ("auto", "off", "on", True)] == [
        *(False, False, True, True),
    ]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [compiles(training_settings(), model) for model in (llama, experts, encoder("bert"))] == [True, False, True]
    with pytest.raises(UserError, match=r"training\.compile: which experts a token takes is decided"):
        compiles(training_settings(compile=True), experts)
    plain: list[dict[str, Any]] = [{"gradient_checkpointing": "selective"}, {"zero_stage": 3}, {"deterministic": True}]
    for options in plain:
        assert not compiles(training_settings(**options), llama)
        with pytest.raises(UserError, match=r"training\.compile: "):
            compiles(training_settings(compile=True, **options), llama)
