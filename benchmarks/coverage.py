"""How often intervals hold what they should, by simulation.

    python benchmarks/coverage.py --repeats 2000

Prints four Markdown tables: the coverage of the interval of one run, of the interval of a run with several seeds, how
often equal runs are said to differ, and how often `select` says it of equal settings of which some scatter ten times
as far between seeds as the others. Skill differs between seeds, by about three points, and difficulty between prompts;
nothing else is right or wrong about a run.
"""

import argparse
import math
import sys
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from rewardline.evaluation.leaderboards import entries, over_seeds
from rewardline.evaluation.metrics.intervals import mean_interval
from rewardline.evaluation.selection import choice_between
from rewardline.evaluation.settings import SelectSettings

from support.seeds import compared, scored, seeds_of_recipes


def of_one_run(repeats: int, rng: np.random.Generator) -> None:
    """Coverage of the interval of one run by number of prompts, pairs of each, and accuracy."""
    accuracies = (0.5, 0.8, 0.95, 0.98, 0.99)
    print("| prompts x pairs | pairs of a prompt | " + " | ".join(f"{one:.0%}" for one in accuracies) + " |")
    print("|---|---|" + "---|" * len(accuracies))
    for sizes, agreement in product(
        ([1] * 10, [1] * 50, [1] * 300, [4] * 20, [4] * 50, [4] * 300, [1] * 30 + [20] * 6), (0.2, 0.8, 1.0)
    ):
        owner, cells = np.repeat(np.arange(len(sizes)), sizes), []
        for accuracy in accuracies:
            values = np.repeat(rng.random((repeats, len(sizes))) < accuracy, sizes, axis=1)
            alone = rng.random(values.shape) > agreement
            values = np.where(alone, rng.random(values.shape) < accuracy, values).astype(np.float64)
            bounds = [mean_interval(one, owner) for one in values]
            cells.append(np.mean([low <= accuracy <= high for low, high in bounds]))
        name = f"{len(sizes)} x {sizes[0]}" if len(set(sizes)) == 1 else "30 x 1 and 6 x 20"
        print(f"| {name} | {agreement:.0%} alike | " + " | ".join(f"{one:.1%}" for one in cells) + " |", flush=True)


def of_several_seeds(repeats: int, rng: np.random.Generator) -> None:
    """Coverage of the recipe's accuracy, for other prompts and seeds, by prompts, accuracy and number of seeds."""
    counts = (1, 2, 3, 5)
    print("\n| prompts | accuracy | " + " | ".join(f"{one} seeds" for one in counts) + " |")
    print("|---|---|" + "---|" * len(counts))
    for prompts, accuracy in product((100, 850), (0.6, 0.8, 0.95)):
        cells = []
        for seeds in counts:
            hits = []
            for _ in range(repeats):
                correct: Any = seeds_of_recipes(rng, 1, seeds, prompts, accuracy)[0]
                bounds = mean_interval(correct.mean(axis=0), np.arange(prompts))
                low, high = over_seeds(correct.mean(axis=1).tolist(), *bounds)
                hits.append(low <= accuracy <= high)
            cells.append(np.mean(hits))
        print(f"| {prompts} | {accuracy:.0%} | " + " | ".join(f"{one:.1%}" for one in cells) + " |", flush=True)


def of_differences(repeats: int, rng: np.random.Generator) -> None:
    """How often any of several equal recipes is said to differ, by their number and that of their seeds."""
    counts = (2, 3, 5)
    print("\n| recipes | " + " | ".join(f"{one} seeds" for one in counts) + " |\n|---|" + "---|" * len(counts))
    for recipes in (2, 5, 10, 20):
        cells = []
        for seeds in counts:
            runs = (seeds_of_recipes(rng, recipes, seeds, 200, 0.8) for _ in range(math.ceil(repeats / recipes)))
            cells.append(np.mean([any(not two.within_noise for two in compared(one).differences) for one in runs]))
        print(f"| {recipes} | " + " | ".join(f"{one:.1%}" for one in cells) + " |", flush=True)


def of_choices(repeats: int, rng: np.random.Generator) -> None:
    """How often a choice calls a difference between equal settings more than noise; without Welch's interval, too."""
    settings, counts = SelectSettings(name="best", benchmark="eval", share=0.5), (2, 3, 5)
    print("\n| settings | that scatter more | " + " | ".join(f"{one} seeds" for one in counts) + " |")
    print("|---|---|" + "---|" * len(counts))
    for recipes in (4, 12):
        for wide in (1, recipes // 2):
            scatters, cells = [0.3] * wide + [0.03] * (recipes - wide), []
            for seeds in counts:
                alarms = []
                for _ in range(repeats):
                    results, pairs = scored(seeds_of_recipes(rng, recipes, seeds, 500, 0.75, scatters))
                    chosen = choice_between(settings, entries(results), pairs)
                    with mock.patch("rewardline.evaluation.compare._welch_error", return_value=0.0):
                        without = choice_between(settings, entries(results), pairs)
                    alarms.append([len(one.within_noise) < recipes - 1 for one in (chosen, without)])
                cells.append("{:.1%}, without {:.1%}".format(*np.mean(alarms, axis=0)))
            print(f"| {recipes} | {wide} | " + " | ".join(cells) + " |", flush=True)


def main() -> int:
    """Simulate and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=500)
    args = options.parse_args()
    rng = np.random.default_rng(0)
    of_one_run(args.repeats, rng)
    of_several_seeds(args.repeats, rng)
    of_differences(args.repeats, rng)
    of_choices(args.repeats, rng)
    return 0


if __name__ == "__main__":
    sys.exit(main())
