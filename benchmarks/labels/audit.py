"""What an audit of labels finds and wins back: labels of the demo, flipped at random.

    python benchmarks/labels/audit.py --folder /tmp/audit

For each share of flipped labels, trains the default model on the demo's pairs as they are, without the labels that the
audit takes for wrong, with these flipped and softened, and without as many pairs drawn at random; with each of the
seeds. Held-out pairs are right, so that accuracy is what the models are worth. Prints a Markdown table: precision and
recall of the labels in doubt, and held-out accuracy with the paired difference to the pairs as they are (95%, over
prompts, the mean of the seeds). Labels are judged whatever the agreement unless `--min-agreement` is given. An hour on
two idle cores; finished runs in the folder are used again.
"""

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from rewardline.data.demo.generator import SHARES, generate
from rewardline.evaluation.metrics.intervals import difference_interval

ACTIONS = ("drop", "flip", "soften")
Row = dict[str, Any]


def write_if_new(path: Path, text: str) -> None:
    """Write a file, unless it has this content."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def rows(pairs: int, seed: int, flaws: list[str]) -> Iterator[Row]:
    """As many pairs of the demo, with these flaws."""
    return islice((row for row in generate(sys.maxsize, seed) if row["subset"] in flaws), pairs)


def plant(folder: Path, pairs: list[Row], share: float, left_out: set[int]) -> tuple[str, set[int]]:
    """A file of pairs, without some rows, of which a share is flipped; and the flipped rows, from 1."""
    rng, flipped, lines = random.Random(0), set(), []
    for number, row in enumerate(pairs, 1):
        if rng.random() < share:
            row = {**row, "chosen": row["rejected"], "rejected": row["chosen"]}
            flipped.add(number)
        if number not in left_out:
            lines.append(json.dumps(row) + "\n")
    path = folder / ("random.jsonl" if left_out else "pairs.jsonl")
    write_if_new(path, "".join(lines))
    return str(path), flipped


def run(folder: Path, config: dict[str, object]) -> None:
    """Run the pipeline in a folder."""
    write_if_new(folder / "config.yaml", yaml.safe_dump(config))
    command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder), "--cores", "2"]
    subprocess.run([*command, "--quiet", "all", "--configfile", str(folder / "config.yaml")], check=True)


def correct(folder: Path, name: str, seeds: int) -> pd.DataFrame:
    """Whether each seed of a run (column) is right about each held-out pair, by prompt and pair."""
    ids = [name] if seeds == 1 else [f"{name}-seed{seed}" for seed in range(seeds)]
    tables = [pd.read_parquet(folder / "results" / "evals" / run_id / "test" / "scores.parquet") for run_id in ids]
    return pd.concat([one.set_index(["prompt_id", "pair_id"]).correct for one in tables], axis=1)


def compared(after: pd.DataFrame, before: pd.DataFrame) -> str:
    """The mean accuracy of the seeds, its paired difference to `before` with interval, and the range of the seeds'."""
    gain = after.mean(axis=1) - before.mean(axis=1).loc[after.index]
    prompts = np.unique(after.index.get_level_values(0), return_inverse=True)[1]
    low, high = difference_interval(gain.to_numpy(), prompts, 0.95)
    seeds = after.mean() - before.to_numpy().mean()
    interval = f"{gain.mean():+.3f}: {low:+.3f} to {high:+.3f}, seeds {seeds.min():+.3f} to {seeds.max():+.3f}"
    return f"{after.to_numpy().mean():.3f} ({interval})"


def main() -> int:
    """Train, audit and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.05, 0.1, 0.2, 0.3])
    options.add_argument("--flaws", nargs="+", choices=SHARES, default=list(SHARES), help="of the rejected answers")
    options.add_argument("--pairs", type=int, default=10_000)
    options.add_argument("--test", type=int, default=2_000, help="pairs with right labels to judge by")
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--folds", type=int, default=4)
    options.add_argument("--min-agreement", type=float, default=0.5, help="`min_agreement` of the audits")
    options.add_argument("--epochs", type=float, default=2)
    args = options.parse_args()
    pairs = list(rows(args.pairs, 1, args.flaws))
    default = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    head = [
        "flipped",
        "agreement",
        "at least wrong",
        "in doubt",
        "precision",
        "recall",
        "as they are",
        *ACTIONS,
        "random",
    ]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for share in args.shares:
        folder = args.folder.resolve() / f"{share:g}"
        folder.mkdir(parents=True, exist_ok=True)
        path, flipped = plant(folder, pairs, share, set())
        test = folder / "test.jsonl"
        write_if_new(test, "".join(json.dumps(row) + "\n" for row in rows(args.test, 2, args.flaws)))
        training = {**default["runs"]["demo"]["training"], "eval_every": 0, "epochs": args.epochs}
        recipe = {"model": "tiny", "seeds": list(range(args.seeds)), "benchmarks": ["test"], "training": training}
        default["models"]["tiny"]["init"]["tokenizer"]["mixture"] = "main"
        config = {
            "datasets": {"pairs": {"files": [path]}},
            "mixtures": {
                "main": {"datasets": {"pairs": 1.0}, "eval_fraction": 0.02},
                **{action: {"audit": "check", "action": action} for action in ACTIONS},
            },
            "models": {"tiny": default["models"]["tiny"]},
            "audits": {
                "check": {"mixture": "main", "run": "main", "folds": args.folds, "min_agreement": args.min_agreement}
            },
            "benchmarks": {"test": {"files": [str(test)]}},
            "runs": {name: {**recipe, "mixture": name} for name in ("main", *ACTIONS)},
        }
        run(folder, config)
        results = folder / "results"
        labels = pd.read_parquet(results / "audits" / "check" / "labels.parquet")
        train = pd.read_parquet(results / "pairs" / "main" / "train", columns=["pair_id", "row"]).set_index("pair_id")
        labels["flipped"] = train.row.loc[labels.pair_id].isin(flipped).to_numpy()
        doubted = labels.probability > 0.5
        drawn = set(np.random.default_rng(0).permutation(train.row.to_numpy())[: int(doubted.sum())].tolist())
        if drawn:
            other, _ = plant(folder, pairs, share, drawn)
            config["datasets"]["random"] = {"files": [other]}
            config["mixtures"]["random"] = {**config["mixtures"]["main"], "datasets": {"random": 1.0}}
            config["runs"]["random"] = {**recipe, "mixture": "random"}
            run(folder, config)
        audit = json.loads((results / "audits" / "check" / "audit.json").read_text())
        wrong = "not judged" if audit["unjudged"] else f"{audit['wrong_low'] / len(labels):.1%}"
        before = correct(folder, "main", args.seeds)
        cells = [f"{labels.flipped.mean():.1%}", f"{audit['agreement']:.1%}", wrong, f"{doubted.mean():.1%}"]
        cells += [f"{labels.flipped[doubted].mean():.2f}" if doubted.any() else ""]
        cells += [
            f"{doubted[labels.flipped].mean():.2f}" if labels.flipped.any() else "",
            f"{before.to_numpy().mean():.3f}",
        ]
        cells += [
            compared(correct(folder, name, args.seeds), before) for name in (*ACTIONS, *(["random"] if drawn else []))
        ]
        print("| " + " | ".join(cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
