"""How many labels an accuracy takes if the pairs to label are chosen, and if they are drawn at random, on the demo.

    python benchmarks/labels/to_label.py --folder /tmp/labels

Each repeat has pairs of the demo of its own. All models are the default one. A few models (seeds) are trained on the
first labels, `to_label` chooses the next pairs by them, the demo's generator labels these, models are trained on all
labels from the start, and so on; beside it, the same number of pairs is drawn at random. Both begin with the same
labels and are judged by the same pairs with other prompts. Prints Markdown tables: the mean accuracy of the models by
number of labels, and how many labels reach what drawing at random reaches with all of them. Meant for a quarter of an
hour on two idle cores; finished runs in the folder are used again.
"""

import argparse
import json
import random
import subprocess
import sys
from itertools import pairwise
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from rewardline.data.demo.generator import generate

Json = dict[str, Any]
ARMS = ("chosen", "random")
TEST_SEED = 2


def write_rows(path: Path, rows: list[Json]) -> None:
    """Write rows as JSON lines, unless the file has this content."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def key_of(prompt: Any, one: str, other: str) -> str:
    """What a pair is found by in the pool, whichever of its answers comes first."""
    return json.dumps([prompt, *sorted((one, other))], sort_keys=True)


class Repeat:
    """The labels of both arms, from one pool."""

    def __init__(self, folder: Path, number: int, options: argparse.Namespace) -> None:
        self._folder, self._options, self._rng = folder / f"{number}", options, random.Random(number)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._seed = 100 + number
        seen = {json.dumps(row["prompt"]) for row in generate(options.test, TEST_SEED)}
        self._pool: dict[str, Json] = {}
        for row in generate(options.pool, self._seed):
            if (prompt := json.dumps(row["prompt"])) not in seen:  # once, as the labels of other pairs are not known
                seen.add(prompt)
                self._pool[key_of(row["prompt"], str(row["chosen"]), str(row["rejected"]))] = dict(row)
        shown = []
        for row in self._pool.values():
            answers = [row["chosen"], row["rejected"]]
            self._rng.shuffle(answers)
            shown.append({"prompt": row["prompt"], "answers": answers})
        write_rows(self._folder / "pool.jsonl", shown)
        first = self._rng.sample(list(self._pool), options.first)
        self._labeled = {arm: list(first) for arm in ARMS}

    def accuracies(self) -> dict[str, list[float]]:
        """By arm, the mean accuracy of the models after each round."""
        found: dict[str, list[float]] = {arm: [] for arm in ARMS}
        for number in range(self._options.rounds + 1):
            self._run(number)
            for arm in ARMS:
                name = "random-0" if number == 0 else f"{arm}-{number}"  # the first labels are the same
                found[arm].append(self._accuracy(name))
            if number < self._options.rounds:
                self._label(number)
        return found

    def _run(self, number: int) -> None:
        """Train the models of a round, and let those of the first arm choose."""
        default = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
        training = {**default["runs"]["demo"]["training"], "eval_every": 0, "epochs": self._options.epochs}
        model = default["models"]["tiny"]
        model["init"]["tokenizer"]["mixture"] = "text"
        arms = [f"{arm}-{number}" for arm in (ARMS if number else ARMS[1:])]
        for name in arms:
            arm = name.partition("-")[0]
            write_rows(self._folder / f"{name}.jsonl", [self._pool[key] for key in self._labeled[arm]])
        alike = {"eval_fraction": 0.0, "near_duplicates": None, "decontamination": None}  # no label is lost
        recipe: Json = {"model": "tiny", "benchmarks": ["test"], "seeds": list(range(self._options.members))}
        config: Json = {
            "datasets": {
                "text": {"demo": {"pairs": self._options.pool, "seed": self._seed}},
                **{name: {"files": [str(self._folder / f"{name}.jsonl")]} for name in arms},
            },
            "mixtures": {
                "text": {"datasets": {"text": 1.0}, "eval_fraction": 0.0},
                **{name: {**alike, "datasets": {name: 1.0}} for name in arms},
            },
            "models": {"tiny": model},
            "benchmarks": {"test": {"demo": {"pairs": self._options.test, "seed": TEST_SEED}}},
            "runs": {name: {**recipe, "mixture": name, "training": training} for name in arms},
        }
        if number < self._options.rounds:
            config["to_label"] = {
                f"next-{number}": {
                    "files": [str(self._folder / "pool.jsonl")],
                    "runs": arms[0],
                    "number": self._options.labels,
                    "by": self._options.by,
                }
            }
        path = self._folder / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(self._folder)]
        command += ["--cores", "2", "--quiet", "all", "--configfile", str(path), "--"]
        command += [f"results/to_label/{name}.jsonl" for name in config.get("to_label", {})]
        command += [str(self._metrics(name, seed)) for name in arms for seed in recipe["seeds"]]
        subprocess.run(command, check=True, stdout=sys.stderr)

    def _label(self, number: int) -> None:
        """Add labels to both arms: of the chosen pairs, and of as many others."""
        path = self._folder / "results" / "to_label" / f"next-{number}.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        asked = [key_of(line["prompt"], line["answer_a"], line["answer_b"]) for line in lines]
        left = [key for key in self._pool if key not in set(self._labeled["random"])]
        self._labeled["chosen"] += asked
        self._labeled["random"] += self._rng.sample(left, len(asked))

    @staticmethod
    def _metrics(name: str, seed: int) -> Path:
        return Path("results", "evals", f"{name}-seed{seed}", "test", "metrics.json")

    def _accuracy(self, name: str) -> float:
        """The mean over the models of a run."""
        files = [self._folder / self._metrics(name, seed) for seed in range(self._options.members)]
        return float(np.mean([json.loads(path.read_text())["accuracy"] for path in files]))


def labels_to_reach(accuracy: float, labels: list[int], accuracies: list[float]) -> float:
    """The number of labels at which a curve first reaches an accuracy, by interpolation; NaN if it does not."""
    for (one, low), (two, high) in pairwise(zip(labels, accuracies, strict=True)):
        if low < accuracy <= high:
            return one + (two - one) * (accuracy - low) / (high - low)
    return float("nan")


def spread(values: list[float], form: str) -> str:
    """Mean and range."""
    return f"{np.mean(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def main() -> int:
    """Label, train and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--pool", type=int, default=6_000, help="pairs to choose from")
    options.add_argument("--first", type=int, default=1_000, help="labels drawn at random before anything is chosen")
    options.add_argument("--labels", type=int, default=500, help="labels of a round")
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--members", type=int, default=2, help="models that choose, seeds of one run; two or more")
    options.add_argument("--by", choices=("disagreement", "uncertainty"), default="disagreement")
    options.add_argument("--test", type=int, default=2_000, help="pairs to judge by")
    options.add_argument("--epochs", type=float, default=4)
    args = options.parse_args()
    labels = [args.first + args.labels * number for number in range(args.rounds + 1)]
    found = [Repeat(args.folder.resolve(), number, args).accuracies() for number in range(args.repeats)]
    print("| labels | chosen | at random | difference |\n|---|---|---|---|")
    for number, count in enumerate(labels):
        chosen, drawn = ([one[arm][number] for one in found] for arm in ARMS)
        gain = [one - other for one, other in zip(chosen, drawn, strict=True)]
        print(f"| {count:,} | {spread(chosen, '.3f')} | {spread(drawn, '.3f')} | {spread(gain, '+.3f')} |")
    print(f"\n| repeat | accuracy | labels chosen, of {labels[-1]:,} at random |\n|---|---|---|")
    for number, one in enumerate(found):
        goal = one["random"][-1]
        reached = labels_to_reach(goal, labels, one["chosen"])
        print(f"| {number} | {goal:.3f} | {'not reached' if isnan(reached) else f'{reached:,.0f}'} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
