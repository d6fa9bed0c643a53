"""What activation checkpointing keeps, counted on the CPU by the storages that live, and that it changes nothing."""

import copy
import weakref
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import modeling_utils

from rewardline.model.batch import collate
from rewardline.model.layers import checkpointing
from rewardline.model.reward_model import RewardModel

from support.models import random_model
from support.tokens import random_comparison

WIDE = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 6}


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that operators have made and that still live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage())._cdata not in self._known:
                self._known.add(storage._cdata)
                self.bytes += storage.nbytes()
                weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        return result

    def _free(self, storage: int, size: int) -> None:
        self._known.discard(storage)
        self.bytes -= size


def batch_of(model: RewardModel) -> Any:
    rng = np.random.default_rng(0)
    return collate([random_comparison(rng, 20, [10, 9]) for _ in range(6)], model.batching, 0)


def run(model: RewardModel) -> tuple[int, list[Tensor | None]]:
    """The bytes that live after a forward pass; and scores and gradients."""
    batch = batch_of(model)
    model.train()(batch)  # the first one makes what lasts
    with Live() as live:
        scores = model(batch)
        kept = live.bytes
        torch.autograd.backward(scores.sum())
    return kept, [scores.detach(), *(parameter.grad for parameter in model.parameters())]


def equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other is None or (one is not None and other is not None and torch.equal(one, other))


GPT2 = {"n_embd": 64, "n_layer": 6, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


@pytest.mark.parametrize(("family", "sizes"), [("llama", WIDE), ("gpt2", GPT2)])
def test_what_is_kept_and_computed(family: str, sizes: dict[str, Any]) -> None:
    model = random_model(family, **sizes)
    kept, results = {}, {}
    kinds: tuple[checkpointing.Checkpointing | Literal[False], ...] = (False, True, "selective", "offload")
    for kind in kinds:
        other = RewardModel(copy.deepcopy(model.model))
        if kind:
            checkpointing.enable(other.model, kind)
        kept[kind], results[kind] = run(other)
        for one, expected in zip(results[kind], results[False], strict=True):
            assert equal(one, expected)
    assert kept[True] == kept["offload"] < 0.3 * kept[False]
    assert kept[True] < kept["selective"] < 0.6 * kept[False]


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that compute attention, and notes the shapes of matrix products."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.attention, self.products = 0, list[tuple[int, ...]]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._opname == "mm":
            self.products.append((*args[0].shape, args[1].shape[1]))
        self.attention += func._opname in checkpointing.ATTENTION
        return func(*args, **(kwargs or {}))


def test_selective_computes_attention_and_narrow_products_once() -> None:
    kinds: tuple[checkpointing.Checkpointing, ...] = (True, "selective")
    all_again, some_again = Operators(), Operators()
    for kind, operators in zip(kinds, (all_again, some_again), strict=True):
        model = random_model("llama", **WIDE)
        checkpointing.enable(model.model, kind)
        batch = batch_of(model)
        scores = model.train()(batch)
        with operators:
            torch.autograd.backward(scores.sum())
    wide = (batch.input_ids.numel(), 64, 256)
    assert all_again.products.count(wide) == some_again.products.count(wide) > 0, "they are computed again"
    assert all_again.attention > some_again.attention == 0
    assert len(some_again.products) < len(all_again.products)


class Kept(torch.autograd.graph.saved_tensors_hooks):
    """Notes what is kept for the backward pass."""

    def __init__(self, **_: object) -> None:
        self.tensors: list[Tensor] = []
        super().__init__(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        self.tensors.append(tensor)
        return tensor


def test_offload_keeps_the_inputs_of_layers_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = Kept(), Kept()
    monkeypatch.setattr(modeling_utils, "save_on_cpu", lambda **_: there)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model, plain = (random_model("llama", **WIDE) for _ in range(2))
    checkpointing.enable(model.model, "offload")
    batch = batch_of(model)
    with here:
        scores = model.train()(batch)
    states = batch.input_ids.numel() * WIDE["hidden_size"]
    assert [tensor.numel() for tensor in there.tensors].count(states) == 5
    assert sum(tensor.numel() for tensor in here.tensors) < 12 * states, "norm, head and the last layer's few rows"
    torch.autograd.backward(scores.sum())
    torch.autograd.backward(plain.train()(batch).sum())
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert equal(one.grad, other.grad)
