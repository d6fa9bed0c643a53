"""The metrics of scored pairs, computed from the columns of `scores.parquet` alone."""

import numpy as np
import pandas as pd

from rewardline.evaluation.metrics.answers import best_of_n, win_rates
from rewardline.evaluation.metrics.calibration import calibration, log_loss
from rewardline.evaluation.metrics.intervals import (
    Codes,
    Floats,
    accuracy,
    count_prompts,
    effective_prompts,
    prompt_sums,
    ratio,
    statistic_interval,
)
from rewardline.evaluation.metrics.length import binned, length_metrics, upper_bounds
from rewardline.evaluation.results import Accuracy, Bin, Metrics, Rates

MARGIN_BINS = 5


def summarize(scores: pd.DataFrame, scale: float = 1.0) -> Metrics:
    """The metrics of a table of scored pairs (the columns of scores.parquet), by example: every pair counts once.

    `scale`: what score differences are multiplied by to be the model's log odds, the spread that they were divided by.
    """
    chosen, rejected = (scores[name].to_numpy(np.float64) for name in ("chosen_score", "rejected_score"))
    longer = _numbers(scores, "chosen_tokens") - _numbers(scores, "rejected_tokens")
    correct, prompts = _numbers(scores, "correct"), codes(scores["prompt_id"])
    margins = chosen - rejected
    (chosen_mean, chosen_std), (rejected_mean, rejected_std) = _moments(chosen), _moments(rejected)
    margin_mean, margin_std = _moments(margins)
    del chosen, rejected
    metrics = Metrics(
        n=len(correct),
        **accuracy(correct, prompts),
        length_accuracy=float(half_ties(longer).mean()),
        prompts=count_prompts(prompts),
        scale=scale,
        loss=log_loss(margins, scale),
        chosen_mean=chosen_mean,
        rejected_mean=rejected_mean,
        chosen_std=chosen_std,
        rejected_std=rejected_std,
        margin_mean=margin_mean,
        margin_std=margin_std,
        calibration=calibration(scale * margins, correct, prompts),
        length=length_metrics(margins, longer, correct, prompts),
        by_margin=_by_margin(scores, correct, prompts),
        best_of_n=best_of_n(scores, prompts),
        win_rates=win_rates(scores, correct),
        by_subset=_by_subset(scores["subset"], correct, longer, prompts),
    )
    return metrics.model_copy(update=_weighted(scores, correct, prompts))


def codes(names: pd.Series) -> Codes:
    """A number for each different name: int [n]."""
    result: Codes
    if names.dtype == np.int32:
        result = names.to_numpy()
    elif isinstance(names.dtype, pd.CategoricalDtype):
        result = names.cat.codes.to_numpy()
    else:
        result = pd.factorize(names)[0]
    return result


def half_ties(differences: Floats) -> Floats:
    """1 where a difference is above 0, 0.5 where it is 0, else 0."""
    result: Floats = (differences > 0) + 0.5 * (differences == 0)
    return result


def _numbers(scores: pd.DataFrame, name: str) -> Floats:
    result: Floats = scores[name].to_numpy(np.float64)
    return result


def _moments(values: Floats) -> tuple[float, float]:
    """Mean and standard deviation."""
    return float(values.mean()), float(values.std())


def _by_subset(subsets: pd.Series, correct: Floats, longer: Floats, prompts: Codes) -> dict[str, Rates]:
    """The accuracy of each subset, by name."""
    order = np.argsort(codes(subsets), kind="stable")
    ends = np.flatnonzero(np.diff(codes(subsets)[order])) + 1
    rates = {}
    for part in np.split(order, ends):
        part_accuracy = Accuracy(**accuracy(correct[part], prompts[part]))
        rates[str(subsets.iloc[part[0]])] = part_accuracy.rates(len(part), float(half_ties(longer[part]).mean()))
    return dict(sorted(rates.items()))


def _weighted(scores: pd.DataFrame, correct: Floats, prompts: Codes) -> dict[str, float]:
    """The accuracy with each pair counted by its weight in the data; nothing where all weights are equal."""
    weights = _numbers(scores, "weight") if "weight" in scores.columns else np.ones(1)
    weights = np.where(np.isfinite(weights), weights, 1.0)
    if weights.min() == weights.max() or weights.sum() <= 0:
        return {}
    value = float((weights * correct).sum() / weights.sum())
    table = prompt_sums(prompts, weights * correct, weights)
    low, high = statistic_interval(table, ratio, value, effective_prompts(prompts, weights))
    return {"weighted_accuracy": value, "weighted_accuracy_low": low, "weighted_accuracy_high": high}


def _by_margin(scores: pd.DataFrame, correct: Floats, prompts: Codes) -> list[Bin]:
    """The accuracy by the margin of the label, in up to five bins of about equal number; [] where there are none."""
    if "margin" not in scores.columns:
        return []
    margins = _numbers(scores, "margin")
    known = np.flatnonzero(np.isfinite(margins))
    if not len(known):
        return []
    values = margins[known]
    bins = np.searchsorted(upper_bounds(values, MARGIN_BINS), values)
    return binned(values, bins, correct[known], prompts[known])
