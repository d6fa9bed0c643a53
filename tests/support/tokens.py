"""Comparisons of random tokens, and folders of tokens."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rewardline.tokens.store import Comparison, ShardWriter


def random_comparison(rng: np.random.Generator, prefix: int, tails: Sequence[int], vocabulary: int = 90) -> Comparison:
    """A comparison of random tokens, in which the first tail is better than every other."""

    def ids(count: int) -> Any:
        return rng.integers(5, vocabulary, count).astype(np.int32)

    pairs = [
        {
            "pair_id": f"{rng.integers(2**60):016x}",
            "dataset": "d",
            "subset": "s",
            "chosen": 0,
            "rejected": k,
            "margin": None,
            "confidence": 1.0,
            "weight": 1.0,
        }
        for k in range(1, len(tails))
    ]
    name = f"{rng.integers(2**60):016x}"
    return Comparison(name, ids(prefix), [ids(count) for count in tails], pairs, int(rng.integers(prefix + 1)))


def write_tokens(folder: Path, train: Sequence[Comparison], held_out: Sequence[Comparison]) -> None:
    """A folder as the tokenize stage leaves it."""
    folder.mkdir(parents=True)
    splits = {}
    for split, rows in (("train", train), ("eval", held_out)):
        writer = ShardWriter(folder, split)
        for row in rows:
            writer.add(row)
        splits[split] = writer.close()
    facts = {"template": "plain", "end_token": "<|end|>", "pad_id": 0, "max_length": 64}
    (folder / "manifest.json").write_text(json.dumps({**facts, "splits": splits}))
