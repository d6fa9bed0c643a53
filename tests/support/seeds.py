"""Simulated seeds of equal recipes, and their comparison."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from scipy import stats

from rewardline.evaluation.compare import compare_entries
from rewardline.evaluation.comparisons import BenchmarkComparison
from rewardline.evaluation.leaderboards import leaderboards
from rewardline.evaluation.preferences import Preferences
from rewardline.evaluation.results import EvaluationResult


def seeds_of_recipes(
    rng: np.random.Generator,
    recipes: int,
    seeds: int,
    prompts: int,
    accuracy: float,
    scatters: Sequence[float] = (0.15,),
) -> Any:
    """Whether each seed of equal recipes is right on each prompt: seeds differ in skill, prompts in difficulty.

    `scatters`: of the seeds of each recipe, or of all of them; 0.15 is about 3 points.
    """
    scatter, noise = np.reshape(scatters, (-1, 1, 1)), 0.5
    middle = stats.norm.ppf(accuracy) * np.sqrt(1 + scatter**2 + noise**2)
    skill = middle + scatter * rng.normal(size=(recipes, seeds, 1)) - rng.normal(size=prompts)
    return skill + noise * rng.normal(size=(recipes, seeds, prompts)) > 0


def compared(correct: Any) -> BenchmarkComparison:
    """The comparison of recipes of several seeds by `correct`, bool [recipes, seeds, prompts]."""
    results, pairs = scored(correct)
    (board,) = leaderboards(results)
    return compare_entries(board, board.entries, pairs)


def scored(correct: Any) -> tuple[list[EvaluationResult], Preferences]:
    """The results and the preferences of recipes of several seeds by `correct`, bool [recipes, seeds, prompts]."""
    recipes, seeds, prompts = correct.shape
    right, results = {}, []
    for recipe, seed in product(range(recipes), range(seeds)):
        run = f"r{recipe}-seed{seed}"
        right[run] = (2 * correct[recipe, seed]).astype(np.uint8)
        rates = {"n": prompts, "accuracy": float(correct[recipe, seed].mean())}
        identity = {"run": run, "name": f"r{recipe}", "mixture": "m", "model": "x", "seed": seed, "benchmark": "eval"}
        results.append(EvaluationResult.model_validate({**identity, **rates}))
    numbers, none = np.arange(prompts), np.zeros(prompts)
    ids = numbers.astype(np.uint64)
    return results, Preferences(
        ids, numbers, ids, np.ones(prompts, dtype=np.int64), right, none.astype(np.int32), none.astype(np.int32),
        none, none,
    )  # fmt: skip
