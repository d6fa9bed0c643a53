"""The choice of the best of several runs, on one part of the held-out prompts; its accuracy is measured on the other.

A run with several seeds counts by their mean; of the best run, the best seed is taken. As the winner is the best of
many by the pairs that chose it, its accuracy on these is too high by chance; that on the other part is not. Which
others are within its noise is judged on all pairs, by intervals that hold together for every two of the runs (max-T:
Westfall and Young 1993), so that it makes no difference that the data chose the winner.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from rewardline.core.errors import UserError
from rewardline.data.pairs.identity import chooses
from rewardline.evaluation.choices import ChosenRun, PartAccuracy, Standing
from rewardline.evaluation.compare import Scatter, difference_of
from rewardline.evaluation.leaderboards import Entry, entries
from rewardline.evaluation.metrics.intervals import Floats, mean_interval, prompt_sums
from rewardline.evaluation.preferences import Preferences, read_preferences
from rewardline.evaluation.results import read_all_results
from rewardline.evaluation.settings import SelectSettings
from rewardline.training.records.run_facts import RunFacts

DRAWS = 5_000


def choose(
    settings: SelectSettings, metrics: Sequence[Path], scores: Mapping[str, Path], models: Mapping[str, Path]
) -> ChosenRun:
    """The choice between the runs whose `metrics.json` are given.

    Those that halving has eliminated are left out, and those of which the training of a seed has diverged.

    `scores`: `scores.parquet` by run id; `models`: `run.json`.

    Raises:
        UserError: a file is missing or damaged, no run is left, or the runs have not scored the same pairs.
    """
    facts = {run: RunFacts.read(path) for run, path in models.items()}
    diverged = {run: known.diverged for run, known in facts.items() if known.diverged is not None}
    eliminated = {run for run, known in facts.items() if known.eliminated_at is not None}
    found = entries(chain(*read_all_results(metrics)))
    candidates = [entry for entry in found if not (eliminated | diverged.keys()) & set(entry.runs)]
    if not candidates:
        if not diverged:
            remedy = "successive halving has eliminated all runs; name the sweep in `from`"
            raise UserError(f"select {settings.name}: {remedy}")
        gone = ", ".join(f"{run} ({reason})" for run, reason in diverged.items())
        raise UserError(
            f"select {settings.name}: no run is left, as the training of {gone} has diverged"
            + (", and halving has eliminated all others" if eliminated else "")
            + "; leave out these values, so that others continue, or lower their learning rate"
        )
    runs = {run for entry in candidates for run in entry.runs}
    remaining = {run: path for run, path in scores.items() if run in runs}
    choice = choice_between(settings, candidates, read_preferences(remaining, ()))
    out = [entry.name for entry in found if entry not in candidates and not diverged.keys() & set(entry.runs)]
    return choice.model_copy(
        update={**({"eliminated": out} if out else {}), **({"diverged": diverged} if diverged else {})}
    )


def choice_between(settings: SelectSettings, candidates: Sequence[Entry], preferences: Preferences) -> ChosenRun:
    """The choice between entries of one benchmark; raises as `choose`."""
    pairs = preferences.common([run for one in candidates for run in one.runs])
    choosing = chooses(preferences.prompt_ids[pairs], settings.share)
    if choosing.all() or not choosing.any():
        raise UserError(
            f"select {settings.name}: the runs have {len(pairs):,} pairs of {settings.benchmark} in common, too few to"
            " choose by some of them and judge by others; select among runs that are evaluated on the same data"
        )
    first, second = pairs[choosing], pairs[~choosing]
    ranked = sorted(candidates, key=lambda one: (-_accuracy(preferences, one.runs, first), one.name))
    best = ranked[0]
    run = min(best.runs, key=lambda name: (-_accuracy(preferences, [name], first), name))
    scatter = Scatter.of([[one.accuracy for one in entry.members] for entry in candidates if len(entry.members) > 1])
    level = joint_level(ranked, preferences, pairs, scatter)
    return ChosenRun(
        name=settings.name,
        benchmark=settings.benchmark,
        mixture=best.members[0].mixture,
        best=best.name,
        run=run,
        chosen_on=_part(preferences, [run], first),
        reported_on=_part(preferences, [run], second),
        standings=[
            Standing(name=one.name, runs=one.runs, chosen_on=_part(preferences, one.runs, first)) for one in ranked
        ],
        differences=[difference_of(best, one, preferences, scatter, level) for one in ranked[1:]],
    )


def _accuracy(preferences: Preferences, runs: Sequence[str], pairs: "np.typing.NDArray[np.intp]") -> float:
    return float(preferences.rates(runs, pairs).mean())


def _part(preferences: Preferences, runs: Sequence[str], pairs: "np.typing.NDArray[np.intp]") -> PartAccuracy:
    rates = preferences.rates(runs, pairs)
    low, high = mean_interval(rates, preferences.prompts[pairs])
    return PartAccuracy(n=len(pairs), accuracy=float(rates.mean()), accuracy_low=low, accuracy_high=high)


def joint_level(
    candidates: Sequence[Entry], preferences: Preferences, pairs: "np.typing.NDArray[np.intp]", scatter: Scatter
) -> float:
    """The level of single intervals at which those of the differences of every two runs hold together with 95%.

    From the distribution of the largest of these differences, each in units of its standard error, if all runs were
    equal: means of prompts are drawn with the covariance that the runs have, and those of seeds with their variance.
    """
    prompts, count = preferences.prompts[pairs], len(pairs)
    rates = [preferences.rates(one.runs, pairs) for one in candidates]
    sums = prompt_sums(prompts, *(values - values.mean() for values in rates)) / count
    covariance: Floats = sums.T @ sums
    if scatter.freedom:
        covariance += np.diag([scatter.variance / len(one.runs) for one in candidates])
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    draws = np.random.default_rng(0).standard_normal((DRAWS, len(values))) @ root.T
    variances = np.diag(covariance)[:, None] + np.diag(covariance) - 2 * covariance
    largest = np.zeros(DRAWS)
    for one, row in enumerate(variances):
        others = np.flatnonzero(row[:one] > 1e-12 * max(float(variances.max()), 1e-300))
        if others.size:
            scaled = np.abs(draws[:, [one]] - draws[:, others]) / np.sqrt(row[others])
            largest = np.maximum(largest, scaled.max(axis=1))
    quantile = float(np.quantile(largest, 0.95))
    return max(0.95, float(2 * ndtr(quantile) - 1))
