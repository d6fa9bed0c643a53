import csv
import json
import re
import subprocess
import sys
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest

import summarize
from rewardline.core.errors import UserError
from rewardline.evaluation.comparisons import ComparisonsFile
from rewardline.evaluation.leaderboards import leaderboards
from rewardline.evaluation.results import read_results
from rewardline.report.summary import (
    SCREEN,
    abrupt_end,
    audits,
    choices,
    failure_message,
    final_summary,
    halvings,
    noise,
    stop_message,
)

from support.results_folder import Results

COLUMNS = (
    "run mixture model seed benchmark n accuracy accuracy_low accuracy_high chosen_mean rejected_mean "
    "length_accuracy loss"
)


def metrics(root: Path, run: str = "demo", benchmark: str = "eval", **changes: Any) -> Path:
    value = {
        **{"run": run, "mixture": "m", "model": "tiny", "seed": 0, "benchmark": benchmark, "n": 1234, "prompts": 900},
        **{"accuracy": 0.7251, "accuracy_low": 0.7003, "accuracy_high": 0.7499, "length_accuracy": 0.5512},
        **{"loss": 0.5421, "chosen_mean": 1.25, "rejected_mean": -0.5, "by_subset": {}, **changes},
    }
    path = root / "evals" / run / benchmark / "metrics.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def subset(accuracy: float, n: int = 20) -> dict[str, float]:
    return {"n": n, "accuracy": accuracy, "accuracy_low": 0.0, "accuracy_high": 1.0, "length_accuracy": 0.5}


def summary(root: Path, *paths: Path) -> Path:
    output = root / "results" / "summary.tsv"
    assert summarize.main(["--metrics", *map(str, paths), "--output", str(output)]) == 0
    return output


def shown(*paths: Path, width: int = 100) -> str:
    return final_summary(paths, width)


def test_summary_has_a_row_per_run_and_benchmark_in_a_fixed_order(tmp_path: Path) -> None:
    paths = [
        metrics(tmp_path, "b", "zebra"),
        metrics(tmp_path, "b", "alpha", accuracy=1 / 3),
        metrics(tmp_path, "b"),
        metrics(tmp_path, "a", seed=None),
        metrics(tmp_path, "z", mixture="l"),
    ]
    output = summary(tmp_path, *paths)
    with output.open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert output.read_text().splitlines()[0] == COLUMNS.replace(" ", "\t")
    order = [("z", "eval"), ("a", "eval"), ("b", "eval"), ("b", "alpha"), ("b", "zebra")]
    assert [(row["run"], row["benchmark"]) for row in rows] == order
    expected = "a m tiny  eval 1234 0.725100 0.700300 0.749900 1.250000 -0.500000 0.551200 0.542100"
    assert list(rows[1].values()) == expected.split(" ")
    assert rows[3]["accuracy"] == "0.333333"


