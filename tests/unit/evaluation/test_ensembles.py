"""Ensembles of runs: their scores against a plain computation, and what the configuration says of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from scipy.stats import spearmanr

import evaluate_ensemble
from rewardline.core.errors import UserError
from rewardline.data.schema import arrow_schema
from rewardline.evaluation.scores import ANSWERS, RatedScore, write_scores
from rewardline.workflow import settings as stages
from rewardline.workflow.config import Config
from rewardline.workflow.resolve import ConfigError, resolve
from rewardline.workflow.runs import (
    average_table,
    benchmarks_of_mixture,
    ensemble_table,
    evaluated_on,
    has_eval,
    limits,
    run_table,
)

from support.score_tables import stored, table

Json = dict[str, Any]
SETTINGS = {"run": "e", "name": "e", "mixture": "m", "model": "x", "seed": None, "benchmark": "eval"}

JUDGED = {"mixture": "m", "model": "x", "benchmark": "eval", "n": 600, "accuracy": 0.5}


def members(folder: Path) -> list[pd.DataFrame]:
    """Three runs that scored the same answers in different units; the second lacks the last ten pairs."""
    rng = np.random.default_rng(0)
    first = table(rng, 200, answers=3)
    tables = []
    for name, unit, origin in (("a", 1.0, 0.0), ("b", 40.0, -100.0), ("c", 0.01, 3.0)):
        scores = first.copy()
        noise = rng.normal(0, 0.7, (2, len(first)))
        for side, extra in zip(("chosen", "rejected"), noise, strict=True):
            scores[f"{side}_score"] = unit * (first[f"{side}_score"] + extra) + origin
        scores = scores.sample(frac=1, random_state=1) if name == "c" else scores
        scores = scores.iloc[:-10] if name == "b" else scores
        (folder / name).mkdir()
        stored(scores, folder / name)
        (folder / name / "metrics.json").write_text(
            json.dumps({**JUDGED, "run": name, "scale": 2.0 if name == "a" else 1.0})
        )
        tables.append(scores.set_index("pair_id"))
    return tables


@pytest.mark.parametrize("combine", ["mean", "worst", "mean_minus_variance"])
def test_scores_equal_a_plain_computation(tmp_path: Path, combine: str) -> None:
    tables = members(tmp_path)
    settings = {**SETTINGS, "ensemble": ["a", "b", "c"], "combine": combine, "variance_weight": 0.3}
    folders = [str(tmp_path / name) for name in "abc"]
    assert (
        evaluate_ensemble.main(
            ["--settings", json.dumps(settings), "--members", *folders, "--output", str(tmp_path / "e")]
        )
        == 0
    )
    found = pd.read_parquet(tmp_path / "e" / "scores.parquet").set_index("pair_id")
    common = tables[1].index
    assert list(found.index) == list(common)
    standard, scale = [], 0.0
    for scores, unit in zip(tables, (2.0, 1.0, 1.0), strict=True):
        both = scores.loc[common, ["chosen_score", "rejected_score"]].to_numpy(np.float64)
        standard.append((both - both.mean()) / both.std())
        scale += both.std() * unit / 3
    stack = np.stack(standard)
    expected = {
        "mean": stack.mean(axis=0),
        "worst": stack.min(axis=0),
        "mean_minus_variance": stack.mean(axis=0) - 0.3 * stack.var(axis=0),
    }[combine]
    assert found[["chosen_score", "rejected_score"]].to_numpy() == pytest.approx(expected, abs=1e-4)
    right = expected[:, 0] > expected[:, 1]
    assert found["correct"].to_numpy() == pytest.approx(right.astype(float))
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["n"] == len(common)
    assert metrics["unscored"] == 10
    assert metrics["accuracy"] == pytest.approx(right.mean())
    assert metrics["scale"] == pytest.approx(scale, rel=1e-3)
    assert metrics["ensemble"] == ["a", "b", "c"]


def test_members_that_diverged_or_were_eliminated_are_left_out(tmp_path: Path) -> None:
    members(tmp_path)
    settings = {**SETTINGS, "ensemble": ["a", "b", "c"], "combine": "mean", "variance_weight": 0.5}
    arguments = ["--settings", json.dumps(settings), "--members", *(str(tmp_path / name) for name in "abc")]
    arguments += ["--output", str(tmp_path / "e")]
    ended: dict[str, Json] = {"a": {"eliminated_at": 20}, "b": {"diverged": "the loss is not finite at step 3", "n": 0}}
    for name, change in ended.items():
        (tmp_path / name / "metrics.json").write_text(json.dumps({**JUDGED, "run": name, **change}))
    assert evaluate_ensemble.main(arguments) == 0
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert (metrics["ensemble"], list(metrics["standards"])) == (["c"], ["c"])
    (tmp_path / "c" / "metrics.json").write_text(json.dumps({**JUDGED, "run": "c", "eliminated_at": 20}))
    with pytest.raises(UserError, match=r"runs.e.ensemble: all members have diverged or are eliminated"):
        evaluate_ensemble.main(arguments)


def test_members_without_a_common_pair_are_an_error(tmp_path: Path) -> None:
    members(tmp_path)
    other = table(np.random.default_rng(1), 5)
    other["pair_id"] = [f"other{k}" for k in range(5)]
    stored(other, tmp_path / "b")
    settings = {**SETTINGS, "ensemble": ["a", "b"], "combine": "mean", "variance_weight": 0.5}
    folders = [str(tmp_path / name) for name in "ab"]
    with pytest.raises(UserError, match="have no pair in common"):
        evaluate_ensemble.main(
            ["--settings", json.dumps(settings), "--members", *folders, "--output", str(tmp_path / "e")]
        )
    assert not (tmp_path / "e").exists()


def test_a_published_benchmark_says_what_any_member_left_out(tmp_path: Path) -> None:
    scores = table(np.random.default_rng(2), 20)
    scores["subset"] = "mmlu-pro"
    scores["place"] = [{"item": "", "chosen": 0, "rejected": 1, "answers": 2}] * 20
    for name, dropped, rows in (("a", {"answer_too_long": 3}, 20), ("b", {"answer_too_long": 5, "same": 1}, 18)):
        (tmp_path / name).mkdir()
        stored(scores.iloc[:rows], tmp_path / name)
        (tmp_path / name / "metrics.json").write_text(
            json.dumps({**JUDGED, "run": name, "scale": 1.0, "sections": {"left_out": dropped}})
        )
    settings = {**SETTINGS, "ensemble": ["a", "b"], "combine": "mean", "variance_weight": 0.5}
    own = json.dumps({**settings, "scoring": "judgebench"})
    folders = [str(tmp_path / name) for name in "ab"]
    assert evaluate_ensemble.main(["--settings", own, "--members", *folders, "--output", str(tmp_path / "e")]) == 0
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["sections"]["left_out"] == {"answer_too_long": 5, "same": 1}
    assert metrics["sections"]["sections"]["mmlu-pro"] == {"score": pytest.approx(metrics["accuracy"]), "n": 18}
    assert metrics["unscored"] == 2


def rated_member(folder: Path, attribute: Json, scores: Any, outputs: Any, ids: list[int], n: int = 0) -> None:
    """The evaluation of a model with one attribute on rated answers, and on pairs if they are there."""
    rows = [
        {"answer_id": f"a{k}", "prompt_id": f"p{k // 2}", "dataset": "d", "subset": "s", "score": scores[k]}
        | {"outputs": [outputs[k]], "tokens": 9, "ratings": [{"name": "quality", "value": float(k % 5)}], "weight": 1.0}
        for k in ids
    ]
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, arrow_schema(RatedScore)), folder / ANSWERS)
    if not n:
        write_scores(folder / "scores.parquet", ())
    own = {**JUDGED, "run": folder.name, "n": n, "accuracy": None, "ratings": {"quality": {"n": len(rows)}}}
    (folder / "metrics.json").write_text(json.dumps({**own, "scale": 1.0, "attributes": [attribute]}))


@pytest.mark.parametrize("pairs", [False, True])
def test_rated_answers_are_scored_by_all_members_and_predicted_by_their_mean(tmp_path: Path, pairs: bool) -> None:
    rng = np.random.default_rng(3)
    scores, outputs = rng.normal(size=(2, 40)) * [[3.0], [0.1]] + [[5.0], [-2.0]], rng.normal(size=(2, 40))
    units: list[Json] = [
        {"name": "quality", "mean": 2.0, "std": 1.5, "weight": 1.0},
        {"name": "quality", "mean": 1.0, "std": 0.5, "weight": 0.5},
    ]
    orders, standards = [list(range(38)), list(range(39, -1, -1))], []
    for number, name in enumerate("ab"):
        rated_member(tmp_path / name, units[number], scores[number], outputs[number], orders[number], 50 * pairs)
        stored_pairs = table(np.random.default_rng(number), 50)
        if pairs:
            stored(stored_pairs, tmp_path / name)
        of_pairs = stored_pairs[["chosen_score", "rejected_score"]].to_numpy(np.float64)
        standards.append(of_pairs if pairs else scores[number, :38])
    settings = {**SETTINGS, "ensemble": ["a", "b"], "combine": "mean", "variance_weight": 0.5}
    folders = ["--members", str(tmp_path / "a"), str(tmp_path / "b"), "--output", str(tmp_path / "e")]
    assert evaluate_ensemble.main(["--settings", json.dumps(settings), *folders]) == 0
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert (metrics["n"], metrics["unscored"]) == (50 * pairs, 2)
    assert metrics["standards"]["a"]["std"] == pytest.approx(standards[0].std(), rel=1e-5)
    expected = np.mean([(scores[k, :38] - standards[k].mean()) / standards[k].std() for k in (0, 1)], axis=0)
    found = pd.read_parquet(tmp_path / "e" / ANSWERS).set_index("answer_id")
    assert list(found.index) == [f"a{k}" for k in range(38)]
    assert found.score.to_numpy() == pytest.approx(expected, abs=1e-5)
    predicted = np.mean([units[k]["mean"] + units[k]["std"] * outputs[k, :38] for k in (0, 1)], axis=0)
    ratings = np.arange(38) % 5
    quality = metrics["ratings"]["quality"]
    assert (quality["n"], quality["mse"]) == (38, pytest.approx(np.mean((predicted - ratings) ** 2), rel=1e-4))
    assert quality["spearman"] == pytest.approx(spearmanr(predicted, ratings).statistic, rel=1e-4)
    assert metrics["rating_sum"]["spearman"] == pytest.approx(spearmanr(expected, ratings).statistic, rel=1e-4)


CONFIG = """
datasets: {d: {demo: {}}}
mixtures: {m: {datasets: {d: 1.0}}, n: {datasets: {d: 1.0}}}
models: {x: {path: some/model}}
benchmarks: {t: {demo: {seed: 2}}, u: {demo: {seed: 3}}, p: {probes: {mixture: m}}}
runs:
  first: {mixture: m, model: x, seeds: [0, 1], benchmarks: [t, u]}
  second: {mixture: m, model: x, benchmarks: [t]}
  third: {mixture: n, model: x, benchmarks: [t]}
