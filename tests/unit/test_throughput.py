"""Counts of what is computed, against counting by hand."""

import torch

from rewardline import throughput
from rewardline.batches import collate
from rewardline.throughput import Work

from models import comparisons, random_model


def test_tokens_and_what_they_attend_to_are_counted_packed_and_padded() -> None:
    rows = comparisons()
    lengths = [[len(row.prefix) + len(tail) for tail in row.tails] for row in rows]
    seen = sum(n * (n + 1) // 2 for row in lengths for n in row)
    again = sum((len(row.tails) - 1) * len(row.prefix) * (len(row.prefix) + 1) // 2 for row in rows)
    work = Work((1000.0, 100.0, 10.0))
    work.add(collate(rows, "shared_prefix", 0))
    tokens = sum(row.tokens for row in rows)
    assert work.total(torch.device("cpu")) == (1000 + tokens, 100 + tokens, 10 + seen - again)
    work = Work()
    work.add(collate(rows, "padded", 0))
    flat = [n for row in lengths for n in row]
    assert work.total(torch.device("cpu")) == (max(flat) * len(flat), sum(flat), seen)


def test_model_flops_are_those_of_its_products() -> None:
    model = random_model("llama").model
    hidden, inner, kv, layers = 32, 64, 16, 2
    matrices = layers * (2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * inner) + hidden
    norms = (2 * layers + 1) * hidden
    expected = 6 * (matrices + norms) * 1000 + 12 * layers * hidden * 5000
    assert throughput.model_flops(model, 1000, 5000, causal=True) == expected
    for parameter in model.parameters():
        parameter.requires_grad = False
    frozen = throughput.model_flops(model, 1000, 0, causal=True)
    assert frozen == 4 * (matrices + norms) * 1000


def test_the_peak_of_a_processor_is_measured_and_says_so() -> None:
    peak, source = throughput.peak_flops(torch.device("cpu"), "fp32")
    assert 1e8 < peak < 1e15
    assert "measured at start" in source
    assert "threads" in source