def test_summary_does_not_depend_on_the_order_of_its_inputs(tmp_path: Path) -> None:
    paths = [metrics(tmp_path, run) for run in "abc"]
    first = summary(tmp_path, *paths).read_bytes()
    assert summary(tmp_path, *reversed(paths)).read_bytes() == first


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"run": "demo"}'],
    ids=["empty", "cut off", "a list", "null", "without keys"],
)
def test_damaged_metrics_are_named(tmp_path: Path, content: str) -> None:
    good, bad = metrics(tmp_path, "good"), metrics(tmp_path, "bad")
    bad.write_text(content)
    with pytest.raises(UserError, match=re.escape(str(bad))):
        summary(tmp_path, good, bad)
    assert not (tmp_path / "results" / "summary.tsv").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [("accuracy", "high"), ("accuracy", 72.5), ("n", None), ("n", -1), ("seed", "x"), ("by_subset", [1]), ("run", "")],
)
def test_metrics_that_make_no_sense_are_named(tmp_path: Path, key: str, value: Any) -> None:
    path = metrics(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(UserError, match=re.escape(str(path))) as error:
        summary(tmp_path, path)
    assert f"'{key}'" in str(error.value)


def test_missing_and_repeated_metrics_are_named(tmp_path: Path) -> None:
    path = metrics(tmp_path)
    with pytest.raises(UserError, match=r"nowhere\.json does not exist"):
        summary(tmp_path, path, tmp_path / "nowhere.json")
    again = tmp_path / "again.json"
    again.write_text(path.read_text())
    with pytest.raises(UserError, match=r"again\.json repeats run 'demo' on benchmark 'eval'"):
        summary(tmp_path, path, again)


def test_final_summary_shows_each_run_with_its_interval_and_baseline(tmp_path: Path) -> None:
    text = shown(metrics(tmp_path), metrics(tmp_path, benchmark="other", accuracy=None, n=0))
    lines = text.splitlines()
    assert lines[1].split() == ["demo", "eval", "1,234", "72.5%", "70.0\N{EN DASH}75.0%", "55.1%", "1.25", "-0.50"]
    assert lines[2].split()[:4] == ["demo", "other", "0", "-"]
    assert lines[0].index("benchmark") == lines[1].index("eval")
    assert lines[0].index("accuracy") + len("accuracy") == lines[1].index("72.5%") + len("72.5%")
    assert "\N{PLUS-MINUS SIGN}" not in text


def test_final_summary_gives_seeds_a_mean_and_one_interval(tmp_path: Path) -> None:
    paths = [metrics(tmp_path, f"demo-seed{k}", seed=k, accuracy=0.70 + 0.02 * k) for k in range(3)]
    paths.append(metrics(tmp_path, "other-seed7", seed=7))
    lines = shown(*paths).splitlines()
    assert [line.split()[0] for line in lines[1:6]] == [
        "demo-seed0",
        "demo-seed1",
        "demo-seed2",
        "demo,",
        "other-seed7",
    ]
    assert "demo, 3 seeds" in lines[4]
    assert "72.0%" in lines[4]
    assert "66.7\N{EN DASH}77.8%" in lines[4]  # 2.0 and 3.0 of prompts combined with 4.303 * 2.0 / sqrt(3) of seeds


@pytest.mark.parametrize("change", [{"model": "other"}, {"mixture": "other"}, {"benchmark": "other"}])
def test_seeds_are_one_run_only_if_all_else_is_equal(tmp_path: Path, change: dict[str, Any]) -> None:
    paths = [metrics(tmp_path, "demo-seed0", seed=0), metrics(tmp_path, "demo-seed1", seed=1, **change)]
    assert "seeds" not in shown(*paths)


def test_final_summary_lists_subsets_by_accuracy_and_says_how_many_are_left(tmp_path: Path) -> None:
    subsets = {f"subset{k:02d}": subset(1 - k / 100, n=k + 1) for k in range(20)}
    path = metrics(tmp_path, by_subset=subsets)
    lines = shown(path).split("\n\n")[1].splitlines()
    assert "held-out split of m" in lines[0]
    assert lines[2].split() == ["subset19", "20", "81.0%", "50.0%"]
    assert [line.split()[0] for line in lines[2:14]] == [f"subset{k:02d}" for k in range(19, 7, -1)]
    assert lines[14:] == ["... and 8 more"]


def test_final_summary_fits_on_a_screen_whatever_the_number_of_runs(tmp_path: Path) -> None:
    subsets = {f"s{k}": subset(0.5) for k in range(30)}
    paths = [
        metrics(tmp_path, f"run{k:02d}-seed{seed}", benchmark, seed=seed, accuracy=0.5 + k / 100, by_subset=subsets)
        for k in range(40)
        for seed in range(2)
        for benchmark in ("eval", "b1", "b2", "b3")
    ]
    long, other = "r" * 90, "s" * 90
    point = {"fraction": 1, "pairs": 9, "runs": [], "value": 0.3, "low": 0.2, "high": 0.4}
    law = dict.fromkeys(
        ["exponent", "exponent_low", "exponent_high", "scale", "floor", "gain", "gain_low", "gain_high"], 0.2
    )
    curve = {"name": long, "benchmark": "eval", "mixture": "m", "metric": "error", "points": [point], **law}
    difference = {"first": long, "second": other, "n": 9, "difference": 0.1, "low": 0.0, "high": 0.2}
    board = {"benchmark": "b", "mixture": None, "differences": [difference]}
    many = ComparisonsFile.model_validate({"boards": [board] * 20, "curves": [curve] * 20})
    (tmp_path / "comparisons.json").write_text(many.model_dump_json())
    for height, boards in ((48, 1), (20, 0)):
        lines = final_summary(paths, comparisons=tmp_path / "comparisons.json", height=height).splitlines()
        assert len(lines) <= max(height, 29), "the tables of subsets are left out where others take the screen"
        assert sum(line.startswith("Accuracy by subset") for line in lines) == boards
    assert lines[1].startswith("run39, 2 seeds  eval")
    assert "... and 148 more rows in the report and summary.tsv" in lines
    assert "accuracy by subset on 4 benchmarks is in the report" in lines
    assert all(len(line) <= 100 for line in lines)


def test_all_that_a_large_sweep_has_to_say_fits_on_a_screen(tmp_path: Path) -> None:
    """100 runs on two benchmarks, half eliminated, a tenth diverged, with a choice, rungs and much lost data."""
    names = [f"sweep-lr={k}e-05_loss=kwise_weight_decay={k % 7}" for k in range(100)]
    reason = "the loss is not finite at step 31"
    paths = []
    for k, (name, benchmark) in enumerate(product(names, ("eval", "other"))):
        gone = {"n": 0, "accuracy": None, "diverged": reason} if k % 20 < 2 else {}
        ended = {"eliminated_at": 200} if k % 4 < 2 else {}
        paths.append(metrics(tmp_path, name, benchmark, **ended, **gone))
    close = {"n": 400, "difference": 0.01, "low": -0.01, "high": 0.03}
    boards = [
        {
            "benchmark": name,
            "mixture": None,
            "differences": [close | {"first": a, "second": b} for a, b in pairwise(names[:20])],
        }
        for name in ("eval", "other")
    ]
    (tmp_path / "comparisons.json").write_text(json.dumps({"boards": boards}))
    cells = [{"name": name, "runs": [name], "accuracy": 0.5, "goes_on": k < 33} for k, name in enumerate(names)]
    cells[-1] |= {"accuracy": None, "diverged": dict.fromkeys(names[60:], reason)}
    rungs = []
    for number in range(3):
        rungs.append(tmp_path / f"{number}.json")
        rungs[-1].write_text(json.dumps({"sweep": "sweep", "step": 200, "cells": cells}))
    part = {"n": 200, "accuracy": 0.8, "accuracy_low": 0.75, "accuracy_high": 0.85}
    chosen: dict[str, Any] = {"name": "best", "benchmark": "eval", "mixture": "demo", "best": names[0], "run": names[0]}
    chosen |= {"chosen_on": part, "reported_on": part, "eliminated": names[50:], "diverged": dict.fromkeys(names, "x")}
    standings = [{"name": name, "runs": [name], "chosen_on": part} for name in names]
    differences = [close | {"first": names[0], "second": name} for name in names[1:]]
    (tmp_path / "selection.json").write_text(json.dumps(chosen | {"standings": standings, "differences": differences}))
    others = [
        choices([tmp_path / "selection.json"]),
        halvings(rungs),
        "",
        "an audit of labels\n" * 4 + "... and 1,999 more lines in the report",
        "a line on the data\n" * 7 + "... and 5 more lines in the report",
        "report\nmodels",
    ]
    text = final_summary(paths, comparisons=tmp_path / "comparisons.json", others=others)
    assert "sweep-lr=0e-05_loss=kwise_weight_decay=0 is left out" in " ".join(text.split())
    assert len(text.splitlines()) <= SCREEN
    assert max(map(len, text.splitlines())) <= 100
    blocks = text.split("\n\n")
    assert blocks[-1] == others[-1]
    first, last = blocks[-2].splitlines()[0], blocks[-2].splitlines()[-1]
    assert first == "a line on the data", "something of each block is left"
    cut = len(others[-2].splitlines()) - len(blocks[-2].splitlines())
    assert cut > 0 and last == f"... and {5 + cut} more lines in the report", "and all that is not shown is counted"


def test_audits_say_what_they_found_and_what_was_not_judged(tmp_path: Path) -> None:
    found = {"mixture": "demo", "run": "r", "folds": 4, "n": 1200, "wrong": 96.4, "contradicted": 203, "unscored": 7}
    paths = [tmp_path / f"{k}.json" for k in range(9)]
    for k, path in enumerate(paths):
        path.write_text(json.dumps({"name": f"check{k}", **found}))
    first, *_, last = audits(paths).splitlines()
    assert first.startswith("check0: about 96 of 1,200 training labels of demo are wrong, 203 are contradicted by")
    assert "7 pairs were not judged" in " ".join(audits(paths[:1]).split()) and "more lines in the report" in last
    weak = {"wrong": None, "unjudged": "the models agree with 56.0% of the labels"}
    paths[0].write_text(json.dumps({"name": "check", **found, **weak}))
    line = " ".join(audits(paths[:1]).split())
    assert line.startswith("check: 203 of 1,200 training labels of demo are contradicted by the models; 7 pairs")
    assert line.endswith(
        "no label is judged, and mixtures of this audit keep all: the models agree with 56.0% of the labels"
    )
    assert audits([]) == ""


def test_final_summary_averages_subsets_over_seeds(tmp_path: Path) -> None:
    first = metrics(tmp_path, "demo-seed0", seed=0, by_subset={"a": subset(0.5), "b": subset(0.9)})
    second = metrics(tmp_path, "demo-seed1", seed=1, by_subset={"a": subset(0.7), "b": subset(0.9), "c": subset(0.95)})
    table = shown(first, second).split("\n\n")[1]
    assert [line.split()[:3] for line in table.splitlines()[2:]] == [
        ["a", "20", "60.0%"],
        ["b", "20", "90.0%"],
        ["c", "20", "95.0%"],
    ]


def test_final_summary_leaves_out_the_table_of_a_single_subset(tmp_path: Path) -> None:
    assert "subset" not in shown(metrics(tmp_path, by_subset={"only": subset(0.5)}))


def test_final_summary_fits_its_width_and_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    names = {
        "x" * 300: subset(0.1),
        "\x1b[31mred\r\n\t": subset(0.2),
        "\u6f22\u5b57" * 60: subset(0.3),
        "": subset(0.4),
    }
    path = metrics(tmp_path, "run-" + "a" * 80, "bench-" + "b" * 80, by_subset=names)
    text = shown(path, width=90)
    assert "\x1b" not in text
    assert "\r" not in text
    assert "(none)" in text
    assert max(len(line) for line in text.splitlines() if not line.startswith(("length only:", "Accuracy by"))) <= 90
    assert all(len(line) <= 100 for line in shown(metrics(tmp_path)).splitlines())


@pytest.mark.parametrize("decay", ["", "_weight_decay=0.125"])
def test_the_settings_of_a_sweep_are_told_apart_and_the_best_are_shown(tmp_path: Path, decay: str) -> None:
    """The 12 runs of four settings, whose names are too long for the table beside all numbers."""
    subsets = {"first": subset(0.5), "second": subset(0.6)}
    rates, losses = ("2e-05", "5e-05"), ("pairwise", "per_token_published")
    names = [f"sweep-epochs=2.0_lr={rate}_loss={loss}{decay}" for rate, loss in product(rates, losses)]
    paths = [
        metrics(tmp_path, f"{name}-seed{seed}", seed=seed, accuracy=0.6 + k / 50, by_subset=subsets)
        for k, name in enumerate(names)
        for seed in range(3)
    ]
    table, by_subset = shown(*paths).split("\n\n")[:2]
    rows = table.splitlines()[1:5]
    assert len({row.split()[0] for row in rows}) == 4 and all(len(row) <= 100 for row in rows)
    assert all("3 seeds" in row for row in rows) and "66.0%" in rows[0]
    if not decay:
        assert rows[0].startswith("…lr=5e-05_loss=per_token_published, 3 seeds  eval")
    assert len(set(by_subset.splitlines()[1].split()[2:6])) == 4


def test_subsets_that_look_the_same_stay_apart(tmp_path: Path) -> None:
    path = metrics(tmp_path, by_subset={"a\x00": subset(0.1), "a\x01": subset(0.2)})
    (found,) = read_results([path])
    assert [rates.accuracy for rates in found.by_subset.values()] == [0.1, 0.2]


def test_leaderboards_hold_what_can_be_compared_best_first(tmp_path: Path) -> None:
    paths = [metrics(tmp_path, "a", accuracy=0.6), metrics(tmp_path, "b", accuracy=0.7)]
    paths += [
        metrics(tmp_path, "c", mixture="n"),
        metrics(tmp_path, "a", "shared"),
        metrics(tmp_path, "c", "shared", mixture="n"),
    ]
    found = [(board.title, [entry.name for entry in board.entries]) for board in leaderboards(read_results(paths))]
    assert found == [
        ("held-out split of m", ["b", "a"]),
        ("held-out split of n", ["c"]),
        ("benchmark shared", ["a", "c"]),
    ]


def test_differences_within_noise_are_named() -> None:
    def difference(first: str, second: str, within: bool, **more: Any) -> dict[str, Any]:
        bounds = (-0.01, 0.03) if within else (0.01, 0.05)
        interval = {"difference": 0.02, "low": bounds[0], "high": bounds[1]}
        return {"first": first, "second": second, "n": 9, **interval, **more}

    boards = [
        {"benchmark": "eval", "mixture": "m", "differences": [difference("a", "b", True), difference("a", "c", False)]},
        {"benchmark": "t", "mixture": None, "differences": [difference("a", "b", False)]},
        {"benchmark": "u", "mixture": None, "differences": []},
        {"benchmark": "v", "mixture": None, "differences": [difference(f"r{k}", "z", True) for k in range(9)]},
        {"benchmark": "w", "mixture": None, "differences": [difference(f"r{k}", "z", k > 0) for k in range(5)]},
    ]
    *lines, seeds = noise(ComparisonsFile.model_validate({"boards": boards}))
    assert seeds == "runs with one seed each are compared as these weights; recipes need several seeds to be told apart"
    assert lines == [
        "eval of m: within noise: a and b",
        "t: all runs differ by more than noise",
        "v: no two runs differ by more than noise",
        "w: 4 of 5 differences between runs are within noise",
    ]


def test_failure_message_is_the_last_error_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "stage.log"
    log.write_text("12:00:00 error: first\n12:00:01 reading\n12:00:02 error: second\x1b\nwith its remedy\n")
    assert failure_message(log) == ["second\N{REPLACEMENT CHARACTER}", "with its remedy"]
    log.write_text("12:00:00 reading\n")
    assert failure_message(log) == failure_message(tmp_path / "missing.log") == []


def test_a_job_that_the_system_ends_is_shown_with_the_last_line_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "stage.log"
    log.write_text("12:00:00 reading\nterminate called\n  what():  std::bad_alloc\n\n")
    assert "lack of memory" in abrupt_end(log)[0]
    assert abrupt_end(log)[1:] == ["what():  std::bad_alloc"]
    log.write_text("")
    assert abrupt_end(log) == abrupt_end(tmp_path / "missing.log")
    assert abrupt_end(log)[0].endswith("its log is empty")


def test_where_training_stopped_on_request_is_no_failure(tmp_path: Path) -> None:
    log = tmp_path / "stage.log"
    log.write_text("12:00:00 reading\n12:00:02 stopped on request at step 48 of 240, checkpoint saved\n")
    assert stop_message(log) == "at step 48 of 240, checkpoint saved"
    assert failure_message(log) == []
    log.write_text("12:00:02 stopped on request at step 48 of 240, checkpoint saved\n12:00:03 error: disk\n")
    assert stop_message(log) == stop_message(tmp_path / "missing.log") == ""


def test_without_evaluations_the_summary_says_so() -> None:
    assert final_summary([]) == "no evaluation is up to date"


def test_final_summary_needs_nothing_slow() -> None:
    slow = {"numpy", "pandas", "pyarrow", "matplotlib", "jinja2", "torch"}
    code = f"import sys, rewardline.report.summary; print(*{slow} & set(sys.modules))"
    scripts = Path(summarize.__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=scripts, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_tables_have_the_settings_that_differ_between_runs(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for run, rate in (("a", 1e-4), ("b", 5e-5)):
        results.eval(run)
        results.model(run, training={"learning_rate": rate, "epochs": 2, "lora": None if run == "a" else {"rank": 8}})
    results.eval("both", seed=None)
    metrics, models = (map(str, sorted(tmp_path.rglob(name))) for name in ("metrics.json", "run.json"))
    output, runs = tmp_path / "summary.tsv", tmp_path / "runs.tsv"
    arguments = ["--metrics", *metrics, "--models", *models, "--output", str(output), "--runs", str(runs)]
    assert summarize.main(arguments) == 0
    first, second, ensemble = csv.DictReader(output.open(newline=""), delimiter="\t")
    assert list(first)[:13] == COLUMNS.split()
    assert "training.epochs" not in first
    assert [one["training.learning_rate"] for one in (first, second, ensemble)] == ["0.0001", "5e-05", ""]
    assert (first["training.lora"], second["training.lora.rank"]) == ("null", "8")
    a, b = csv.DictReader(runs.open(newline=""), delimiter="\t")
    assert (a["run"], b["training.learning_rate"], a["eval"]) == ("a", "5e-05", first["accuracy"])
