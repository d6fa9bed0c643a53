"""Sweeps: which runs the cells of a grid are, and what is said about grids that cannot be meant."""

from typing import Any

import pytest
from snakemake.target_jobs import parse_target_jobs_cli_args
from snakemake_interface_executor_plugins.utils import TargetSpec, encode_target_jobs_cli_args

from rewardline.workflow.config import Config
from rewardline.workflow.resolve import ConfigError, resolve
from rewardline.workflow.runs import choice_table, ensemble_table, halved_sweeps, run_table
from rewardline.workflow.settings import group_settings, rung_settings, select_settings, train_settings

LOOKS = {"eval_sets": ["t"], "keep_best": "t", "early_stopping": {}}
RATES = {"training.learning_rate": ["1e-5", 5e-5]}


def config(grid: dict[str, Any], others: dict[str, Any] | None = None, select: Any = None, **run: Any) -> Config:
    own = {"mixture": "m", "model": "x", **run, "grid": grid}
    return resolve(
        {
            "datasets": {"d": {"files": ["a.jsonl"]}},
            "mixtures": {"m": {"datasets": {"d": 1.0}}, "n": {"datasets": {"d": 0.5}}, "no": {"datasets": {"d": 1.0}}},
            "models": {"x": {"path": "owner/name"}, "y": {"path": "owner/other"}},
            "runs": {"s": {key: value for key, value in own.items() if value is not None}, **(others or {})},
            "select": select,
        }
    )


def ids(grid: dict[str, Any], **run: Any) -> list[str]:
    return [run.run_id for run in run_table(config(grid, **run))]


def test_cells_are_runs_with_their_values_and_all_seeds() -> None:
    result = config(
        {**RATES, "training.loss": ["pairwise", "kwise"]},
        {"e": {"ensemble": ["s"]}},
        seeds=[0, 1],
        training={"epochs": 2},
    )
    table = {run.run_id: run for run in run_table(result)}
    assert len(table) == 8
    run = table["s-lr=5e-05_loss=kwise-seed1"]
    training = train_settings(result, run).training
    assert (training.learning_rate, training.loss, training.epochs, run.seed) == (5e-5, "kwise", 2, 1)
    assert (run.sweep, train_settings(result, run).sweep) == ("s", "s")
    assert set(ensemble_table(result)[0].members) == set(table)
    assert {run.run_id for run in run_table(result, {"s"})} == set(table)


def test_the_grid_may_have_what_the_run_lacks_and_keys_within_keys() -> None:
    assert ids({"mixture": ["m", "n"], "model": ["x", "y"]}, mixture=None, model=None) == [
        "s-mixture=m_model=x", "s-mixture=m_model=y", "s-mixture=n_model=x", "s-mixture=n_model=y",
    ]  # fmt: skip
    result = config({"training.lora.rank": [4, 8], "training.lora": [{"alpha": 8}, {"alpha": 16}]})
    loras = [entry.training.lora for entry in result.runs.values()]
    assert sorted((lora.alpha, lora.rank) for lora in loras if lora) == [(8, 4), (8, 8), (16, 4), (16, 8)]


def test_names_do_not_depend_on_the_order_of_keys_or_on_added_values() -> None:
    grid = {**RATES, "training.betas": [[0.9, 0.95], [0.9, 0.99]]}
    first = ids(grid)
    assert first[0] == "s-betas=0.9-0.95_lr=1e-05"
    assert ids(dict(reversed(grid.items()))) == first
    assert set(ids({**grid, "training.learning_rate": [1e-3, 5e-5, 1e-5]})) > set(first)


def test_snakemake_hands_the_names_of_cells_to_jobs_on_a_cluster_as_they_are() -> None:
    for name in ids({**RATES, "training.betas": [[0.9, 0.95]], "training.loss": ["kwise"]}, seeds=[0, 1]):
        wildcards = {"run": name, "rung": "0"}
        arguments = encode_target_jobs_cli_args([TargetSpec("train", wildcards)])
        assert parse_target_jobs_cli_args(arguments) == [TargetSpec("train", wildcards)]


def test_a_sample_is_of_the_asked_size_and_grows() -> None:
    grid = {"training.learning_rate": [k / 1e6 for k in range(1, 31)], "training.warmup": list(range(10))}
    small, large = (set(ids({**grid, "sample": n})) for n in (5, 20))
    assert (len(small), len(large)) == (5, 20) and small < large
    assert set(ids({**grid, "sample": 5, "seed": 1})) != small
    assert set(ids({**grid, "sample": 400})) == set(ids({**grid, "max_cells": 300}))
    more = {**grid, "training.warmup": list(range(11))}
    assert len(large & set(ids({**more, "sample": 20}))) >= 14


