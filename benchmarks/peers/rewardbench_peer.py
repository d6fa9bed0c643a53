"""Run the `rewardbench` package for rewardbench_agreement.py: python rewardbench_peer.py JOB.json

Runs the command of the package. Without a GPU, it has one change: the package moves every batch to "cuda", which then
means the CPU. Functions of the package also compute the metrics of RewardBench and RewardBench 2 of given scores.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from rewardbench import process_single_model, reroll_and_score_dataset
from rewardbench.constants import EXAMPLE_COUNTS, SUBSET_MAPPING
from rewardbench.rewardbench import Args, rewardbench
from rewardbench.utils import calculate_scores_per_section
from transformers import BatchEncoding


def on_cpu() -> None:
    """Make `.to("cuda")` of a batch move it to the CPU."""
    move = BatchEncoding.to
    BatchEncoding.to = lambda self, device, **options: move(self, "cpu" if device == "cuda" else device, **options)


def first(pairs: list[dict[str, Any]]) -> dict[str, float]:
    """RewardBench: the sections of scored pairs, and their mean."""
    results: dict[str, list[bool]] = {}
    for pair in pairs:
        results.setdefault(pair["subset"], []).append(pair["chosen_score"] > pair["rejected_score"])
    accuracies = {subset: sum(part) / len(part) for subset, part in results.items()}
    sections = calculate_scores_per_section(EXAMPLE_COUNTS, SUBSET_MAPPING, accuracies)
    return {**sections, "overall": float(np.mean(list(sections.values())))}


def second(rows: list[dict[str, Any]]) -> dict[str, float]:
    """RewardBench 2: the metrics of scored rows (correct answers first), and their mean."""
    flat = [{"subset": row["subset"], "id": row["id"], "scores": one} for row in rows for one in row["scores"]]
    dataset = reroll_and_score_dataset(Dataset.from_list(flat), [len(row["scores"]) for row in rows], ["scores"])
    dataset = dataset.add_column("num_correct", [row["num_correct"] for row in rows])
    metrics = {}
    for subset in sorted(set(dataset["subset"])):
        part = dataset.filter(lambda row, name=subset: row["subset"] == name)
        results = [row["results"] for row in part]
        metrics[subset] = process_single_model(part)[1] if subset == "Ties" else math.fsum(results) / len(results)
    return {**metrics, "overall": float(np.mean(list(metrics.values())))}


def main(job: dict[str, Any]) -> None:
    """Run the command of the package in the current folder, then its metrics."""
    if not torch.cuda.is_available():
        on_cpu()
    options = {"dataset": "pairs.jsonl", "load_json": True, "not_quantized": True, "torch_dtype": "float32"}
    rewardbench(Args(model="model", output_dir="out/", save_all=True, batch_size=8, max_length=4096, **options))
    Path("figures.json").write_text(json.dumps({"first": first(job["first"]), "second": second(job["second"])}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
