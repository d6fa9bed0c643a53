"""A step never waits for a GPU before its weights have changed: what would make it wait is counted on the CPU."""

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rewardline.model.batch import Batch
from rewardline.model.packing import flex
from rewardline.model.packing.layout import Layout, to_device
from rewardline.model.reward_model import RewardModel
from rewardline.tokens.store import TokenDataset
from rewardline.training import engine
from rewardline.training.batching import AHEAD, MicroBatchLoader, StepSampler, prepared_ahead
from rewardline.training.records.throughput import Counts, Work
from rewardline.training.settings import TrainStageSettings
from rewardline.training.step import OptimizerStep

from support.models import LONGEST, random_model
from support.tokens import random_comparison, write_tokens
from support.training_runs import training_settings

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "lift_fresh")
"""Operators that need a value on the host, or (the last) that copy one from pageable memory of the host."""


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that make a program wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        indices = args[1] if name.startswith(("index", "_index")) and len(args) > 1 else ()
        selects = isinstance(indices, list | tuple) and any(i is not None and i.dtype == torch.bool for i in indices)
        repeats = (
            name == "repeat_interleave" and func._overloadname == "Tensor" and not (kwargs or {}).get("output_size")
        )
        if name in WAITING or selects or repeats:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def test_the_counter_notices_what_waits() -> None:
    values = torch.arange(3.0)
    with Waits() as waits:
        values[values > 1], values.sum().item(), bool(values[0] > 0), torch.tensor([1.0]), values.nonzero()
        values.repeat_interleave(torch.ones(3, dtype=torch.long))
    assert waits.counts["_local_scalar_dense"] == 2
    assert waits.counts.keys() == {"_local_scalar_dense", "index", "lift_fresh", "nonzero", "repeat_interleave"}


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, *_: object) -> Tensor:
    """In place of the kernel of flex_attention: it needs its blocks."""
    flex._block_mask(layout, None)
    return query + key.mean() + value.mean()


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {}),
        ("llama", {"clip": 0.0, "score": "mean", "centering": 0.1, "margin": True, "label_smoothing": 0.1}),
        ("qwen3", {"loss": "per_token", "gradient_checkpointing": True}),
        ("opt", {"loss": "kwise", "score": "first_padding", "lora": {"rank": 2}}),
        ("gpt2", {"tokens_per_micro_batch": 40}),
        ("llama", {"attention": "flex"}),
    ],
)
def test_a_step_reads_its_results_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, family: str, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(engine, "reading_waits", lambda _: True)
    monkeypatch.setattr(flex, "attend", attend)
    rng = np.random.default_rng(0)
    rows = [
        random_comparison(rng, int(rng.integers(0, 20)), [int(n) for n in rng.integers(1, 12, 3)]) for _ in range(9)
    ]
    write_tokens(tmp_path / "tokens", rows, [])
    data = TokenDataset(tmp_path / "tokens", "train")
    training = training_settings(**{"pairs_per_step": 6, "tokens_per_micro_batch": 60, **options})
    model = RewardModel(
        random_model(family).model, training.batching, training.attention, score=training.score, max_length=LONGEST
    )
    running = engine.create(model, training, engine.deepspeed_config(training))
    settings = TrainStageSettings(run="r", mixture="m", model="x", seed=1, training=training)
    loader = MicroBatchLoader(model, training, data, 0, torch.device("cpu"), objective=True)
    step, work = OptimizerStep(running, settings, loader), Work(Counts(), torch.device("cpu"))
    steps = step.steps(0)
    first = next(steps)
    step.take(0, first, lambda batch: work.add(batch, model.reads_some))  # the first one makes what lasts
    planned = next(steps)
    batches = list(planned.batches)  # a thread prepares them ahead
    assert len(batches) > 1
    with Waits() as waits:
        step.take(1, planned._replace(batches=iter(batches)), lambda batch: work.add(batch, model.reads_some))
    assert waits.counts == {"_local_scalar_dense": 1}, "the gradient's norm; the sums of the log are copied as a whole"


def test_items_are_prepared_ahead_in_order_by_a_thread() -> None:
    made: list[tuple[int, int]] = []

    def items() -> Any:
        for number in range(5):
            made.append((number, threading.get_ident()))
            yield number

    found = []
    for item in prepared_ahead(items()):
        found.append(item)
        assert len(made) <= item + 1 + AHEAD
    assert found == list(range(5))
    assert threading.get_ident() not in {thread for _, thread in made}


def test_an_error_of_the_thread_is_raised() -> None:
    def items() -> Any:
        yield 1
        raise ValueError("unreadable")

    with pytest.raises(ValueError, match="unreadable"):
        list(prepared_ahead(items()))


def test_batches_prepared_ahead_are_the_same(monkeypatch: pytest.MonkeyPatch, tokens: Path) -> None:
    """With the thread and its pinned memory, as for a GPU."""
    monkeypatch.setattr(Tensor, "pin_memory", Tensor.clone)
    monkeypatch.setattr(Batch, "to", lambda batch, _: to_device(batch, torch.device("cpu")))
    data, training = TokenDataset(tokens, "train"), training_settings(pairs_per_step=4, tokens_per_micro_batch=60)
    pieces = [chosen for _, chosen in StepSampler(data, training, seed=0).steps(0)]
    found = []
    for device in ("cpu", "cuda"):
        loader = MicroBatchLoader(random_model("llama"), training, data, 0, torch.device(device), objective=True)
        steps = zip(pieces, loader.load_steps(pieces), strict=False)
        found.append([[batch.input_ids.tolist() for batch, _ in batches] for _, batches in steps])
    assert found[0] == found[1]
    assert len(pieces) > 2 and max(map(len, found[0])) > 1