"""


def config(**ensembles: Json) -> Config:
    wanted = yaml.safe_load(CONFIG)
    wanted["runs"] |= ensembles
    return resolve(wanted)


def test_members_are_trainings_and_selected_with_the_ensemble() -> None:
    found = config(
        e={"ensemble": ["first", "second"], "benchmarks": ["t"], "fail_below": {"eval": 0.6, "t": 0.7}},
        f={"ensemble": ["first-seed1", "third"], "combine": "worst", "benchmarks": ["t"]},
    )
    assert set(found.runs) == {"first", "second", "third"}
    same, mixed = ensemble_table(found)
    assert same.members == ("first-seed0", "first-seed1", "second")
    assert (same.mixture, same.model, has_eval(found, same)) == ("m", "x", True)
    assert (mixed.members, mixed.mixture) == (("first-seed1", "third"), "m+n")
    assert not has_eval(found, mixed)
    assert [run.run_id for run in run_table(found, {"f"})] == ["first-seed1", "third"]
    assert stages.ensemble_settings(found, mixed, "t").combine == "worst"
    assert limits(found, [same, mixed]) == {"e": {"eval": 0.6, "t": 0.7}}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"ensemble": ["first"], "mixture": "m", "seeds": [1]}, "runs.e: seeds is not allowed with ensemble"),
        ({"ensemble": ["fist"]}, "runs.e.ensemble: 'fist' is no run and no run id; did you mean first?"),
        ({"ensemble": ["second"]}, "has one member, second; expected two or more"),
        ({"ensemble": ["first", "e"]}, "'e' is an ensemble itself"),
        (
            {"ensemble": ["first", "second"], "benchmarks": ["u"]},
            "second is not evaluated on 'u'; add it to runs",
        ),
        ({"ensemble": ["first", "third"]}, "no eval split in common; name a benchmark"),
        ({"ensemble": ["first", "second"], "fail_below": {"t": 0.5}}, "runs.e.fail_below: 't' is not defined"),
        ({"ensemble": ["first"], "combine": "median"}, "expected one of mean, worst, mean_minus_variance"),
        ({"mixture": "m"}, "runs.e: model is missing"),
        ({"mixture": "m", "model": "x", "combine": "worst"}, "combine is for ensembles only"),
        ({"average": ["first"], "combine": "worst"}, "combine is for ensembles only"),
        ({"average": ["first"], "ensemble": ["first"]}, "has both ensemble and average"),
        ({"average": ["first"], "seeds": [1]}, "seeds is not allowed with average, which trains nothing"),
        ({"average": ["first", "e"]}, "'e' is an average itself"),
        ({"average": ["second"]}, "runs.e.average: has one member, second"),
        ({"average": ["first", "third"]}, "no eval split in common; name a benchmark"),
        ({"average": ["first"], "benchmarks": ["w"]}, "runs.e.benchmarks: 'w' is not defined"),
        ({"average": ["first"], "benchmarks": ["p"], "fail_below": {"t": 0.5}}, "runs.e.fail_below: 't' is not"),
        ({"average": ["first", "third"], "benchmarks": ["p"]}, "p is built from m, whose held-out prompts may be in"),
    ],
)
def test_mistakes_in_ensembles_are_named(entry: Json, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(e=entry)
    assert message in str(caught.value)


def test_an_average_is_evaluated_like_a_run_and_selects_its_members() -> None:
    found = config(
        e={"average": ["first", "second"], "benchmarks": ["t", "p"]},
        f={"average": ["first", "third"], "benchmarks": ["u"]},
    )
    same, mixed = average_table(found)
    assert (same.members, same.mixture, same.model) == (("first-seed0", "first-seed1", "second"), "m", "x")
    assert (mixed.mixture, evaluated_on(found, mixed), evaluated_on(found, same)) == ("m+n", ["u"], ["eval", "t", "p"])
    assert [run.run_id for run in run_table(found, {"f"})] == ["first-seed0", "first-seed1", "third"]
    assert benchmarks_of_mixture(found, "n") == ["t", "u"], "its prompts leave the training pairs of all members"
    assert stages.evaluate_settings(found, mixed, "u").average == ["first-seed0", "first-seed1", "third"]


NEW = {"init": {"config": {"model_type": "llama"}, "tokenizer": {"mixture": "m"}}}
WIDE = {"init": {"config": {"model_type": "llama", "hidden_size": 64}, "tokenizer": {"mixture": "m"}}}
WORDS = {"init": {"config": {"model_type": "llama"}, "tokenizer": {"mixture": "m", "vocab_size": 999}}}


@pytest.mark.parametrize(
    ("first", "second", "training", "ensemble", "average"),
    [
        ({"path": "a/b"}, {"path": "a/b"}, {}, None, None),
        ({"path": "a/b"}, {"path": "a/b", "trust_remote_code": True}, {}, None, None),
        (NEW, WIDE, {}, None, "different base models (models.x and models.y)"),
        (NEW, WORDS, {}, "different base models, whose tokenizers", "different base models (models.x and models.y)"),
        (NEW, {"path": "a/b"}, {}, "different base models, whose tokenizers", "different base models"),
        ({"path": "a/b"}, {"path": "a/b", "revision": "v2"}, {}, "whose tokenizers may differ", "base models"),
        ({"path": "a/b"}, {"path": "a/b", "template": "plain"}, {}, *["different templates (models.x.template"] * 2),
        ({"path": "a/b"}, {"path": "a/b", "chat_template": "x"}, {}, *["templates (models.x.chat_template"] * 2),
        ({"path": "a/b"}, {"path": "a/b", "max_length": 64}, {}, *["different lengths (models.x.max_length"] * 2),
        (NEW, NEW, {"score": "mean"}, *["different heads (runs.first.training.score"] * 2),
        (NEW, NEW, {"normalize": True}, None, "different normalizations (runs.first.training.normalize"),
        (NEW, NEW, {"precision": "bf16", "zero_stage": 2}, None, "different number formats"),
        (NEW, NEW, {"learning_rate": 1.0}, None, None),
    ],
)
def test_members_that_do_not_fit_together_are_named_before_anything_is_trained(
    first: Json, second: Json, training: Json, ensemble: str | None, average: str | None
) -> None:
    for kind, expected in (("ensemble", ensemble), ("average", average)):
        wanted = yaml.safe_load(CONFIG)
        wanted["models"] = {"x": first, "y": second}
        wanted["runs"]["second"] |= {"model": "y", "training": training}
        wanted["runs"]["e"] = {kind: ["first", "second"]}
        if expected is None:
            resolve(wanted)
        else:
            with pytest.raises(ConfigError) as caught:
                resolve(wanted)
            (message,) = str(caught.value).splitlines()
            assert message.startswith(f"runs.e.{kind}: first-seed0 and second have") and expected in message


@pytest.mark.parametrize(
    ("weights", "changes", "expected"),
    [
        (
            "fit",
            {},
            "runs.e.average: q fits weights of attributes to the outputs of each model (runs.q.training.objective",
        ),
        (
            {"a": 1.0},
            {"mixture": "n"},
            "q and s have different units of attributes (runs.q.mixture and runs.s.mixture)",
        ),
        ({"a": 1.0}, {"fraction": 0.5}, "q and s have different units of attributes (runs.q.fraction and runs.s.fra"),
        ({"a": 1.0}, {"mixture": "c"}, None),  # whose rated answers are those of m
        ({"a": 1.0}, {"seeds": [1]}, None),
    ],
)
def test_an_average_of_models_with_attributes_has_their_units(
    weights: object, changes: Json, expected: str | None
) -> None:
    wanted = yaml.safe_load(CONFIG)
    wanted["datasets"]["rated"] = {"files": ["r.jsonl"], "ratings": ["a", "b"]}
    for name in "mn":
        wanted["mixtures"][name]["datasets"]["rated"] = 1.0
    wanted["audits"] = {"check": {"mixture": "m", "run": "q"}}
    wanted["mixtures"]["c"] = {"audit": "check"}
    objective = {"type": "regression", "attributes": ["a", "b"], "weights": weights}
    run = {"mixture": "m", "model": "x", "benchmarks": ["t"], "training": {"objective": objective}}
    wanted["runs"] = {"q": run, "s": {**run, **changes}, "e": {"average": ["q", "s"], "benchmarks": ["t"]}}
    if expected is None:
        resolve(wanted)
        return
    with pytest.raises(ConfigError) as caught:
        resolve(wanted)
    (message,) = str(caught.value).splitlines()
    assert expected in message
    wanted["runs"]["e"] = {"ensemble": ["q", "s"], "benchmarks": ["t"]}
    resolve(wanted)


def test_members_that_read_names_of_systems_otherwise_are_named() -> None:
    wanted = yaml.safe_load(CONFIG)
    wanted["datasets"]["o"] = {"files": ["o.jsonl"], "fields": {"system": "persona"}}
    wanted["mixtures"]["n"]["datasets"] = {"o": 1.0}
    for kind in ("ensemble", "average"):
        wanted["runs"]["e"] = {kind: ["second", "third"], "benchmarks": ["t"]}
        with pytest.raises(ConfigError, match=r"different readings of `system` \(`fields` of .* m and n\)"):
            resolve(wanted)


def test_local_folders_with_one_tokenizer_fit_together(tmp_path: Path) -> None:
    wanted = yaml.safe_load(CONFIG)
    for name in "xy":
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text("{}")
        wanted["models"][name] = {"path": str(tmp_path / name)}
    wanted["runs"]["second"]["model"] = "y"
    wanted["runs"]["e"] = {"ensemble": ["first", "second"]}
    resolve(wanted)
    (tmp_path / "y" / "tokenizer.json").write_text("[]")
    with pytest.raises(ConfigError, match="whose tokenizers may differ"):
        resolve(wanted)


def test_other_benchmarks_are_standardized_as_the_first(tmp_path: Path) -> None:
    members(tmp_path)
    settings = json.dumps({**SETTINGS, "ensemble": ["a", "c"], "combine": "worst", "variance_weight": 0.5})
    standards = {"a": {"mean": 0.25, "std": 2.0}, "c": {"mean": 3.0, "std": 0.5}}
    (tmp_path / "first.json").write_text(json.dumps({**JUDGED, "run": "e", "standards": standards}))
    options = ["--members", *(str(tmp_path / name) for name in "ac"), "--output", str(tmp_path / "e")]
    assert evaluate_ensemble.main(["--settings", settings, *options, "--first", str(tmp_path / "first.json")]) == 0
    found, a, c = (pd.read_parquet(tmp_path / name / "scores.parquet").set_index("pair_id") for name in "eac")
    expected = np.minimum((a.chosen_score - 0.25) / 2, (c.chosen_score.loc[a.index] - 3.0) / 0.5)
    assert found.chosen_score.to_numpy() == pytest.approx(expected.loc[found.index].to_numpy(), abs=1e-4)
    assert json.loads((tmp_path / "e" / "metrics.json").read_text())["standards"] == standards
