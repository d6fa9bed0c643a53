"""Comparisons of random tokens, and folders of tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rewardline.core.artifacts import write_manifest
from rewardline.tokens.store import Comparison, ComparisonPair, ShardWriter, SplitEntry, TokenManifest


def random_comparison(rng: np.random.Generator, prefix: int, tails: Sequence[int], vocabulary: int = 90) -> Comparison:
    """A comparison of random tokens, in which the first tail is better than every other."""

    def ids(count: int) -> Any:
        return rng.integers(5, vocabulary, count).astype(np.int32)

    pairs = [ComparisonPair(f"{rng.integers(2**60):016x}", "d", "s", 0, k) for k in range(1, len(tails))]
    name = f"{rng.integers(2**60):016x}"
    return Comparison(name, ids(prefix), [ids(count) for count in tails], pairs, int(rng.integers(prefix + 1)))


def write_tokens(
    folder: Path, train: Sequence[Comparison], held_out: Sequence[Comparison], end_token: str = "<|end|>"
) -> None:
    """A folder as the tokenize stage leaves it."""
    folder.mkdir(parents=True)
    splits = {"train": write_split(folder, "train", train), "eval": write_split(folder, "eval", held_out)}
    write_token_manifest(folder, end_token, 64, **splits)


def write_split(folder: Path, split: str, rows: Sequence[Comparison], **options: Any) -> SplitEntry:
    """The shards of a split; its entry in the manifest."""
    writer = ShardWriter(folder, split, rated=any(row.answers for row in rows), **options)
    for row in rows:
        writer.add(row)
    return writer.close()


def write_token_manifest(folder: Path, end_token: str = "<|end|>", max_length: int = 64, **splits: SplitEntry) -> None:
    manifest = TokenManifest(
        template="plain",
        chat_template=None,
        max_length=max_length,
        end_id=2,
        end_token=end_token,
        pad_id=0,
        pad_token="<|pad|>",
        num_padding_at_beginning=0,
        vocabulary=90,
        splits=splits,
        truncated_pairs=0,
        truncated_tokens=0,
        dropped={},
        reject_examples=[],
    )
    write_manifest(folder, manifest)
