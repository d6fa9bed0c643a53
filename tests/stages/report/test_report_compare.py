"""Paired differences between runs in the report."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.results_folder import Page, Results

RUNS = {"a": 0.70, "b": 0.69, "c": 0.55}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    results = Results(tmp_path)
    for run, accuracy in RUNS.items():
        bounds = {"accuracy_low": accuracy - 0.04, "accuracy_high": accuracy + 0.04}
        value = results.eval(run, subsets=()) | {"accuracy": accuracy, **bounds}
        (tmp_path / f"evals/{run}/eval/metrics.json").write_text(json.dumps(value))
    return results


def compare(results: Results, *differences: tuple[str, str, float, float, float], **changes: Any) -> str:
    keys = ("first", "second", "difference", "low", "high")
    found = [{**dict(zip(keys, one, strict=True)), "n": 400} for one in differences]
    board = {"benchmark": "eval", "mixture": "demo", "differences": found, "families": [], **changes}
    (results.root / "comparisons.json").write_text(json.dumps({"boards": [board]}))
    return results.page()


def test_runs_are_told_apart_by_paired_differences(results: Results) -> None:
    page = Page(
        compare(results, ("b", "a", -0.01, -0.018, -0.002), ("a", "c", 0.15, 0.1, 0.2), ("b", "c", 0.14, 0.1, 0.2))
    )
    minus = "\N{MINUS SIGN}"
    assert "In the paired comparison it beats b and c by more than noise. With one seed each, that tells" in page.text
    assert page.row("b")[-1] == f"{minus}1.0 ({minus}1.8 to {minus}0.2)"
    assert page.row("c")[-1] == f"{minus}15.0 ({minus}20.0 to {minus}10.0)"
    assert page.row("a", "b")[:4] == ["a", "b", "+1.0", "+0.2 to +1.8"]
    assert page.row("b", "c")[:4] == ["b", "c", "+14.0", "+10.0 to +20.0"]


def test_a_lead_within_noise_is_named(results: Results) -> None:
    page = Page(compare(results, ("a", "b", 0.01, -0.01, 0.03), ("a", "c", 0.15, 0.1, 0.2)))
    assert "Its lead over b is within noise: these pairs do not tell them apart." in page.text
    assert page.row("b")[-1].endswith("within noise")
    assert page.row("a", "b")[-1] == "within noise"


def test_without_comparisons_of_a_board_intervals_are_compared(results: Results) -> None:
    page = Page(compare(results, ("a", "b", 0.01, 0.001, 0.03), benchmark="other", mixture=None))
    assert "The interval of b overlaps with it" in page.text
    assert page.row("b")[-1] == "1.0 lower, within noise"


def test_differences_of_seeds_are_not_those_of_runs(tmp_path: Path) -> None:
    results = Results(tmp_path).all()
    page = Page(compare(results, ("first-seed0", "second", 0.3, 0.2, 0.4), ("first", "second", 0.2, 0.1, 0.3)))
    assert "\N{MINUS SIGN}20.0 (\N{MINUS SIGN}30.0 to \N{MINUS SIGN}10.0)" in page.text
    assert "\N{MINUS SIGN}30.0 (" not in page.text


def test_noise_between_seeds_is_named(results: Results) -> None:
    html = compare(results, ("a", "b", 0.01, -0.01, 0.03), ("a", "c", 0.15, 0.1, 0.2))
    found = json.loads((results.root / "comparisons.json").read_text())
    found["boards"][0]["differences"][0]["seeds"] = [2, 1]
    (results.root / "comparisons.json").write_text(json.dumps(found))
    assert "another seed may reverse it" not in html
    assert "another seed may reverse it" in results.page()


def test_runs_with_equal_scores_have_no_bars(results: Results) -> None:
    page = Page(compare(results, *((first, second, 0.0, 0.0, 0.0) for first, second in ("ab", "ac", "bc"))))
    assert page.row("a", "b")[2:] == ["+0.0", "+0.0 to +0.0", "", "within noise"]
