"""benchmarks/quality: what its baselines see, how its data is divided, and the whole command with tiny models."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from support.paths import ROOT, SHARED_DATA

QUALITY = ROOT / "benchmarks" / "quality"
needs_data = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs the real data")


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(QUALITY))
    return import_module(name)


def test_shallow_models_learn_what_they_see_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)

    def pairs(count: int, start: int) -> pd.DataFrame:
        texts = [" ".join(rng.choice(list("abcdefgh"), 6) + "x") for _ in range(count)]
        rows = [
            {"dataset": "words", "chosen": f"{text} fine", "rejected": f"{text} poor"}
            if number % 2
            else {"dataset": "form", "chosen": f"{text}!", "rejected": f"{text}."}
            for number, text in enumerate(texts)
        ]
        names = [str(number) for number in range(start, start + count)]
        return pd.DataFrame(rows).assign(pair_id=names, prompt_id=names)

    for folder, frame in {"m/train": pairs(120, 0), "m/eval": pairs(40, 200), "t/eval": pairs(60, 400)}.items():
        (tmp_path / folder).mkdir(parents=True)
        frame.to_parquet(tmp_path / folder / "part.parquet")
    found = module("baselines", monkeypatch).shallow(tmp_path / "m", {"words": tmp_path / "t", "form": tmp_path / "t"})
    words, form = (found[name].drop(columns="prompt_id")[k::2].mean() for k, name in ((1, "words"), (0, "form")))
    assert words["length only"] == form["length only"] == 0.5, "all answers of a pair have one length"
    assert words["TF-IDF"] == form["TF-IDF + style"] == 1
    assert form["TF-IDF"] == 0.5, "words do not tell the marks apart"
    assert found["words"]["TF-IDF + style, all sets"].mean() == 1
    assert list(found["words"].index) == [str(number) for number in range(400, 460)]


def test_likelihood_is_that_of_the_answer_given_its_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    ids = torch.randint(0, 50, (12,))
    logs = model(ids[None]).logits[0].detach().double().log_softmax(-1)
    for start in (0, 1, 5, 11):
        expected = sum(float(logs[k - 1, ids[k]]) for k in range(max(start, 1), 12))
        found = module("baselines", monkeypatch)._log_probability(model, ids.tolist(), start)
        assert found == pytest.approx(expected, abs=1e-4)


def test_a_remedy_is_compared_with_plain_runs_on_the_same_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remedies = module("remedies", monkeypatch)
    monkeypatch.setattr(remedies, "tune", lambda _family, model: {model: 1e-4})
    family = object.__new__(module("pipeline", monkeypatch).Family)
    family.plan, family.results, family.tests = SimpleNamespace(seeds=2), tmp_path, {"t": "t-test"}
    asked: list[str] = []
    family.make = lambda targets, _rates: asked.extend(targets)
    rng = np.random.default_rng(0)
    correct = {}
    for run in [f"{name}-seed{seed}" for name in ("plain", *remedies.TRAINED) for seed in (0, 1)] + [
        *remedies.COMBINED
    ]:
        for test in ("t-test", "manipulated"):
            rows = 40 - (run == "flip-seed1")  # which has not scored one of the pairs
            kinds = ["repeated", "empty"] * 20 if test == "manipulated" else ["t"] * 40
            correct[run, test] = rng.integers(0, 2, rows).astype(float)
            table = {"pair_id": range(rows), "prompt_id": [f"p{k // 2}" for k in range(rows)], "subset": kinds[:rows]}
            table["correct"] = correct[run, test].tolist()
            folder = tmp_path / "evals" / run / test
            folder.mkdir(parents=True)
            pd.DataFrame(table).assign(chosen_tokens=5, rejected_tokens=5).to_parquet(folder / "scores.parquet")
            (folder / "metrics.json").write_text('{"length": {"correlation": 0.25, "controlled_accuracy": null}}')
    audit = {"agreement": 0.7, "agreement_low": 0.66, "agreement_high": 0.74, "unjudged": ""}
    for folder, name, text in (
        ("audits/audit", "audit.json", json.dumps(audit)),
        ("pairs/train", "stats.json", '{"train": 9}'),
    ):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / name).write_text(text)
    pd.DataFrame({"probability": [0.9, 0.2, 0.6]}).to_parquet(tmp_path / "audits" / "audit" / "labels.parquet")
    found = remedies.remedies(family)
    assert {Path(target).parts[1] for target in asked if target.startswith("evals")} == {run for run, _ in correct}
    assert (found["train"], found["audited"], found["in_doubt"]) == (9, 3, 2)
    for name, row in found["rows"].items():
        ids = [name] if name in remedies.COMBINED else [f"{name}-seed0", f"{name}-seed1"]
        count = 39 if name == "flip" else 40
        means = [
            np.mean([correct[run, "t-test"][:count] for run in group], 0)
            for group in (ids, ("plain-seed0", "plain-seed1"))
        ]
        assert (row["tests"]["pairs"], row["tests"]["accuracy"]) == (count, pytest.approx(means[0].mean()))
        if name != "plain":
            assert row["tests"]["difference"]["difference"] == pytest.approx((means[0] - means[1]).mean())
        assert row["manipulated"]["accuracy"] == pytest.approx(
            np.mean([correct[run, "manipulated"][1:count:2] for run in ids])
        )
        shown = np.mean([np.nanmean(correct[run, "manipulated"][::2]) for run in ids])
        assert row["kinds"]["repeated"] == pytest.approx(shown)
        assert row["correlation"] == 0.25 and row["controlled_accuracy"] is None
    options = {"small": True}
    text = module("figures", monkeypatch).markdown({"families": {"hh": {"options": options, "remedies": found}}})
    assert text.count("\n| ") == 2 * (2 + len(found["rows"])) and "| manipulated | empty | repeated |" in text
    assert "doubts 2 of 3 labels; its models agree with 70.0 (66.0-74.0)% of them." in text
    found |= {"audit": {**audit, "unjudged": "the models are weak"}, "in_doubt": 0}
    text = module("figures", monkeypatch).markdown({"families": {"hh": {"options": options, "remedies": found}}})
    assert "the audit judges no label, so that mixtures made of it keep all: the models are weak; its models" in text
    assert "doubts" not in text
    asked.clear()
    some = remedies.remedies(family, ["average"])
    assert some["rows"] == {name: found["rows"][name] for name in ("plain", "average")}
    assert asked and all(target.startswith("evals/") for target in asked), "no labels are audited for it"


@needs_data
def test_no_text_and_no_topic_is_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    written = module("sets", monkeypatch).WRITTEN
    for name, keys in {"humour": ("chosen", "rejected", "prompt"), "ukp": ("prompt",)}.items():
        rows = list(written[name](SHARED_DATA))
        sides = [{row[key] for row, held_out in rows if held_out == side for key in keys} for side in (False, True)]
        assert sides[0] and sides[1] and not sides[0] & sides[1]


@needs_data
@pytest.mark.slow
def test_the_whole_command(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(QUALITY / "run.py"),
        "--data",
        str(SHARED_DATA),
        "--folder",
        str(tmp_path),
        "--small",
    ]
    subprocess.run(command, check=True)
    text = (tmp_path / "results.json").read_text()
    found = json.loads(text)["families"]["hh"]
    assert set(found["sets"]) == {"helpful-base", "harmless-base", "all sets"}
    for entry in found["sets"].values():
        assert entry["pairs"] > 30
        assert set(entry["accuracy"]) == {*entry["ahead"], found["model"]}
        assert {"length only", "TF-IDF + style", "likelihood", "MiniLM-L6, 100% of the pairs"} < entry[
            "accuracy"
        ].keys()
        assert any("TRL" in method for method in entry["accuracy"])
        for method, one in entry["ahead"].items():
            assert one["low"] <= one["difference"] <= one["high"]
            mine, other = (entry["accuracy"][key]["accuracy"] for key in (found["model"], method))
            assert one["difference"] == pytest.approx(mine - other)
    rows = found["remedies"]["rows"]
    assert {"plain", "length_control", "drop", "flip", "soften", "hacks", "ensemble-mean", "average"} < rows.keys()
    assert all(
        "difference" in row[key] for name, row in rows.items() if name != "plain" for key in ("tests", "manipulated")
    )
    models = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    subprocess.run(command, check=True)
    assert (tmp_path / "results.json").read_text() == text
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")} == models, "trained again"