def test_fractions_of_a_mixture_make_a_sweep_of_every_run_on_it() -> None:
    mixtures = {"m": {"datasets": {"d": 1.0}, "fractions": [0.25, 1]}, "n": {"datasets": {"d": 0.5}}}
    runs = {
        "plain": {"mixture": "m", "model": "x"},
        "own": {"mixture": "m", "model": "x", "fraction": 0.5},
        "swept": {"mixture": "m", "model": "x", "grid": {"training.warmup": [1, 2]}},
        "other": {"mixture": "n", "model": "x"},
    }
    raw = {"datasets": {"d": {"files": ["a"]}}, "mixtures": mixtures, "models": {"x": {"path": "o/n"}}, "runs": runs}
    result = resolve(raw)
    assert sorted(result.runs) == [
        *("other", "own", "plain-fraction=0.25", "plain-fraction=1.0"),
        *(f"swept-fraction={share}_warmup={steps}" for share in (0.25, 1.0) for steps in (1.0, 2.0)),
    ]
    settings = {run.run_id: train_settings(result, run) for run in run_table(result)}
    assert settings["plain-fraction=0.25"].fraction == 0.25 and settings["own"].fraction == 0.5
    assert "fraction" not in settings["other"].as_json(), "the key of a training run on all data stays as it was"


def test_mixtures_of_a_grid_have_the_same_fractions() -> None:
    m, n = ({"datasets": {"d": weight}, "fractions": [0.5, 1]} for weight in (1.0, 0.5))
    grid: dict[str, Any] = {"mixture": ["m", "n"]}
    raw = {"datasets": {"d": {"files": ["a"]}}, "models": {"x": {"path": "o/n"}}}
    raw["runs"] = {"s": {"model": "x", "grid": grid}}
    assert len(resolve({**raw, "mixtures": {"m": m, "n": {**n, "fractions": [1, 0.5]}}}).runs) == 4
    for fractions in ([], [0.25, 1]):
        mixtures = {"m": m, "n": {**n, "fractions": fractions}}
        with pytest.raises(ConfigError, match=r"runs.s.grid.mixture: m and n differ in their fractions; make them"):
            resolve({**raw, "mixtures": mixtures})
        own = {"model": "x", "grid": {**grid, "fraction": [0.1, 0.2]}}
        assert len(resolve({**raw, "mixtures": mixtures, "runs": {"s": own}}).runs) == 4


def test_halving_has_rungs_until_the_best_cells_are_trained_to_the_end() -> None:
    grid = {"training.warmup": list(range(1, 10)), "halving": {"factor": 3, "min_steps": 20}}
    halved = halved_sweeps(config(grid, seeds=[0, 1]))["s"]
    assert (halved.steps, [halved.kept(rung) for rung in (0, 1)]) == ([20, 60], [3, 1])
    assert len(halved.cells) == 9 and halved.cells["s-warmup=1.0"] == ["s-warmup=1.0-seed0", "s-warmup=1.0-seed1"]
    assert halved_sweeps(config(grid, training={"max_steps": 60}))["s"].steps == [20], "the end is no rung"
    assert halved_sweeps(config(RATES)) == {}
    both = halved_sweeps(config({**RATES, "fraction": [0.5, 1], "halving": {"factor": 2, "min_steps": 1}}))["s"]
    assert [len(runs) for runs in both.cells.values()] == [2, 2], "all fractions of a cell continue, or none"


def test_a_halved_sweep_is_run_with_all_its_cells_and_its_models_have_the_key_of_others() -> None:
    grid = {**RATES, "halving": {"factor": 2, "min_steps": 5}}
    others = {"o": {"mixture": "m", "model": "x"}, "e": {"ensemble": ["o", "s-lr=1e-05"]}}
    result = config(grid, others)
    assert {run.run_id for run in run_table(result, {"e"})} == {"o", "s-lr=1e-05", "s-lr=5e-05"}
    run = run_table(result, {"s"})[0]
    assert train_settings(result, run) == train_settings(config(RATES, others), run)
    rung = rung_settings(result, run, halved_sweeps(result)["s"], 0).rung
    assert rung is not None and (rung.number, rung.step, rung.share) == (0, 5, 0.5)


