"""The card that a model's folder carries: what its run scored."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import evaluation_card
from rewardline.core.errors import UserError

from support.results_folder import Results


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path)


def card(results: Results, run: str = "*") -> str:
    output = results.root / "models" / "demo" / "EVALUATION.md"
    paths = map(str, sorted(results.root.glob(f"evals/{run}/*/metrics.json")))
    assert evaluation_card.main(["--metrics", *paths, "--output", str(output)]) == 0
    return output.read_text()


def cells(text: str, start: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_card_has_the_numbers_of_the_metrics(results: Results) -> None:
    value = results.eval("demo")
    results.eval("demo", "other", n=100, subsets=())
    text = card(results)
    bounds = f"{100 * value['accuracy_low']:.1f}\N{EN DASH}{100 * value['accuracy_high']:.1f}%"
    assert cells(text, "held-out split of demo") == [
        "held-out split of demo",
        "400",
        f"{100 * value['accuracy']:.1f}%",
        bounds,
        f"{100 * value['length_accuracy']:.1f}%",
        f"{value['loss']:.3f}",
        f"{value['chosen_mean']:.2f}",
        f"{value['rejected_mean']:.2f}",
    ]
    assert cells(text, "other")[1] == "100"
    weakest = sorted(value["by_subset"], key=lambda name: value["by_subset"][name]["accuracy"])
    assert [text.index(f"| {name} |") for name in weakest] == sorted(text.index(f"| {name} |") for name in weakest)


def test_metrics_beyond_accuracy_are_listed(results: Results) -> None:
    value: dict[str, Any] = results.eval("demo", subsets=())
    value["calibration"] = {"ece": 0.125, "temperature": 1.5, "ece_at_temperature": 0.02}
    value["length"] = {
        **{"correlation": -0.25, "controlled_accuracy": 0.61, "controlled_low": 0.58, "controlled_high": 0.64}
    }
    value["best_of_n"] = {
        **{"prompts": 57, "answers": 4.0, "accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "chance": 0.25}
    }
    value["sections"] = {"arithmetic": "RewardBench", "overall": 0.75, "sections": {"Chat": {"score": 0.9, "n": 40}}}
    (results.root / "evals/demo/eval/metrics.json").write_text(json.dumps(value))
    text = " ".join(card(results).split())
    for expected in (
        "calibration error is 12.5%; with margins divided by 1.50 it is 2.0%",
        "the accuracy is 61.0% (58.0\N{EN DASH}64.0%)",
        "The correlation of score and length is -0.25.",
        "of 57 prompts with 4.0 answers on average it puts the best one first in 50.0% (40.0\N{EN DASH}60.0%)",
        "| section (RewardBench) | pairs | score |",
        "| Chat | 40 | 90.0% |",
        "| **overall** | | 75.0% |",
    ):
        assert expected in text


def test_names_from_the_data_do_not_break_the_table(results: Results) -> None:
    results.eval("demo", subsets=("a|b", "line\nbreak"))
    text = card(results)
    assert len(cells(text, "a\\|b")) == 5
    assert "line\nbreak" not in text


def test_metrics_of_several_runs_are_refused(results: Results) -> None:
    results.eval("demo")
    results.eval("other")
    with pytest.raises(UserError, match="demo, other"):
        card(results)
