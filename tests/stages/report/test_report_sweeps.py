"""Sweeps, the choice of a run and learning curves in the report."""

import json
from itertools import product
from pathlib import Path

import pytest

import plot
from rewardline.report.summary import choices, final_summary, halvings

from support.results_folder import Page, Results

PART = {"n": 200, "accuracy": 0.8, "accuracy_low": 0.75, "accuracy_high": 0.85}
NOISE = {"first": "s-a", "second": "s-b", "n": 400, "difference": 0.01, "low": -0.01, "high": 0.03}
CHOICE = {
    **{"name": "best", "benchmark": "eval", "mixture": "demo", "best": "s-a", "run": "s-a"},
    **{"chosen_on": PART | {"accuracy": 0.84}, "reported_on": PART, "differences": [NOISE]},
    "standings": [{"name": name, "runs": [name], "chosen_on": PART} for name in ("s-a", "s-b")],
}
CURVE = {
    **{"name": "s", "benchmark": "eval", "mixture": "demo", "exponent": 0.5, "exponent_low": 0.4, "exponent_high": 0.6},
    **{"scale": 6.0, "floor": 0.0, "gain": 0.028, "gain_low": 0.02, "gain_high": 0.04},
    "points": [
        {"fraction": n / 4000, "pairs": n, "runs": ["s"], "value": 6 * n**-0.5, "low": 0.05, "high": 0.25}
        for n in (1000, 2000, 4000)
    ],
}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    results = Results(tmp_path)
    for rate, loss, decay in product((1e-5, 5e-5), ("pairwise", "kwise"), (0.0, 0.1)):
        run = f"s-lr={rate}_loss={loss}_weight_decay={decay}"
        results.eval(run, subsets=())
        results.model(run, sweep="s", training={"learning_rate": rate, "loss": loss, "weight_decay": decay})
    return results


def test_a_sweep_has_a_figure_for_each_key_and_one_of_all(results: Results) -> None:
    page = Page(results.page())
    for key in ("training.learning_rate", "training.loss", "training.weight_decay"):
        assert f"Accuracy by {key}." in page.text
    labels = set(page.attributes("aria-label"))
    assert "Parallel coordinates of learning_rate, weight_decay, loss and accuracy." in labels


def test_eliminated_cells_are_in_the_tables_and_not_in_the_figures(results: Results, tmp_path: Path) -> None:
    results.eval("s-lr=0.01", subsets=())
    results.model("s-lr=0.01", steps=20, sweep="s", eliminated_at=20, training={"learning_rate": 0.01})
    page = Page(results.page())
    assert "Without 1 cell that successive halving eliminated." in page.text and "eliminated_at" in page.text
    cells = [{"name": "a", "runs": ["a"], "accuracy": 0.7, "goes_on": True}]
    cells.append({"name": "b", "runs": ["b"], "accuracy": 0.6, "goes_on": False})
    (tmp_path / "0.json").write_text(json.dumps({"sweep": "s", "step": 20, "cells": cells}))
    assert halvings([tmp_path / "0.json"]).startswith(
        "s: 1 of 2 cells went on after step 20, those with an accuracy of 70.0%"
    )


def test_what_is_eliminated_or_has_diverged_is_marked_and_never_the_headline(results: Results) -> None:
    def change(run: str, **changes: object) -> None:
        path = results.root / "evals" / run / "eval" / "metrics.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    for name in ("early", "half-seed0", "half-seed1"):
        results.eval(name, skill=9.0, subsets=(), seed=int(name[-1]) if "seed" in name else 0)
        results.model(name, sweep="s")
    change("early", eliminated_at=20)
    change("half-seed1", n=0, accuracy=None, diverged="the loss is not finite at step 3")
    page = Page(results.page())
    for run in ("early", "half-seed0"):
        assert f"{run} does best" not in page.text
    assert (
        "does best" in page.text and "early (eliminated)" in page.text and "half-seed0 (a seed diverged)" in page.text
    )
    gone = "half-seed1 is left out: its training has diverged (the loss is not finite at step 3)"
    assert gone in page.text
    shown = final_summary(sorted(results.root.rglob("metrics.json")))
    assert gone in " ".join(shown.split()) and "early *" in shown and "half-seed0 *" in shown


@pytest.mark.usefixtures("results")
def test_the_choice_and_the_learning_curve_are_told_in_words(tmp_path: Path) -> None:
    curves = [{**CURVE, "metric": metric} for metric in ("error", "loss")]
    (tmp_path / "comparisons.json").write_text(json.dumps({"boards": [], "curves": curves}))
    (tmp_path / "selection.json").write_text(json.dumps(CHOICE))
    metrics = sorted(tmp_path.rglob("metrics.json"))
    arguments = ["--metrics", *map(str, metrics), "--comparisons", str(tmp_path / "comparisons.json")]
    arguments += ["--selections", str(tmp_path / "selection.json"), "--output", str(tmp_path / "report.html")]
    assert plot.main(arguments) == 0
    text = Page((tmp_path / "report.html").read_text()).text
    doubling = "doubling the data, from 4,000 to 8,000 pairs, is expected to raise accuracy on eval by 2.8 points"
    assert doubling in text and "(95% interval 2.0 to 4.0), to 93.3%" in text
    assert "95% interval of the exponent 0.40 to 0.60" in text
    assert "80.0% (75.0\N{EN DASH}85.0%) of 200 pairs that did not choose it, and 84.0%" in text
    assert "Within its noise: s-b; the data does not tell them apart." in text
    assert doubling in " ".join(final_summary(metrics, comparisons=tmp_path / "comparisons.json").split())
    assert "best: s-a is the best of 2 runs on the held-out split of demo." in choices([tmp_path / "selection.json"])