def test_long_values_have_short_names() -> None:
    names = ids({"training.lora": [{"target_modules": ["x" * n]} for n in (299, 300)]})
    assert len(set(names)) == 2 and all(len(name) <= 150 for name in names)


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ({}, ["runs.s.grid", "lists of values by key"]),
        ({"learning_rate": [1, 2]}, ["runs.s.grid.learning_rate: unknown key", "training.learning_rate?"]),
        ({"training.lora.rnk": [1, 2]}, ["runs.s.grid.training.lora.rnk: unknown key", "rank?"]),
        (
            {"training": {"warmup": [1, 2]}},
            ["runs.s.grid: {'training'", "expected keys with dots", "training.warmup: [...]"],
        ),
        ({"training.learning_rate": 1e-5}, ["runs.s.grid.training.learning_rate: 1e-05", "list"]),
        ({"training.loss": ["kwise", "kwis"]}, ["runs.s.grid.training.loss: 'kwis'", "did you mean kwise?"]),
        ({"training.warmup": [1, 2, -1]}, ["runs.s.grid.training.warmup: -1", "greater than or equal to 0"]),
        ({"mixture": ["m", "mm"]}, ["runs.s.grid.mixture: 'mm' is not defined", "did you mean m?"]),
        ({"seeds": [0, 1]}, ["runs.s.grid.seeds", "move it to runs.s.seeds"]),
        ({"benchmarks": [["a"], []]}, ["runs.s.grid.benchmarks", "move it to runs.s.benchmarks"]),
        ({"training.learning_rate": [1e-5, "0.00001"]}, ["runs.s.grid", "same run id s-lr=1e-05"]),
        ({"training.loggers": [[], ["tensorboard"]]}, ["runs.s.grid: training.loggers changes nothing"]),
        ({"training.checkpoint_every": [1, 2], **RATES}, ["runs.s.grid: training.checkpoint_every changes nothing"]),
        ({"training.threads": [1, 2]}, ["runs.s.grid: training.threads changes nothing but rounding"]),
        ({"training.normalize": [True, False]}, ["training.normalize changes nothing but the scale of scores"]),
        ({"training.eval_every": [1, 2]}, ["runs.s.grid: training.eval_every changes nothing"]),
        ({"mixture": ["m", "no"]}, ["runs.s.grid: mixture changes nothing"]),
        ({**RATES, "halving": {"factor": 1, "min_steps": 9}}, ["runs.s.grid.halving.factor: 1", "or equal to 2"]),
        ({**RATES, "halving": {"factor": 2}}, ["runs.s.grid.halving: min_steps is missing"]),
        (
            {**RATES, "halving": {"min_step": 9, "min_steps": 9}},
            ["halving.min_step: unknown key", "did you mean min_steps?"],
        ),
        (
            {**RATES, "halving": {"min_steps": 9}},
            ["runs.s.grid.halving.factor: 3 is more than the number of cells (2)"],
        ),
        (
            {"training.max_steps": [9, 20], "halving": {"factor": 2, "min_steps": 9}},
            ["runs.s.grid.halving.min_steps: 9 is not below the 9 steps of max_steps"],
        ),
        (
            {"mixture": ["m", "n"], "halving": {"factor": 2, "min_steps": 9}},
            ["runs.s.grid.halving: the cells are on m and n", "a sweep for each mixture"],
        ),
        (
            {**RATES, "fraction": [0.5, 1], "sample": 3, "halving": {"factor": 2, "min_steps": 9}},
            ["runs.s.grid.halving: the cells of a sample have different fractions"],
        ),
        ({"training.warmup": list(range(101))}, ["runs.s.grid: 101 cells", "max_cells (100)", "sample"]),
        (
            {"training.precision": ["fp32", "bf16"]},
            ["runs.s.training.zero_stage: 0 is not allowed with precision bf16"],
        ),
    ],
)
def test_a_grid_that_cannot_be_meant_is_one_message(grid: dict[str, Any], expected: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config(grid)
    assert all(part in str(caught.value) for part in expected), str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("best", "sets", "problem"),
    [
        ("t", [{"t": 9, "u": 9}, {"t": 8}], None),
        ("t", [{"t": 9, "u": 9}, {"t": 9}], "runs.s.grid: training.eval_sets changes nothing"),
        (True, [{"t": 9}, {"t": 8}], "runs.s.grid: training.eval_sets changes nothing"),
        ("u", [{"t": 9}, {"u": 8}], "runs.s.training.keep_best: 'u' is not defined"),
    ],
)
def test_of_eval_sets_the_one_that_keeps_the_best_weights_counts(
    best: bool | str, sets: list[dict[str, int]], problem: str | None
) -> None:
    run = {"mixture": "m", "model": "x", "benchmarks": ["t", "u"], "training": {"keep_best": best}}
    raw = {
        "datasets": {"d": {"files": ["a"]}},
        "mixtures": {"m": {"datasets": {"d": 1.0}}},
        "models": {"x": {"path": "o/n"}},
        "benchmarks": {name: {"files": ["b"]} for name in "tu"},
        "runs": {"s": {**run, "grid": {"training.eval_sets": sets}}},
    }
    if problem is None:
        assert len(resolve(raw).runs) == 2
        return
    with pytest.raises(ConfigError, match=problem):
        resolve(raw)


