"""Learning curves: what more data brings, from runs on nested fractions of it.

Error rate and loss fall with the number n of training pairs about as a power law, `floor + scale * n^-exponent`
(Hestness et al. 2017, arXiv 1712.00409; the review of Viering and Loog 2021, arXiv 2103.10948). It is fitted to the
logarithms by generalized least squares: all runs are judged on the same prompts, so that their errors go up and down
together, which the covariance of their means has. Every floor that the data does not exclude counts for the interval.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from rewardline.core.hashing import canonical
from rewardline.evaluation.comparisons import CurvePoint, LearningCurve
from rewardline.evaluation.leaderboards import Entry, Leaderboard
from rewardline.evaluation.metrics.intervals import Codes, Floats, prompt_groups, prompt_sums
from rewardline.evaluation.scores import read_ids, read_pair_scores
from rewardline.training.records.run_facts import RunFacts

LEAST_POINTS = 3
FLOORS = 200
HIGHEST_FLOOR = 0.9
"""As a share of the lowest value: nearer to it, logarithms of the rest say nothing."""


@dataclass(frozen=True)
class PowerLaw:
    """`floor + exp(log_scale) * n^-exponent`, with the covariance [2, 2] of log_scale and exponent.

    `quantile`: half the width of a 95% interval in standard errors.
    """

    log_scale: float
    exponent: float
    floor: float
    covariance: Floats
    quantile: float

    def exponent_interval(self) -> tuple[float, float]:
        """The 95% interval of the exponent, given the floor."""
        half = self.quantile * math.sqrt(self.covariance[1, 1])
        return self.exponent - half, self.exponent + half

    def gain(self, pairs: float) -> tuple[float, float, float]:
        """By how much the value falls from `pairs` to twice as many, with its 95% interval, given the floor."""
        reducible = math.exp(self.log_scale - self.exponent * math.log(pairs))
        gain = reducible * (1 - 2**-self.exponent)
        by_exponent = reducible * math.log(2) * 2**-self.exponent - math.log(pairs) * gain
        gradient = np.array([gain, by_exponent])
        half = self.quantile * math.sqrt(max(float(gradient @ self.covariance @ gradient), 0.0))
        return gain, gain - half, gain + half


def fit(pairs: Sequence[int], values: Floats, covariance: Floats) -> list[PowerLaw]:
    """The laws, one for each floor that the data does not exclude, of `values` [k] with this covariance [k, k].

    The first has the floor 0, or the best one if that is excluded. None for fewer than three numbers of pairs, or a
    value of 0.
    """
    if len(set(pairs)) < LEAST_POINTS or not (values > 0).all():
        return []
    design = np.stack([np.ones(len(values)), -np.log(np.asarray(pairs, dtype=np.float64))], axis=1)
    noise = covariance + np.eye(len(values)) * 1e-9 * max(float(np.trace(covariance)), 1e-9)
    fits = []
    for floor in np.linspace(0, HIGHEST_FLOOR * float(values.min()), FLOORS).tolist():
        above = values - floor
        precision = np.linalg.inv(noise / np.outer(above, above))
        spread = np.linalg.inv(design.T @ precision @ design)
        parameters = spread @ design.T @ precision @ np.log(above)
        left = np.log(above) - design @ parameters
        fits.append((float(left @ precision @ left), floor, parameters, spread))
    least = min(chi for chi, *_ in fits)
    freedom = len(values) - 3
    scatter, quantile = (least / freedom if freedom else 0.0), 1.96
    if scatter > 1:
        quantile = float(stdtrit(freedom, 0.975))
    scatter = max(1.0, scatter)
    accepted = [one for one in fits if (one[0] - least) / scatter <= 3.84]
    if accepted[0][1] > 0:
        accepted.sort(key=lambda one: one[0])
    return [
        PowerLaw(float(found[0]), float(found[1]), floor, spread * scatter, quantile)
        for _, floor, found, spread in accepted
    ]


def learning_curves(
    board: Leaderboard, scores: Mapping[str, Path], facts: Mapping[str, RunFacts]
) -> list[LearningCurve]:
    """The curves of the runs of a leaderboard that differ in nothing but their fraction of the data and their seed.

    `scores`: `scores.parquet` by run id.

    Raises:
        UserError: a file is missing or damaged.
    """
    groups: dict[str, list[Entry]] = {}
    for entry in board.entries:
        known = facts.get(entry.runs[0])
        if known and known.eliminated_at is None and not entry.mark:
            key = [known.sweep, known.mixture, known.model, known.training.model_dump(mode="json")]
            groups.setdefault(canonical(key), []).append(entry)
    curves = []
    for group in groups.values():
        group.sort(key=lambda entry: facts[entry.runs[0]].train_pairs)
        if len({facts[entry.runs[0]].fraction for entry in group}) >= LEAST_POINTS:
            curves += _curves(board, group, scores, facts)
    return curves


def _curves(
    board: Leaderboard, group: Sequence[Entry], scores: Mapping[str, Path], facts: Mapping[str, RunFacts]
) -> list[LearningCurve]:
    prompts, errors, losses = _values(
        {one.run: scores[one.run] for e in group for one in e.members},
        {one.run: one.scale if math.isfinite(one.scale) else 1.0 for e in group for one in e.members},
    )
    name = re.sub(r"-fraction=[^_]*(_|$)", r"-", group[-1].name).removesuffix("-")
    pairs = [facts[entry.runs[0]].train_pairs for entry in group]
    curves = []
    for metric, by_run in (("error", errors), ("loss", losses)):
        columns = [np.mean([by_run[run] for run in entry.runs], axis=0) for entry in group]
        values = np.array([column.mean() for column in columns])
        covariance = _covariance(prompts, columns, [[float(by_run[run].mean()) for run in e.runs] for e in group])
        half = 1.96 * np.sqrt(np.diag(covariance))
        laws = fit(pairs, values, covariance)
        if not laws:
            continue
        points = [
            CurvePoint(fraction=facts[entry.runs[0]].fraction, pairs=n, runs=entry.runs, value=v, low=v - h, high=v + h)
            for entry, n, v, h in zip(group, pairs, values.tolist(), half.tolist(), strict=True)
        ]
        exponents = [one.exponent_interval() for one in laws]
        gains = [one.gain(pairs[-1]) for one in laws]
        facts_of_law = {
            "exponent": laws[0].exponent,
            "exponent_low": min(low for low, _ in exponents),
            "exponent_high": max(high for _, high in exponents),
            "scale": math.exp(laws[0].log_scale),
            "floor": laws[0].floor,
            "gain": gains[0][0],
            "gain_low": min(low for _, low, _ in gains),
            "gain_high": max(high for _, _, high in gains),
        }
        mixture = group[0].members[0].mixture
        names = {"name": name, "benchmark": board.benchmark, "mixture": mixture, "metric": metric}
        curves.append(LearningCurve.model_validate({**names, "points": points, **facts_of_law}))
    return curves


def _covariance(prompts: Codes, columns: Sequence[Floats], seeds: Sequence[Sequence[float]]) -> Floats:
    """The covariance of the means of `columns` [k x n] for other prompts, and for other seeds if there are several."""
    sums = prompt_sums(prompts, *(column - column.mean() for column in columns)) / len(columns[0])
    covariance: Floats = sums.T @ sums
    freedom = sum(len(values) - 1 for values in seeds)
    if freedom:
        variance = sum(len(values) * float(np.var(values)) for values in seeds) / freedom
        covariance += np.diag([variance / len(values) for values in seeds])
    return covariance


def _values(
    scores: Mapping[str, Path], scales: Mapping[str, float]
) -> tuple[Codes, dict[str, Floats], dict[str, Floats]]:
    """For the pairs that all runs scored: the number of their prompt, and by run their errors and their losses [n]."""
    ids = {run: read_ids(path, "pair_id") for run, path in scores.items()}
    common = next(iter(ids.values()))
    for one in ids.values():
        common = np.intersect1d(common, one)
    errors, losses = {}, {}
    prompts: Codes = np.zeros(0, dtype=np.int64)
    for run, path in scores.items():
        pair_ids, (chosen, rejected) = read_pair_scores(path)
        order = np.argsort(pair_ids, kind="stable")
        rows = order[np.searchsorted(pair_ids[order], common)]
        margin = chosen[rows].astype(np.float64) - rejected[rows]
        errors[run] = (1 - np.sign(margin)) / 2
        losses[run] = np.logaddexp(0, -scales[run] * margin)
        if not len(prompts):
            prompts, _ = prompt_groups(np.unique(read_ids(path, "prompt_id")[rows], return_inverse=True)[1])
    return prompts, errors, losses
