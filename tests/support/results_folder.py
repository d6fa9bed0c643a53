import json
import math
import warnings
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import plot
from rewardline.data.schema import PAIR_SCHEMA

MEANS = {"chosen": 0.8, "rejected": -0.8}
SUBSETS = ("arithmetic", "politeness", "lists", "refusals", "code")


def interval(correct: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    accuracy, n = float(correct.mean()), len(correct)
    half = 1.96 * math.sqrt(max(accuracy * (1 - accuracy), 1e-9) / n)
    return accuracy, max(0.0, accuracy - half), min(1.0, accuracy + half)


def beyond(margins: Any, differences: Any, correct: Any) -> dict[str, Any]:
    """The metrics beyond accuracy, computed simply."""

    def bins(values: Any, edges: Any) -> Iterator[dict[str, Any]]:
        for low, high in pairwise(edges):
            inside = (low <= values) & (values < high)
            accuracy, bottom, top = interval(correct[inside]) if inside.any() else (None, None, None)
            shares = {"accuracy": accuracy, "accuracy_low": bottom, "accuracy_high": top}
            mean = float(values[inside].mean()) if inside.any() else None
            yield {"low": float(low), "high": float(high), "n": int(inside.sum()), "confidence": mean, **shares}

    sure = list(bins(1 / (1 + np.exp(-np.abs(margins))), np.linspace(0.5, 1.0, 11)))
    gaps = [one["n"] * abs(one["accuracy"] - one["confidence"]) for one in sure if one["n"]]
    calibration = {"ece": sum(gaps) / len(correct), "temperature": 1.25, "ece_at_temperature": 0.01, "bins": sure}
    length = {"correlation": 0.12, "by_difference": list(bins(differences, [-999, -50, -20, 0, 1, 20, 50, 999]))}
    controlled = dict(zip(("controlled_accuracy", "controlled_low", "controlled_high"), interval(correct), strict=True))
    return {"calibration": calibration, "length": {**length, **controlled}}


def seldom(n: int) -> dict[str, Any]:
    """What only some data has: margins of labels, several answers to a prompt, named sources, published sections."""
    shares = {"accuracy": 0.6, "accuracy_low": 0.5, "accuracy_high": 0.7}
    sections = {"Chat": {"score": 0.9, "n": n // 2}, "Safety": {"score": 0.7, "n": n - n // 2}}
    return {
        "by_margin": [{"low": float(k), "high": float(k), "n": n // 3, **shares} for k in (1, 2, 3)],
        "best_of_n": {"prompts": n // 5, "answers": 4.0, **shares, "chance": 0.25},
        "win_rates": [
            {"source": name, "n": n // 2, "labelled": 0.7 - k / 10, "model": 0.5} for k, name in enumerate("abc")
        ],
        "sections": {"arithmetic": "rewardbench", "overall": 0.8, "sections": sections, **published()},
    }


def published() -> dict[str, Any]:
    """Trivial baselines of a published benchmark, and a best-of-n curve that falls at its end."""
    baselines = {name: {"overall": 0.5, "sections": {"Chat": 0.4}} for name in ("longest", "shortest")}
    points = [
        {"n": n, "kl": kl, "gold": gold, "gold_low": gold - 0.05, "gold_high": gold + 0.05, "best": best, "score": kl}
        for n, kl, gold, best in [(1, 0.0, 0.5, 0.5), (2, 0.19, 0.7, 0.8), (4, 0.64, 0.55, 0.9)]
    ]
    first: dict[str, Any] = {"overall": None, "sections": {}}
    return {"baselines": {**baselines, "first": first}, "curve": {"prompts": 9, "points": points}}


def step_line(step: int, **changes: float) -> dict[str, Any]:
    """A line of `log.jsonl` about an optimizer step."""
    means = {"epoch": 0.5, "loss": 0.7, "accuracy": 0.5, "chosen_mean": 0.1, "rejected_mean": -0.1, "score_std": 0.5}
    computed = {"learning_rate": 1e-4, "grad_norm": None, "pairs": 32, "tokens": 9000, "computed_tokens": 8000}
    return {"step": step, **means, **computed, "tokens_per_second": 1e5, **changes}


def eval_line(step: int, **changes: float) -> dict[str, Any]:
    """A line of `log.jsonl` about an evaluation."""
    means = {"eval_loss": 0.7, "eval_accuracy": 0.5, "eval_chosen_mean": 0.5, "eval_rejected_mean": -0.5}
    return {"step": step, "epoch": 0.5, **means, "eval_pairs": 400, **changes}


class Results:
    """A results folder as the other stages leave it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.metrics: dict[tuple[str, str], dict[str, Any]] = {}

    def eval(
        self,
        run: str,
        benchmark: str = "eval",
        n: int = 400,
        skill: float = 1.0,
        subsets: Sequence[str] = SUBSETS,
        mixture: str = "demo",
        seed: int | None = 0,
        offset: float = 0.0,
        rich: bool = False,
    ) -> dict[str, Any]:
        random = np.random.default_rng([n, *run.encode(), *benchmark.encode()])
        tokens = random.lognormal(4, 0.7, (2, n)).astype(np.int32) + 1
        quality = random.normal(skill, 1.6, n) + 0.4 * np.sign(tokens[0] - tokens[1])
        rejected = random.normal(offset - skill / 2, 1.0, n)
        chosen = rejected + quality
        correct = np.where(chosen > rejected, 1.0, np.where(chosen == rejected, 0.5, 0.0))
        longer = np.where(tokens[0] > tokens[1], 1.0, np.where(tokens[0] == tokens[1], 0.5, 0.0))
        names = np.array([subsets[k % len(subsets)] for k in range(n)]) if subsets else np.array([""] * n)

        def rates(which: np.ndarray[Any, Any]) -> dict[str, Any]:
            accuracy, low, high = interval(correct[which])
            return {
                "n": int(which.sum()),
                "accuracy": accuracy,
                "accuracy_low": low,
                "accuracy_high": high,
                "length_accuracy": float(longer[which].mean()),
            }

        value = {
            **{"run": run, "mixture": mixture, "model": "tiny", "seed": seed, "benchmark": benchmark, "prompts": n},
            **rates(np.ones(n, dtype=bool)),
            "loss": float(np.log1p(np.exp(rejected - chosen)).mean()),
            "chosen_mean": float(chosen.mean()),
            "rejected_mean": float(rejected.mean()),
            **beyond(chosen - rejected, tokens[0].astype(float) - tokens[1], correct),
            **(seldom(n) if rich else {}),
            "by_subset": {str(name): rates(names == name) for name in sorted(set(names))},
        }
        folder = self.root / "evals" / run / benchmark
        folder.mkdir(parents=True)
        self.metrics[run, benchmark] = value
        (folder / "metrics.json").write_text(json.dumps(value))
        columns: dict[str, Any] = {
            "pair_id": [f"p{k}" for k in range(n)],
            "subset": names,
            "chosen_score": chosen.astype(np.float32),
            "rejected_score": rejected.astype(np.float32),
            "chosen_tokens": tokens[0],
            "rejected_tokens": tokens[1],
            "correct": correct,
        }
        pq.write_table(pa.table(columns), folder / "scores.parquet")
        return value

    def model(self, run: str, steps: int = 300, offset: float = 0.0, seed: int = 0, **record: Any) -> None:
        random = np.random.default_rng([seed, *run.encode()])
        folder = self.root / "models" / run
        folder.mkdir(parents=True)
        lines: list[dict[str, Any]] = []
        for step in range(1, steps + 1):
            done = 1 - math.exp(-3 * step / steps)
            loss, accuracy = 0.69 - 0.2 * done + 0.05 * random.normal(), 0.5 + 0.25 * done + 0.05 * random.normal()
            means = {f"{k}_mean": (offset + v) * done + 0.1 * random.normal() for k, v in MEANS.items()}
            lines.append(step_line(step, loss=loss, accuracy=accuracy, epoch=step / steps, **means))
            if step % (steps // 5 or 1) == 0:
                loss, accuracy = 0.69 - 0.15 * done + 0.01 * random.normal(), 0.5 + 0.2 * done + 0.02 * random.normal()
                lines.append(eval_line(step, eval_loss=loss, eval_accuracy=accuracy, epoch=step / steps))
        self.log(run, lines)
        value = {
            **{"run": run, "mixture": "demo", "model": "tiny", "seed": seed, "device": "cpu", "world_size": 1},
            "training": {"learning_rate": 1e-4, "epochs": 1, "lora": None, "deepspeed": {"a": [1, 2]}},
            **{"parameters": 331_196_416, "trained_parameters": 331_196_416, "train_pairs": 4525, "steps": steps},
            **{"exported_step": steps, "continued": [], "pairs": 32 * steps, "tokens": 9000 * steps, "seconds": 754.2},
            **{"tokens_per_second": 3579.4, "final": {"loss": 0.5}, "batching": "padded", "attention": "padded"},
            **{"tokenization": {"template": "plain", "seed": seed}, "data": {}, "threads": 1, "key": "0123abcd"},
            **{"finished": "2026-01-02T03:04:05+00:00", "base": [], "computed_tokens": 9000 * steps},
            **{"shared_share": 0.0, "padding_share": 0.0, "model_flops": 1e15, "flops_per_second": 10**12},
            **{"peak_flops_per_second": 10**13, "peak_source": "measured at start", "utilisation": 0.1},
            **{"normalization": None, "weights_sha256": "0" * 64},
            "hardware": {"cpu": "Example 9000", "cores": 2, "memory_gib": 23.4},
            "versions": {"python": "3.11.4", "torch": "2.13.0", "deepspeed": "0.19.8"},
            "git": {"commit": "0123456789abcdef0123", "dirty": False},
            **record,
        }
        (folder / "run.json").write_text(json.dumps(value))

    def log(self, run: str, lines: Sequence[dict[str, Any]]) -> None:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (self.root / "models" / run / "log.jsonl").write_text(text)

    def pairs(self, mixture: str = "demo", **stats: Any) -> None:
        dataset: dict[str, Any] = {
            "rows_in": 5230,
            "rows_used": 4810,
            "pairs_out": 4925,
            "revision": None,
            "format": "pairs",
        }
        dataset["rejects"] = {"identical answers": 310}
        datasets = stats.pop("by_dataset", {"demo": {}})
        value = {
            **{"name": mixture, "rows_in": 5230, "rows_used": 4810, "pairs_out": 4925, "train": 4525, "eval": 400},
            "rejects": {"identical answers": 310, "empty answer": 60, "not a pair": 50},
            "pair_rejects": {"near duplicate": 17},
            "by_dataset": {name: {**dataset, **changes} for name, changes in datasets.items()},
            **{"by_subset": dict.fromkeys(SUBSETS, 985), "prompts": {"train": 4000, "eval": 350}},
            **{"soft_labels": 0, "answer_words": {"32": 9850}, "similar_prompts": {}, "parts": {}},
            **{"chosen_words_mean": 41.37, "rejected_words_mean": 36.02, "longer_wins": 0.5512},
            "reject_examples": [
                {
                    **{"dataset": "demo", "file": "data/demo.jsonl", "row": 17, "reason": "identical answers"},
                    "detail": "chosen and rejected are both 'Thank you.'",
                }
            ],
            **stats,
        }
        folder = self.root / "pairs" / mixture
        folder.mkdir(parents=True)
        (folder / "stats.json").write_text(json.dumps(value))

    def texts(self, mixture: str = "demo", n: int = 400, parts: int = 2, **changes: str) -> None:
        """The text of the pairs that `eval` scores; `changes` are for all of them."""
        folder = self.root / "pairs" / mixture / "eval"
        folder.mkdir(parents=True)
        rows = []
        for k in range(n):
            turns = [("user", "Hello!"), ("assistant", "Hi."), ("user", f"Question {k}?")]
            prompt = [{"role": role, "content": content} for role, content in turns]
            place = {"dataset": "demo", "subset": SUBSETS[k % 5], "file": "data/demo.jsonl", "row": k}
            answers = {"chosen": f"Chosen {k}.", "rejected": f"Rejected {k}.", **changes}
            rows.append({"pair_id": f"p{k}", "prompt": prompt, **answers, **place})
        for part in range(parts):
            table = pa.Table.from_pylist(rows[part::parts], schema=PAIR_SCHEMA)
            pq.write_table(table, folder / f"part-{part:05d}.parquet")

    def tokens(self, mixture: str = "demo", model: str = "tiny", **manifest: Any) -> None:
        train = {"pairs": 4525, "comparisons": 3900, "tokens": 1_200_000, "prefix_tokens": 700_000}
        held_out = {"pairs": 400, "comparisons": 350, "tokens": 100_000, "prefix_tokens": 60_000}
        value = {
            **{"template": "plain", "chat_template": None, "max_length": 256, "end_id": 0, "end_token": "<|end|>"},
            **{"pad_id": 1, "pad_token": "<|pad|>", "num_padding_at_beginning": 0, "vocabulary": 2048},
            "splits": {"train": {**train, "full_tokens": 1_900_000}, "eval": {**held_out, "full_tokens": 160_000}},
            "reject_examples": [],
            **{"truncated_pairs": 25, "truncated_tokens": 3100, "dropped": {"answer_too_long": 3}, **manifest},
        }
        folder = self.root / "tokens" / mixture / model
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps(value))

    def all(self) -> "Results":
        """Two runs, one with two seeds, on the held-out split and a benchmark."""
        for seed, skill in enumerate((1.0, 1.1)):
            self.eval(f"first-seed{seed}", skill=skill, seed=seed)
            self.eval(f"first-seed{seed}", "own-test", n=150, skill=skill, seed=seed, subsets=(), rich=True)
            self.model(f"first-seed{seed}", seed=seed)
        self.eval("second", skill=0.2)
        self.eval("second", "own-test", n=150, skill=0.3, subsets=(), rich=True)
        self.model("second")
        self.pairs()
        self.texts()
        self.tokens()
        return self

    def page(self, *without: str) -> str:
        """Draw the report of all files in the folder."""
        output = self.root / "report.html"
        inputs = {
            "metrics": self.root.glob("evals/*/*/metrics.json"),
            "scores": self.root.glob("evals/*/*/scores.parquet"),
            "models": self.root.glob("models/*"),
            "stats": self.root.glob("pairs/*/stats.json"),
            "tokens": self.root.glob("tokens/*/*/manifest.json"),
            "pairs": self.root.glob("pairs/*/eval"),
            "suspects": self.root.glob("suspects.parquet"),
            "audits": self.root.glob("audits/*/audit.json"),
            "comparisons": self.root.glob("comparisons.json"),
        }
        arguments = [f"--output={output}"]
        for name, paths in inputs.items():
            files = [str(path) for path in paths] if name not in without else []
            arguments += [f"--{name}", *files] if files else []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert plot.main(arguments) == 0
        return output.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Checks that tags close in order, and keeps what the tests ask for."""

    VOID = frozenset({"meta", "link", "br", "wbr", "img", "hr", "input", "path", "use", "rect", "line", "circle"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def row(self, *start: str) -> list[str]:
        """The widest row of a table whose cells start with these."""
        rows = [[" ".join(cell.split()) for cell in row] for row in self.rows]
        return max((row for row in rows if row[: len(start)] == list(start)), key=len)

    def attributes(self, name: str) -> Iterator[str]:
        return (value or "" for _, attributes in self.seen for key, value in attributes.items() if key == name)