@pytest.mark.parametrize("name", ["a/b", "..", "a,b", "a=b", "a b"])
def test_the_name_of_a_sweep_is_checked_as_that_of_a_run(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(RATES, {name: {"mixture": "m", "model": "x", "grid": RATES}})
    assert str(caught.value) == f"runs.{name}: a name consists of letters, digits, '.', '_' and '-'"


@pytest.mark.parametrize(
    "other", [{"mixture": "m", "model": "x"}, {"ensemble": ["s"]}, {"mixture": "m", "model": "x", "grid": RATES}]
)
def test_a_cell_whose_run_id_is_the_name_of_another_entry_is_one_message(other: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        config(RATES, {"s-lr=1e-05": other})
    expected = "runs.s.grid: a cell has the run id s-lr=1e-05, as has runs.s-lr=1e-05; rename that run"
    assert str(caught.value) == expected


def test_a_choice_is_between_all_cells_and_seeds_and_is_made_when_some_of_them_are_run() -> None:
    result = config(RATES, {"t": {"mixture": "m", "model": "x"}}, {"from": ["s", "t"], "as": "best"}, seeds=[0, 1])
    (choice,) = choice_table(result)
    assert set(choice.runs) == {run.run_id for run in run_table(result)} and choice.benchmark == "eval"
    assert {run.run_id for run in run_table(result, {"t"})} == set(choice.runs)
    assert choice_table(result, {"other"}) == []
    assert select_settings(result, choice).share == 0.5


def test_a_select_fraction_is_held_out_too_and_is_the_part_that_chooses() -> None:
    own = {"mixture": "m", "model": "x", "grid": {**RATES, "halving": {"factor": 2, "min_steps": 5}}}
    raw = {
        "datasets": {"d": {"files": ["a"]}},
        "mixtures": {"m": {"datasets": {"d": 1.0}, "eval_fraction": 0.06, "select_fraction": 0.03}},
        "models": {"x": {"path": "o/n"}},
        "runs": {
            "s": own,
            "k": {"mixture": "m", "model": "x", "benchmarks": ["t"], "training": LOOKS},
        },
        "benchmarks": {"t": {"files": ["b"]}},
        "select": {"from": "s", "as": "best"},
    }
    result = resolve(raw)
    runs = {run.name: train_settings(result, run) for run in run_table(result)}
    assert runs["k"].choosing == {"eval": pytest.approx(1 / 3), "t": 0.5}, "what decides is not what is reported on"
    assert not runs["s-lr=1e-05"].choosing
    assert group_settings(result, "m").eval_fraction == pytest.approx(0.09)
    rung = rung_settings(result, run_table(result)[0], halved_sweeps(result)["s"], 0).rung
    assert rung is not None and rung.share == pytest.approx(1 / 3)
    assert select_settings(result, choice_table(result)[0]).share == rung.share


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ({"from": "t", "as": "b"}, "select.b.from: 't' is no run, no sweep and no run id"),
        ({"from": "e", "as": "b"}, "select.b.from: 'e' is an ensemble, which has no model"),
        ({"from": "s-lr=1e-05", "as": "b"}, "select.b.from: there is one run only"),
        ({"from": "s", "as": "s"}, "select.s.as: the name is taken"),
        ({"from": "s", "as": "s-lr=1e-05"}, "select.s-lr=1e-05.as: the name is taken"),
        ([{"from": "s", "as": "b"}, {"from": "s", "as": "b"}], "select.b.as: the name is taken"),
        ({"from": ["s", "o"], "as": "b"}, "select.b.by: the runs are on m and n, each with an eval split of its own"),
        ({"from": "s", "by": "tests", "as": "b"}, "select.b.by: 'tests' is not defined"),
        ({"frm": "s", "as": "b"}, "select.0.frm: unknown key; did you mean from?"),
        ({"from": 1, "as": "b"}, "select.0.from.0: 1 is not allowed; write it in quotes, '1'"),
        ({"from": ["s", {}], "as": "b"}, "select.0.from.1: {} is not allowed; expected a text"),
        ("s", "select.0: 's' is not allowed; expected a mapping, `key: value`"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(select: Any, expected: str) -> None:
    others = {"e": {"ensemble": ["s"]}, "o": {"mixture": "n", "model": "x"}}
    with pytest.raises(ConfigError) as caught:
        config(RATES, others, select)
    assert expected in str(caught.value)


def test_a_name_that_yaml_reads_as_a_truth_value_is_a_name() -> None:
    from rewardline.workflow.config_files import WrittenText

    written = WrittenText({}, {("runs", "s", "grid", "mixture", 1): "no"})
    entries = {"m": {"datasets": {"d": 1.0}}, "no": {"datasets": {"d": 0.5}}}
    run = {"model": "x", "grid": {"mixture": ["m", False]}}
    raw = {
        "datasets": {"d": {"files": ["a"]}},
        "mixtures": entries,
        "models": {"x": {"path": "o/n"}},
        "runs": {"s": run},
    }
    assert list(resolve(raw, written=written).runs) == ["s-mixture=m", "s-mixture=no"]
