"""Compare scores and metrics of the `rewardbench` package with those of rewardline.

    python -m venv rb && rb/bin/pip install --no-deps rewardbench==0.1.4
    rb/bin/pip install torch transformers==4.51.0 "trl<0.20" "setuptools<81" accelerate datasets fschat tiktoken wandb
    python benchmarks/rewardbench_agreement.py --peer rb/bin/python --model results/models/demo-seed0 \\
        --pairs results/pairs/demo --scores results/evals/demo-seed0/eval/scores.parquet

The command of the package scores the first held-out pairs that the package can read; its scores are compared with
those of scores.parquet. Then functions of the package compute the metrics of RewardBench and RewardBench 2 of random
scores, which are compared with rewardline's.

The package needs transformers 4.51 and does not add an end token. So it gets a copy of the model with changed tokenizer
settings: the class has its name in transformers 4.51 and returns no token type ids, and a tokenizer without a chat
template gets one that writes `Human: ... Assistant: ...` and the end token.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from rewardline.data.parquet import read_rows
from rewardline.evaluation.published.figures import figures
from rewardline.evaluation.published.rewardbench import PROMPTS
from rewardline.evaluation.published.rewardbench2 import TIES, RewardBench2

Json = dict[str, Any]
PEER = Path(__file__).parent / "peers" / "rewardbench_peer.py"
PLAIN = (
    "{% for m in messages %}{{ {'user': 'Human', 'assistant': 'Assistant', 'system': 'System'}[m.role] }}: "
    "{{ m.content }}{{ eos_token if loop.last else '\n\n' }}{% endfor %}"
)
PATHS = {"--model": "folder of the model", "--pairs": "folder of the mixture's pairs", "--scores": "scores.parquet"}


def copy_model(model: Path, folder: Path) -> None:
    """Copy the model to `folder`, with tokenizer settings that the package can read."""
    shutil.copytree(model, folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    if not (folder / "chat_template.jinja").exists():
        settings.setdefault("chat_template", PLAIN)
    path.write_text(json.dumps(settings))


def alternates(pair: Json) -> bool:
    """Whether user and assistant alternate in the prompt, without a system message: the package reads no other."""
    roles = [turn["role"] for turn in pair["prompt"]]
    return roles == [("user", "assistant")[k % 2] for k in range(len(roles))]


def random_rows(seed: int) -> tuple[list[Json], list[Json]]:
    """Scored pairs of all subsets of RewardBench, and scored rows of RewardBench 2; integers, so that some tie."""
    rng = np.random.default_rng(seed)
    subsets = [name for part in PROMPTS.values() for name in part]
    first = [
        {"subset": name, "chosen_score": float(rng.integers(5)), "rejected_score": float(rng.integers(4))}
        for name in subsets
        for _ in range(rng.integers(5, 60))
    ]
    second = []
    for subset in RewardBench2.sections:
        for number in range(40):
            kind, right = ("ref:", 1) if number % 2 else ("tied:", 1 + int(rng.integers(5)))
            name = f"{kind}{number // 2}" if subset == TIES else f"{subset}-{number}"
            right = right if subset == TIES else 1
            scores = [*(rng.integers(3, 9, right) * 1.0), *(rng.integers(0, 7, 3) * 1.0)]
            second.append({"subset": subset, "id": name, "num_correct": right, "scores": scores})
    return first, second


def our_figures(first: list[Json], second: list[Json]) -> tuple[Json, Json]:
    """The metrics that rewardline computes from the same scores."""
    of_pair: Json = {"prompt_id": "", "file": "f", "confidence": 1.0, "chosen_tokens": 1, "rejected_tokens": 1}
    of_pair |= {"chosen_source": None, "rejected_source": None}
    place = {"item": "", "chosen": 0, "rejected": 0, "answers": 2}
    pairs: list[Any] = [{**of_pair, **pair, "row": k, "place": place} for k, pair in enumerate(first)]
    rows: list[Any] = [
        {
            **of_pair,
            "subset": row["subset"],
            "row": k,
            "chosen_score": row["scores"][n],
            "rejected_score": row["scores"][m],
            "place": {
                "item": row["id"],
                "chosen": n,
                "rejected": m - row["num_correct"],
                "answers": len(row["scores"]),
            },
        }
        for k, row in enumerate(second)
        for n in range(row["num_correct"])
        for m in range(row["num_correct"], len(row["scores"]))
    ]
    results = figures(pairs, "rewardbench", {}), figures(rows, "rewardbench2", {})
    one, two = ({**{n: part.score for n, part in r.sections.items()}, "overall": r.overall} for r in results)
    return one, two


def main() -> int:
    """Run the package and print the differences; returns 1 if they are too large."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--peer", required=True, help="Python of an environment with rewardbench")
    options.add_argument("--count", type=int, default=200, help="number of pairs to score")
    for name, what in PATHS.items():
        options.add_argument(name, type=Path, required=True, help=what)
    args = options.parse_args()
    pairs: list[Json] = list(islice(filter(alternates, read_rows(args.pairs / "eval")), args.count))
    first, second = random_rows(0)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        copy_model(args.model, work / "model")
        with (work / "pairs.jsonl").open("w", encoding="utf-8") as stream:
            for pair in pairs:
                sides = {side: [*pair["prompt"], {"role": "assistant", "content": pair[side]}] for side in SIDES}
                stream.write(json.dumps({"pair_id": pair["pair_id"], **sides}) + "\n")
        (work / "job.json").write_text(json.dumps({"first": first, "second": second}))
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "WANDB_MODE": "disabled", "HF_HOME": str(work)}
        command = [args.peer, str(PEER), "job.json"]
        done = subprocess.run(
            command, cwd=work, env={**os.environ, **offline}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(done.stdout[-2000:], done.stderr[-4000:], file=sys.stderr)
            return 1
        theirs = pd.read_json(work / "out" / "model_outputs.jsonl", lines=True, dtype={"pair_id": str})
        accuracy = json.loads((work / "out" / "model.json").read_text())["accuracy"]
        theirs_of = json.loads((work / "figures.json").read_text())
    scores = pd.read_parquet(args.scores).set_index("pair_id").loc[[pair["pair_id"] for pair in pairs]]
    ours = scores[["chosen_score", "rejected_score"]].to_numpy()
    gap = float(np.abs(ours - theirs[["scores_chosen", "scores_rejected"]].to_numpy()).max())
    our_accuracy = float((scores["chosen_score"] > scores["rejected_score"]).mean())
    one, two = our_figures(first, second)
    rows = [
        ("scores of the model", len(pairs), f"{gap:.1e}"),
        ("accuracy of the model", len(pairs), f"{abs(accuracy - our_accuracy):.1e}"),
    ]
    differences = [
        max(abs(mine[key] - value) for key, value in theirs_of[name].items())
        for name, mine in (("first", one), ("second", two))
    ]
    rows += [
        ("sections of RewardBench", len(first), f"{differences[0]:.1e}"),
        ("subsets of RewardBench 2", len(second), f"{differences[1]:.1e}"),
    ]
    print("| | n | largest difference |\n|---|---|---|")
    for what, count, value in rows:
        print(f"| {what} | {count} | {value} |")
    return int(gap > 1e-4 or max(abs(accuracy - our_accuracy), *differences) > 1e-9)


SIDES = ("chosen", "rejected")

if __name__ == "__main__":
    sys.exit(main())
