"""The search for pairs whose labels are probably wrong, by the margins of runs."""

from pathlib import Path

import numpy as np

from rewardline.core.errors import UserError
from rewardline.data.parquet import read_batches
from rewardline.data.schema import hash_texts
from rewardline.evaluation.labels.suspects import PAIR_COLUMNS, Suspect
from rewardline.evaluation.metrics.intervals import Floats
from rewardline.evaluation.preferences import Preferences

MAX_SUSPECTS = 200
"""Suspects of a leaderboard."""
LEAST_PROBABILITY = 0.3


def find_suspects(
    preferences: Preferences, probability: Floats, pairs: Path, benchmark: str, mixture: str | None
) -> list[Suspect]:
    """The pairs whose label is most probably wrong, at most MAX_SUSPECTS.

    A pair is listed if its label is wrong with a `probability` [n] of at least LEAST_PROBABILITY, which is NaN if
    unknown, and at least half of the runs contradict it. `pairs`: the folder with their texts.

    Raises:
        UserError: a pair is missing, or a file is damaged.
    """
    order = np.lexsort((preferences.pairs, preferences.margin_mean, -preferences.runs, -probability))
    doubted = (probability >= LEAST_PROBABILITY) & (2 * preferences.against >= preferences.runs)
    suspected = order[doubted[order]][:MAX_SUSPECTS]
    numbers = {int(pair): k for pair, k in zip(preferences.pairs[suspected], suspected, strict=True)}
    found: dict[int, Suspect] = {}
    for batch in read_batches(pairs, PAIR_COLUMNS) if numbers else ():
        ids = hash_texts(batch.column("pair_id"))
        rows = np.flatnonzero(np.isin(ids, preferences.pairs[suspected]))
        for pair, row in zip(ids[rows].tolist(), batch.take(rows).to_pylist(), strict=True):
            k = numbers[pair]
            found[pair] = Suspect(
                benchmark=benchmark,
                mixture=mixture,
                runs=int(preferences.runs[k]),
                against=int(preferences.against[k]),
                probability=float(probability[k]),
                margin_mean=float(preferences.margin_mean[k]),
                margin_std=float(preferences.margin_std[k]),
                **row,
            )
    if len(found) < len(numbers):
        raise UserError(f"{pairs} lacks a pair that was scored; delete results/evals and run again")
    return [found[pair] for pair in numbers]
