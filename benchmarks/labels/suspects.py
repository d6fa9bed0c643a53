"""How many wrong labels `suspects.parquet` finds, and how well it says so: labels of the demo, flipped at random.

    python benchmarks/labels/suspects.py --folder /tmp/suspects

For each share of flipped labels, in training and held-out pairs alike, the default run with two seeds is trained on the
demo's pairs. Prints a Markdown table: what was to be expected of the pairs listed, by their probabilities, and what is
true of them. An hour on two cores; finished runs in the folder are used again.
"""

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from rewardline.data.demo.generator import generate
from rewardline.evaluation.comparisons import ComparisonsFile
from rewardline.evaluation.labels.suspects import read_suspects

PAIRS = 10_000


def train(folder: Path, share: float) -> set[int]:
    """Run the pipeline on pairs of which this share is flipped; the rows of the flipped pairs, from 1."""
    rng, flipped = random.Random(0), set()
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, row in enumerate(generate(PAIRS, 1), 1):
        if rng.random() < share:
            row |= {"chosen": row["rejected"], "rejected": row["chosen"]}
            flipped.add(number)
        rows.append(json.dumps(row) + "\n")
    write_if_new(folder / "pairs.jsonl", "".join(rows))
    default = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    default["models"]["tiny"]["init"]["tokenizer"]["mixture"] = "flipped"
    config = {
        "datasets": {"flipped": {"files": [str(folder / "pairs.jsonl")]}},
        "mixtures": {"flipped": {**default["mixtures"]["demo"], "datasets": {"flipped": 1.0}}},
        "models": {"flipped": default["models"]["tiny"]},
        "runs": {"flipped": {**default["runs"]["demo"], "mixture": "flipped", "model": "flipped", "benchmarks": []}},
    }
    write_if_new(folder / "config.yaml", yaml.safe_dump(config))
    command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder), "--cores", "2"]
    subprocess.run([*command, "--quiet", "all", "--configfile", str(folder / "config.yaml")], check=True)
    return flipped


def write_if_new(path: Path, text: str) -> None:
    """Write a file, unless it has this content."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def main() -> int:
    """Train, compare and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.1, 0.2])
    args = options.parse_args()
    print("| flipped | estimated | listed | precision expected | precision | recall expected | recall |")
    print("|---|---|---|---|---|---|---|")
    for share in args.shares:
        folder = args.folder.resolve() / f"{share:g}"
        flipped = train(folder, share)
        held_out = pd.read_parquet(folder / "results" / "pairs" / "flipped" / "eval", columns=["row"]).row
        wrong = set(held_out) & flipped
        listed = read_suspects(folder / "results" / "suspects.parquet")
        (board,) = ComparisonsFile.read(folder / "results" / "comparisons.json").boards
        probability = np.array([one.probability for one in listed])
        found = len({one.row for one in listed} & wrong)
        cells = [
            f"{len(wrong) / len(held_out):.1%}",
            f"{board.wrong_labels / len(held_out):.1%}",
            str(len(listed)),
            f"{probability.mean():.2f}",
            f"{found / max(1, len(listed)):.2f}",
            f"{probability.sum() / board.wrong_labels:.2f}",
            f"{found / max(1, len(wrong)):.2f}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
