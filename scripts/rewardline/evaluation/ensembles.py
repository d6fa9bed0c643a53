"""Scores of an ensemble, from the scores of its members, in memory that does not grow with the number of members."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rewardline.core.errors import UserError
from rewardline.evaluation.results import Standard
from rewardline.evaluation.scores import SCHEMA, hash_texts, read_batches, read_ids, read_pair_scores


@dataclass(frozen=True)
class Combined:
    """The scores of an ensemble for the pairs that all members scored.

    Attributes:
        pairs: hash of each pair's id, uint64 [n], ascending.
        scores: of the chosen and of the rejected answer, float32 [2, n].
        standards: by member, of its scores over all these answers.
        unscored: pairs that some members scored, and others did not.
    """

    pairs: npt.NDArray[np.uint64]
    scores: npt.NDArray[np.float32]
    standards: dict[str, Standard]
    unscored: int


def combine(
    members: Mapping[str, Path], how: Literal["mean", "worst", "mean_minus_variance"], variance_weight: float
) -> Combined:
    """Combine the `scores.parquet` of each member (Coste et al. 2023, arXiv 2310.02743).

    Scores of different training runs differ in mean and spread, which carry no information. So each member's are
    standardised first: minus their mean, divided by their standard deviation, over both answers of all pairs in common.
    Labels are not used. Then an answer's score is the `mean` over members, the `worst` (least), or the mean minus
    `variance_weight` times the variance between members.

    Raises:
        UserError: a file is missing or damaged, or there is no pair that all members scored.
    """
    common, known = np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint64)
    for number, path in enumerate(members.values()):
        pairs = read_ids(path, "pair_id")
        common = np.intersect1d(common, pairs) if number else np.unique(pairs)
        known = np.union1d(known, pairs)
    if not len(common):
        paths = ", ".join(map(str, members.values()))
        raise UserError(f"{paths} have no pair in common, so that nothing can be combined; evaluate them anew")
    total, squares = np.zeros((2, len(common))), np.zeros((2, len(common)))
    worst = np.full((2, len(common)), np.inf)
    standards = {}
    for member, path in members.items():
        member_scores = read_pair_scores(path)
        present, indices = _indices(member_scores.ids, common)
        scores = np.empty((2, len(common)))
        scores[0, indices], scores[1, indices] = member_scores.chosen[present], member_scores.rejected[present]
        standard = standards[member] = Standard(mean=float(scores.mean()), std=float(scores.std()))
        scores = (scores - standard.mean) / (standard.std or 1.0)
        total += scores
        squares += scores**2
        np.minimum(worst, scores, out=worst)
    result = total / len(members)
    if how == "worst":
        result = worst
    elif how == "mean_minus_variance":
        result -= variance_weight * np.maximum(squares / len(members) - result**2, 0.0)
    return Combined(common, result.astype(np.float32), standards, len(known) - len(common))


def _indices(
    pairs: npt.NDArray[np.uint64], common: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
    """Which of `pairs` [n] are among the ascending `common`, bool [n], and the indices of those there."""
    indices = np.minimum(np.searchsorted(common, pairs), len(common) - 1)
    present = common[indices] == pairs
    return present, indices[present]


def ensemble_tables(first: Path, combined: Combined) -> Iterator[pa.Table]:
    """The rows of the first member's `scores.parquet`, with the ensemble's scores, a batch at a time."""
    for batch in read_batches(first, SCHEMA.names, size=1 << 14):
        table = pa.Table.from_batches([batch])
        present, indices = _indices(hash_texts(batch.column("pair_id")), combined.pairs)
        chosen, rejected = combined.scores[:, indices]
        new = {
            "chosen_score": chosen,
            "rejected_score": rejected,
            "correct": ((chosen > rejected) + 0.5 * (chosen == rejected)).astype(np.float32),
        }
        table = table.filter(pa.array(present))
        for name, values in new.items():
            table = table.set_column(table.column_names.index(name), name, pa.array(values))
        yield table.cast(SCHEMA)


def log_odds_scale(standards: Mapping[str, Standard], scales: Sequence[float]) -> float:
    """What differences of an ensemble's scores are multiplied by to be log odds: the members' mean spread in log odds.

    For the mean of members with equal spread these are the mean log odds. `scales` are those of the members.
    """
    return math.fsum(one.std * scale for one, scale in zip(standards.values(), scales, strict=True)) / len(scales)
