"""Metrics of single answers with ratings: how well attributes and scores follow them, from `answers.parquet`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rewardline.data.parquet import read_rows
from rewardline.evaluation.metrics.intervals import Floats, accuracy
from rewardline.evaluation.results import PredictedAttribute, RatingMetrics
from rewardline.evaluation.scores import RatedScore


@dataclass(frozen=True)
class RatedScores:
    """Columns of scored answers; `ratings` has NaN where an answer lacks one.

    `prompts` int64 [n] numbers the prompts from 0, `scores` is float64 [n], `outputs` float64 [n, attributes].
    """

    prompts: npt.NDArray[np.int64]
    scores: Floats
    outputs: Floats
    ratings: Mapping[str, Floats]

    @classmethod
    def read(cls, path: Path) -> "RatedScores":
        """Those of a file."""
        prompts: dict[str, int] = {}
        numbers, scores, outputs, ratings = [], [], [], []
        for row in read_rows(path):
            answer = RatedScore(**row)  # type: ignore[arg-type]  # of the file's schema
            numbers.append(prompts.setdefault(answer.prompt_id, len(prompts)))
            scores.append(answer.score)
            outputs.append(answer.outputs)
            ratings.append({rating["name"]: rating["value"] for rating in answer.ratings})
        names = sorted({name for one in ratings for name in one})
        return cls(
            np.array(numbers, dtype=np.int64),
            np.array(scores, dtype=np.float64),
            np.array(outputs, dtype=np.float64).reshape(len(scores), -1),
            {name: np.array([one.get(name, math.nan) for one in ratings]) for name in names},
        )


def rating_figures(path: Path, attributes: Sequence[PredictedAttribute]) -> dict[str, object]:
    """The metrics of the single answers in a file, by their keys in `metrics.json`; `attributes`: of the outputs."""
    answers = RatedScores.read(path)
    total = of_sum(answers, attributes)
    found: dict[str, object] = {"ratings": by_rating(answers, attributes)}
    return (
        found
        | ({"attributes": list(attributes)} if attributes else {})
        | ({} if total is None else {"rating_sum": total})
    )


def by_rating(answers: RatedScores, attributes: Sequence[PredictedAttribute]) -> dict[str, RatingMetrics]:
    """The metrics of each rating; against the attribute of its name, or the score where the model has none."""
    numbers = {attribute.name: number for number, attribute in enumerate(attributes)}
    found = {}
    for name, values in answers.ratings.items():
        known = np.isfinite(values)
        ratings, prompts, predicted = values[known], answers.prompts[known], answers.scores[known]
        errors: dict[str, float] = {}
        if name in numbers:
            attribute = attributes[numbers[name]]
            predicted = attribute.mean + attribute.std * answers.outputs[known, numbers[name]]
            errors["mse"] = float(np.mean((predicted - ratings) ** 2))
            errors["mse_of_mean"] = float(np.mean((attribute.mean - ratings) ** 2))
        found[name] = rating_metrics(ratings, predicted, prompts).model_copy(update=errors)
    return found


def of_sum(answers: RatedScores, attributes: Sequence[PredictedAttribute]) -> RatingMetrics | None:
    """The metrics of the weighted sum of the standardized ratings against the score; None without such answers."""
    weighted = [attribute for attribute in attributes if attribute.weight]
    if not weighted or any(attribute.name not in answers.ratings for attribute in weighted):
        return None
    total: Floats = np.sum(
        [one.weight * (answers.ratings[one.name] - one.mean) / (one.std or 1.0) for one in weighted], axis=0
    )
    known = np.isfinite(total)
    if not known.any():
        return None
    return rating_metrics(np.round(total[known], 9), answers.scores[known], answers.prompts[known])


def rating_metrics(ratings: Floats, predicted: Floats, prompts: npt.NDArray[np.int64]) -> RatingMetrics:
    """Rank correlations between ratings [n] and what is predicted for them [n], and the accuracy on pairs.

    The pairs are every two answers to one prompt with different ratings; equal predictions count half. A correlation
    with a constant is NaN.
    """
    from scipy.stats import kendalltau, rankdata  # here, as it is slow to import

    spearman = kendall = math.nan
    if len(ratings) > 1 and np.ptp(ratings) > 0 and np.ptp(predicted) > 0:
        spearman = float(np.corrcoef(rankdata(ratings), rankdata(predicted))[0, 1])
        kendall = float(kendalltau(ratings, predicted).statistic)
    correct, owners = [], []
    order = np.argsort(prompts, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(prompts[order])) + 1):
        for one, other in combinations(group.tolist(), 2):
            if sign := np.sign(ratings[one] - ratings[other]):
                correct.append(0.5 + 0.5 * float(sign * np.sign(predicted[one] - predicted[other])))
                owners.append(prompts[one])
    rates = accuracy(np.array(correct), np.array(owners, dtype=np.int64))
    return RatingMetrics(n=len(ratings), spearman=spearman, kendall=kendall, pairs=len(correct), **rates)
