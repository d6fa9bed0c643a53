"""Preference Proxy Evaluations, human preference (Frick et al. 2024, arXiv 2410.14872)."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rewardline.core.settings import JsonObject
from rewardline.data.formats.settings import BenchmarkRows
from rewardline.evaluation.published.base import Benchmark, Measured, ScoredRow, mean, share
from rewardline.evaluation.published.rankings import Floats, tau_b
from rewardline.evaluation.results import Section

RESAMPLES: Final = 100
RIDGE: Final = 0.01
"""Keeps the ratings of models that always win, or always lose, finite."""


class Battles(NamedTuple):
    """Who met whom: numbers of models, int [n], and how often the first won, float64 [n], a tie 0.5."""

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    won: Floats


class PPEHuman(Benchmark):
    """Votes of people in Chatbot Arena: of pairs, and the ranking of 20 models that they give."""

    name = "ppe_human"
    title = "PPE, human preference"
    measures = "votes of people, and the ranking of 20 models by them"
    figures = (
        "`accuracy`: of pairs, a tie of scores half; it is `overall`. Of the models' Bradley-Terry ratings by votes and"
        " by scores: `Spearman` and `Kendall`; `row-wise Pearson`: the mean over models of the correlation of their win"
        " rates; `separability`: the share of pairs of models whose 95% intervals by scores do not overlap; `confidence"
        " agreement`: of the pairs of models that votes and scores both separate, how many they order alike; `Brier`:"
        " the mean squared error of the probability, by the bootstrap of the scores, that one model is better (0 is"
        " best). Votes for a tie are left out; with `ties: keep` they count half in the ratings. 100 resamples"
        " with a fixed seed, so that other bootstraps differ in the last digits."
    )
    size = "16,038 pairs of 20 models"
    license = "CC-BY-4.0 (prompts), terms of the models (answers)"
    source = (
        "[lmarena-ai/PPE-Human-Preference-V1](https://huggingface.co/datasets/lmarena-ai/PPE-Human-Preference-V1), \
arXiv 2410.14872"
    )
    reading: ClassVar[JsonObject] = {
        "format": "preference",
        "fields": {
            "prompt": "prompt", "answer_a": "response_1", "answer_b": "response_2", "preference": "winner",
            "source_a": "model_a", "source_b": "model_b", "subset": "language",
        },
    }  # fmt: skip
    shape = BenchmarkRows(name=name)

    def measure(self, rows: Sequence[ScoredRow]) -> Measured:
        """The accuracy, and the figures of the models' ranking where two models or more are named."""
        accuracy = share([row for row in rows if not row.tied], lambda row: row.half_credit)
        named = [row for row in rows if all(answer.source for answer in row.answers)]
        models = {name: n for n, name in enumerate(sorted({answer.source for row in named for answer in row.answers}))}
        sections = {"accuracy": accuracy}
        if len(models) > 1:
            sides = [(*row.chosen.values(), *row.rejected.values()) for row in named]
            first, second = (np.array([models[side[k].source] for side in sides]) for k in (0, 1))
            votes = Battles(first, second, np.array([0.5 if row.tied else 1.0 for row in named]))
            scores = Battles(first, second, np.array([row.half_credit for row in named]))
            figures = ranking_figures(votes, scores, len(models))
            sections |= {name: Section(score=value, n=len(named)) for name, value in figures.items()}
        return Measured(accuracy.score, sections)


def ranking_figures(votes: Battles, scores: Battles, models: int) -> dict[str, float]:
    """The agreement of the rankings of `models` models by votes and by scores, with bootstraps of a fixed seed."""
    wins, predicted = win_counts(votes, models), win_counts(scores, models)
    true, found = ratings(wins[None])[0], ratings(predicted[None])[0]
    resampled = np.random.default_rng(0).multinomial(
        len(votes.won), np.full(len(votes.won), 1 / len(votes.won)), RESAMPLES
    )
    samples = [ratings(np.stack([win_counts(b, models, n) for n in resampled])) for b in (votes, scores)]
    (true_low, true_high), (low, high) = (np.quantile(sample, (0.025, 0.975), axis=0) for sample in samples)
    center, variance = samples[1].mean(axis=0), samples[1].var(axis=0)
    separated, agree, brier = [], [], []
    for i, j in combinations(range(models), 2):
        apart = bool(low[i] > high[j] or low[j] > high[i])
        separated.append(apart)
        if apart and (true_low[i] > true_high[j] or true_low[j] > true_high[i]):
            agree.append((true[i] > true[j]) == (found[i] > found[j]))
        spread = math.sqrt(variance[i] + variance[j])
        distance = (center[i] - center[j]) / spread if spread else math.copysign(math.inf, center[i] - center[j])
        brier.append((0.5 * (1 + math.erf(distance / math.sqrt(2))) - float(true[i] > true[j])) ** 2)
    return {
        "row-wise Pearson": _row_wise_pearson(wins, predicted),
        "separability": mean(separated),
        "confidence agreement": mean(agree),
        "Kendall": tau_b(true, found),
        "Spearman": _correlation(_ranks(true), _ranks(found)),
        "Brier": mean(brier),
    }


def win_counts(battles: Battles, models: int, times: npt.NDArray[np.int64] | None = None) -> Floats:
    """How often each model won against each other, float64 [models, models]; `times` is how often a battle counts."""
    counts = np.zeros((models, models))
    weights = np.ones(len(battles.won)) if times is None else times
    np.add.at(counts, (battles.first, battles.second), weights * battles.won)
    np.add.at(counts, (battles.second, battles.first), weights * (1 - battles.won))
    return counts


def ratings(wins: Floats) -> Floats:
    """The Bradley-Terry ratings in nats by Newton's method, with mean 0: float64 [samples, models]."""
    totals = wins + wins.swapaxes(1, 2)
    found = np.zeros(wins.shape[:2])
    identity = np.eye(wins.shape[1])
    for _ in range(100):
        chance = 1 / (1 + np.exp(found[:, None, :] - found[:, :, None]))
        gradient = wins.sum(axis=2) - (totals * chance).sum(axis=2) - RIDGE * found
        information = totals * chance * (1 - chance)
        hessian = identity * (information.sum(axis=2)[:, :, None] + RIDGE) - information
        step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        found += np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-10:
            break
    return found


def _row_wise_pearson(wins: Floats, predicted: Floats) -> float:
    """The mean over models of the correlation of both win rates against their opponents; NaN where none varies."""
    totals = wins + wins.T
    rows = []
    for k, met in enumerate(totals > 0):
        value = _correlation(*(counts[k, met] / totals[k, met] for counts in (wins, predicted)))
        rows += [value] if math.isfinite(value) else []
    return mean(rows)


def _correlation(first: Floats, second: Floats) -> float:
    one, two = first - first.mean(), second - second.mean()
    scale = math.sqrt(float((one**2).sum() * (two**2).sum()))
    return float((one * two).sum()) / scale if scale else math.nan


def _ranks(values: Floats) -> Floats:
    """Ranks from 0, the mean of theirs for equal values."""
    smaller = np.less.outer(values, values).sum(axis=0)
    result: Floats = smaller + (np.equal.outer(values, values).sum(axis=0) - 1) / 2
    return result
