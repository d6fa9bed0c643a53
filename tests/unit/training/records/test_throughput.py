"""Counts of what is computed, against counting by hand."""

import pytest
import torch

from rewardline.model.batch import collate
from rewardline.model.score_positions import ScorePositions
from rewardline.training.records import throughput
from rewardline.training.records.throughput import Counts, Work

from support.models import comparisons, random_model

CPU = torch.device("cpu")


def test_tokens_and_what_they_attend_to_are_counted_packed_and_padded() -> None:
    rows = comparisons()
    lengths = [[len(row.prefix) + len(tail) for tail in row.tails] for row in rows]
    flat = [n for row in lengths for n in row]
    seen = sum(n * (n + 1) // 2 for n in flat)
    again = sum((len(row.tails) - 1) * len(row.prefix) * (len(row.prefix) + 1) // 2 for row in rows)
    tokens = sum(row.tokens for row in rows)
    for reads_some, last in ((True, (len(flat), sum(flat))), (False, (tokens, seen - again))):
        work = Work(Counts(1000, 100, 10, 7, 8), CPU)
        work.add(collate(rows, "shared_prefix", 0), reads_some)
        expected = (1000 + tokens, 100 + tokens, 10 + seen - again, 7 + last[0], 8 + last[1])
        assert work.total() == expected
    work = Work(Counts(), CPU)
    work.add(collate(rows, "padded", 0), False)
    assert work.total() == (max(flat) * len(flat), sum(flat), seen, sum(flat), seen)


@pytest.mark.parametrize("pad_position", [None, -1])
def test_padding_that_a_loss_reads_is_no_real_token(pad_position: int | None) -> None:
    rows, work, plain = comparisons(), Work(Counts(), CPU), Work(Counts(), CPU)
    batch = collate(rows, "shared_prefix", 0, ScorePositions("end", "per_token_published", pad_position))
    work.add(batch, True)
    plain.add(collate(rows, "shared_prefix", 0), False)
    found = work.total()
    assert found.positions == batch.input_ids.numel() > found.real
    assert found[1:] == plain.total()[1:]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_model_flops_are_those_of_its_products(family: str) -> None:
    model = random_model(family).model
    hidden, layers = 32, 2
    inner, kv = (64, 16) if family == "llama" else (128, 32)
    others = 2 * hidden * hidden + (3 if family == "llama" else 2) * hidden * inner  # beside keys and values
    vectors = 2 * hidden if family == "llama" else 4 * hidden + hidden + hidden + inner + hidden
    both, biases = 2 * hidden * kv, 0 if family == "llama" else 2 * hidden  # of keys and values
    layer = others + vectors + both + biases
    end = hidden + (hidden if family == "llama" else 2 * hidden)  # head and last norm
    work = Counts(2000, 1000, 5000, 100, 700)
    norm = end - hidden
    expected = 6 * ((layers - 1) * layer + both + biases + norm) * 1000 + 6 * (others + vectors + hidden) * 100
    assert throughput.model_flops(model, work, causal=True) == expected + 12 * hidden * (5000 * (layers - 1) + 700)
    complete = throughput.model_flops(model, work._replace(read=1000, read_context=5000), causal=True)
    assert complete == 6 * (layers * layer + end) * 1000 + 12 * hidden * 5000 * layers
    for parameter in model.parameters():
        parameter.requires_grad = False
    frozen = throughput.model_flops(model, Counts(0, 1000, 0, 1000, 0), causal=True)
    assert frozen == 4 * (layers * layer + end) * 1000


def test_the_peak_of_a_processor_is_measured_and_says_so() -> None:
    peak, source = throughput.peak_flops(torch.device("cpu"), "fp32")
    assert 1e8 < peak < 1e15
    assert "measured at start" in source
    assert "threads" in source
