"""The metrics of scored pairs, computed from the columns of `scores.parquet` alone."""

import numpy as np
import pandas as pd

from rewardline.evaluation.metrics.answers import best_of_n, win_rates
from rewardline.evaluation.metrics.calibration import calibration, log_loss
from rewardline.evaluation.metrics.intervals import (
    Codes,
    Floats,
    accuracy,
    effective_prompts,
    prompt_sums,
    ratio,
    statistic_interval,
)
from rewardline.evaluation.metrics.length import binned, length_metrics, upper_bounds
from rewardline.evaluation.results import Bin, Metrics, Rates

MARGIN_BINS = 5


def summarize(scores: pd.DataFrame, scale: float = 1.0) -> Metrics:
    """The metrics of scored pairs (see `scores.read_scores`), by example: every pair counts once.

    `scale`: what score differences are multiplied by to be the model's log odds, the spread that they were divided by.
    """
    longer = _numbers(scores, "chosen_tokens") - _numbers(scores, "rejected_tokens")
    correct, prompts = _numbers(scores, "correct"), scores["prompt_id"].to_numpy()
    margins = _numbers(scores, "chosen_score") - _numbers(scores, "rejected_score")
    metrics = Metrics(
        n=len(correct),
        **accuracy(correct, prompts),
        length_accuracy=_longer_is_chosen(longer),
        prompts=np.unique(prompts).size,
        scale=scale,
        loss=log_loss(margins, scale),
        chosen_mean=float(_numbers(scores, "chosen_score").mean()),
        rejected_mean=float(_numbers(scores, "rejected_score").mean()),
        chosen_std=float(_numbers(scores, "chosen_score").std()),
        rejected_std=float(_numbers(scores, "rejected_score").std()),
        margin_mean=float(margins.mean()),
        margin_std=float(margins.std()),
        calibration=calibration(scale * margins, correct, prompts),
        length=length_metrics(margins, longer, correct, prompts),
        by_margin=_by_margin(_numbers(scores, "margin"), correct, prompts),
        best_of_n=best_of_n(scores),
        win_rates=win_rates(scores, correct),
        by_subset={
            str(name): Rates.model_validate(
                {
                    "n": len(rows),
                    **accuracy(correct[rows], prompts[rows]),
                    "length_accuracy": _longer_is_chosen(longer[rows]),
                }
            )
            for name, rows in sorted(scores.groupby("subset", observed=True).indices.items())
        },
    )
    return metrics.model_copy(update=_weighted(_numbers(scores, "weight"), correct, prompts))


def _numbers(scores: pd.DataFrame, name: str) -> Floats:
    result: Floats = scores[name].to_numpy(np.float64)
    return result


def _longer_is_chosen(longer: Floats) -> float:
    """How often the longer answer is the chosen one, ties half; `longer` [n] is chosen minus rejected tokens."""
    return float(((longer > 0) + 0.5 * (longer == 0)).mean())


def _weighted(weights: Floats, correct: Floats, prompts: Codes) -> dict[str, float]:
    """The accuracy with each pair counted by its weight in the data; nothing where all weights are equal."""
    if weights.min() == weights.max():
        return {}
    value = float((weights * correct).sum() / weights.sum())
    table = prompt_sums(prompts, weights * correct, weights)
    low, high = statistic_interval(table, ratio, effective_prompts(prompts, weights))
    return {"weighted_accuracy": value, "weighted_accuracy_low": low, "weighted_accuracy_high": high}


def _by_margin(margins: Floats, correct: Floats, prompts: Codes) -> list[Bin]:
    """The accuracy by the margin of the label, in up to five bins of about equal number; [] where there are none."""
    known = np.flatnonzero(np.isfinite(margins))
    if not len(known):
        return []
    values = margins[known]
    bins = np.searchsorted(upper_bounds(values, MARGIN_BINS), values)
    return binned(values, bins, correct[known], prompts[known])
