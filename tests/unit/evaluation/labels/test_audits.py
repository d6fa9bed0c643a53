"""Audits: probabilities of wrong labels against planted ones, and what the configuration says of them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from scipy.special import expit

import audit_labels
from rewardline.evaluation.labels.audit_result import AuditResult
from rewardline.evaluation.metrics.intervals import Floats
from rewardline.evaluation.metrics.labels import judge
from rewardline.workflow import settings as stages
from rewardline.workflow.config import AuditEntry, Config
from rewardline.workflow.resolve import ConfigError, resolve
from rewardline.workflow.runs import benchmarks_of_mixture, run_table, used_sources

from support.pairs import pair_rows, write_pairs
from support.score_tables import stored, table

Json = dict[str, Any]
MIN_AGREEMENT: float = AuditEntry.model_fields["min_agreement"].default


def audit(
    folder: Path, share: float, strength: float = 2.0, min_agreement: float = MIN_AGREEMENT
) -> tuple[Json, "np.typing.NDArray[np.float64]", "np.typing.NDArray[np.bool_]"]:
    """The audit of 2000 labels of which a share is flipped, by two models in different units; which are flipped."""
    rng = np.random.default_rng(0)
    rows = pair_rows(2000)
    write_pairs(folder / "pairs", rows, [])
    wrong: dict[str, bool] = {}
    paths = []
    for fold, own in enumerate((rows[:1000], rows[1000:])):
        scores = table(rng, len(own)).iloc[: len(own)].reset_index(drop=True)
        for name in ("pair_id", "prompt_id", "dataset", "subset"):
            scores[name] = [row[name] for row in own]
        flipped = rng.random(len(own)) < share
        margin = rng.normal(strength, 1.5, len(own)) * (10.0 if fold else 0.1)
        scores["chosen_score"], scores["rejected_score"] = np.where(flipped, -margin, margin), 0.0
        (folder / str(fold)).mkdir()
        stored(scores, folder / str(fold))
        paths.append(str(folder / str(fold) / "scores.parquet"))
        wrong.update(zip(scores["pair_id"], flipped, strict=True))
    settings = json.dumps({"audit": "a", "mixture": "m", "run": "r", "min_agreement": min_agreement})
    options = ["--scores", *paths, "--pairs", str(folder / "pairs"), "--output", str(folder / "out")]
    assert audit_labels.main(["--settings", settings, *options]) == 0
    labels = pq.read_table(folder / "out" / "labels.parquet")
    planted = np.array([wrong[pair] for pair in labels["pair_id"].to_pylist()])
    return json.loads((folder / "out" / "audit.json").read_text()), labels["probability"].to_numpy(), planted


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3])
def test_planted_flips_are_found_with_probabilities_that_hold(tmp_path: Path, share: float) -> None:
    result, probability, planted = audit(tmp_path, share)
    assert result["n"] == 2000 and result["folds"] == 2 and result["unscored"] == 0
    assert (np.diff(probability) <= 0).all(), "the most doubtful labels come first"
    assert abs(result["wrong"] / 2000 - share) < 0.06, "models that are wrong themselves count a little"
    found = probability > 0.5
    if share:
        assert planted[found].mean() > 0.75 and planted[~found].mean() < share / 2
        assert probability[found].mean() == pytest.approx(planted[found].mean(), abs=0.15)
    else:
        assert found.mean() < 0.05
    texts = pq.read_table(tmp_path / "out" / "suspects.parquet").to_pylist()
    assert len(texts) <= 200 and all(row["chosen"] and row["prompt"] for row in texts)
    assert not result["unjudged"] and result["wrong_low"] <= result["wrong"]
    assert result["agreement_low"] < result["agreement"] < result["agreement_high"]


def test_weak_models_judge_no_label_and_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, probability, _ = audit(tmp_path, 0.0, strength=0.3)
    assert np.isnan(probability).all() and result["wrong"] is result["wrong_low"] is None
    assert result["unjudged"].startswith(f"the models agree with {result['agreement']:.1%} of the labels (95% interval")
    assert "no label is judged, and mixtures of this audit keep all: the models agree with" in capsys.readouterr().err


def test_models_that_are_known_to_be_good_judge_where_many_labels_are_wrong(tmp_path: Path) -> None:
    result, probability, _ = audit(tmp_path, 0.4)
    assert np.isnan(probability).all() and "not clearly more than 64%" in result["unjudged"]
    (tmp_path / "lower").mkdir()
    result, probability, planted = audit(tmp_path / "lower", 0.4, min_agreement=0.5)
    assert not result["unjudged"] and abs(result["wrong"] / 2000 - 0.4) < 0.06
    assert planted[probability > 0.5].mean() > 0.75
    margins = pq.read_table(tmp_path / "out" / "labels.parquet")["margin"].to_numpy()
    assert (np.diff(margins) >= 0).all(), "the most contradicted labels come first"
    assert not pq.read_table(tmp_path / "out" / "suspects.parquet").num_rows


def test_many_wrong_labels_may_be_mistakes_of_weak_models(tmp_path: Path) -> None:
    audit(tmp_path, 0.3)
    line = AuditResult.read(tmp_path / "out" / "audit.json").line()
    assert re.search(
        r"are contradicted by the models; the models agree with 6\d\.\d% of the labels: if they are weak", line
    )


def good(rng: np.random.Generator, pairs: int) -> Floats:
    """Margins of a model that is right as often as it is sure (Bradley and Terry 1952), here about 92% of all pairs."""
    sizes = np.abs(rng.normal(0, 7, pairs))
    return np.where(rng.random(pairs) < expit(sizes), sizes, -sizes)


def weak(rng: np.random.Generator, noise: Floats) -> Floats:
    """Margins of a model that sees by how much an answer is better under noise."""
    better = rng.normal(size=len(noise))
    return np.sign(better) * (better + noise)


PAIRS = 5_000


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [2, 4, 8, 1e9])
@pytest.mark.parametrize("noise", [np.random.Generator.standard_normal, lambda r, n: r.standard_t(3, n)])
def test_weak_models_do_no_harm(noise: Callable[[np.random.Generator, int], Floats], scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    margins = weak(rng, scale * noise(rng, PAIRS))
    doubted = judge(margins / np.sqrt((margins**2).mean()), np.arange(PAIRS), MIN_AGREEMENT).probability > 0.5
    assert doubted.mean() < 0.001


def test_no_label_is_judged_if_the_surest_margins_are_the_least_reliable() -> None:
    rng = np.random.default_rng(0)
    margins = weak(rng, 1.5 * rng.standard_t(3, 40_000))
    judgement = judge(margins / np.sqrt((margins**2).mean()), np.arange(40_000), MIN_AGREEMENT)
    assert judgement.agreement_low > MIN_AGREEMENT and "the surer they are" in judgement.unjudged


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("share", "recall"), [(0.0, 0.0), (0.05, 0.4), (0.1, 0.5), (0.2, 0.65), (0.3, 0.7)])
def test_good_models_find_planted_flips(share: float, recall: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    flipped, margins = rng.random(PAIRS) < share, good(rng, PAIRS)
    margins = np.where(flipped, -margins, margins)
    judgement = judge(margins / np.sqrt((margins**2).mean()), np.arange(PAIRS), MIN_AGREEMENT)
    assert not judgement.unjudged and judgement.share_low <= judgement.share
    assert judgement.share == pytest.approx(share, abs=0.02) and judgement.share_low < share + 0.01
    for least, precision in ((0.5, 0.8), (0.9, 0.95)):
        doubted = judgement.probability > least
        assert doubted.mean() < 0.001 if not share else flipped[doubted].mean() > precision
    assert not share or (judgement.probability[flipped] > 0.5).mean() > recall


RATED = {"format": "rated"}
CONFIG = """
datasets: {d: {demo: {}}, other: {demo: {seed: 2}}}
mixtures:
  m: {datasets: {d: 1.0}, seed: 7, fractions: [0.5, 1]}
  o: {datasets: {other: 1.0}}
  c: {audit: a, below: 0.1}
models: {x: {path: some/model}}
benchmarks: {t: {demo: {seed: 3}}, p: {probes: {mixture: m}}}
audits: {a: {mixture: m, run: r, folds: 3}}
runs:
  r: {mixture: o, model: x, seeds: [5, 6], training: {normalize: true, learning_rate: 1.0e-3, keep_best: true}}
  s: {mixture: c, model: x, benchmarks: [t, p]}
"""


def config(**changes: Any) -> Config:
    wanted = yaml.safe_load(CONFIG)
    for key, value in changes.items():
        section, name = key.split("_")
        wanted[section][name] = {**wanted[section].get(name, {}), **value}
    return resolve(wanted)


def test_folds_are_ordinary_runs_with_the_settings_of_the_run() -> None:
    found = config()
    table = {run.run_id: run for run in run_table(found)}
    folds = [f"a-fold{number}" for number in range(3)]
    assert set(table) == {*folds, "r-seed5", "r-seed6", "s"}
    training = stages.train_settings(found, table["a-fold1"])
    assert (training.mixture, training.seed, training.training.learning_rate) == ("a-fold1", 5, 1e-3)
    assert not training.training.keep_best and not training.training.normalize, "nothing is chosen by what is judged"
    assert stages.fold_settings(found, "a-fold2").as_json() == {"audit": "a", "number": 2, "folds": 3}
    assert {run.run_id for run in run_table(found, {"s"})} == {"s", *folds}, "they are made for what needs them"
    for made in (
        {"runs_g": {"mixture": "c", "model": "x", "grid": {"training.learning_rate": [1e-3, 2e-3]}}},
        {"runs_g": {"average": ["s", "h"]}, "runs_h": {"mixture": "c", "model": "x"}},
        {"models_y": {"init": {"config": {"model_type": "opt"}, "tokenizer": {"mixture": "c", "vocab_size": 300}}},
         "runs_g": {"mixture": "o", "model": "y"}},
    ):  # fmt: skip
        assert set(folds) < {run.run_id for run in run_table(config(**made), {"g"})}
    assert not set(folds) & {
        run.run_id for run in run_table(config(audits_b={"mixture": "m", "run": "s"}), {"nothing"})
    }


def test_folds_are_trained_on_the_fraction_of_the_run() -> None:
    found = config(runs_r={"fraction": 0.5})
    folds = [run for run in run_table(found) if run.name in found.folds]
    assert {stages.train_settings(found, run).fraction for run in folds} == {0.5} and len(folds) == 3


def test_a_cleaned_mixture_has_all_else_of_the_audited_one() -> None:
    found = config()
    cleaned, audited = found.mixtures["c"], found.mixtures["m"]
    assert (cleaned.seed, cleaned.datasets, cleaned.fractions) == (7, audited.datasets, [])
    assert stages.relabel_settings(found, "c").as_json() == {"audit": "a", "action": "drop", "below": 0.1}
    assert benchmarks_of_mixture(found, "m") == ["t"], "prompts of its benchmarks leave the pairs it is made of"
    assert used_sources(found, run_table(found, {"s"})) == ["d", "t"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audits_a": {"mixture": "n"}}, "audits.a.mixture: 'n' is not defined"),
        ({"audits_a": {"run": "q"}}, "audits.a.run: 'q' is not defined"),
        ({"audits_a": {"run": "e"}, "runs_e": {"ensemble": ["r"]}}, "audits.a.run: 'e' is not a training run"),
        (
            {"audits_a": {"run": "g"}, "runs_g": {"mixture": "m", "model": "x"}},
            "audits.a.run: 'g' is a sweep over the fractions of its mixture; name a run with a single `fraction`",
        ),
        (
            {
                "audits_a": {"run": "g"},
                "runs_g": {"mixture": "o", "model": "x", "grid": {"training.learning_rate": [1e-3, 1e-4]}},
            },
            "audits.a.run: 'g' is a sweep, whose cells differ in their settings; name a run without `grid`",
        ),
        (
            {
                "audits_a": {"run": "g-lr=0.001"},
                "runs_g": {"mixture": "o", "model": "x", "grid": {"training.learning_rate": [1e-3, 1e-4]}},
            },
            "audits.a.run: 'g-lr=0.001' is a cell of the sweep g; name a run of its own",
        ),
        ({"audits_a": {"mixture": None}}, "audits.a: mixture is missing"),
        ({"audits_a": {"mixture": ["m"]}}, "audits.a.mixture: ['m'] is not allowed; expected a text"),
        ({"mixtures_m": {"below": 0.1}}, "mixtures.m.below: has an effect with `audit` only"),
        ({"mixtures_m": {"action": "flip"}}, "mixtures.m.action: has an effect with `audit` only"),
        ({"mixtures_c": {"action": "drop", "below": 0.6}}, "mixtures.c.below: 0.6 would drop labels"),
        (
            {"runs_r": {"training": {"precision": "bf16"}}},
            "runs.r.training.zero_stage: 0 is not allowed with precision bf16",
        ),
        (
            {"mixtures_m": {"datasets": {"d": 1.0, "rated": 1.0}}, "datasets_rated": {"files": ["r.jsonl"], **RATED}},
            "audits.a.run: r cannot be trained on m: rated in mixture m has single answers with ratings, which only",
        ),
        (
            {
                "mixtures_o": {"datasets": {"other": 1.0, "rated": 1.0}},
                "datasets_rated": {"files": ["r.jsonl"], **RATED},
                "runs_r": {"training": {"objective": {"type": "binary"}}},
            },
            "audits.a.run: r cannot be trained on m: mixture m has no single answers with ratings",
        ),
        ({"audits_a": {"folds": 1}}, "audits.a.folds: 1 is not allowed"),
        ({"audits_a": {"run": "s"}}, "audits.a.run: s is trained on c, which this audit makes"),
        ({"audits_b": {"mixture": "c", "run": "r"}}, "audits.b.mixture: c is made of another mixture"),
        ({"mixtures_e": {"audit": "aa"}}, "mixtures.e.audit: 'aa' is not defined; did you mean a?"),
        ({"mixtures_c": {"datasets": {"d": 1.0}}}, "mixtures.c.datasets: the mixture has this of m"),
        ({"mixtures_c": {"action": "flip", "below": 0.9}}, "mixtures.c.below: 0.9 would flip labels"),
        ({"mixtures_c": {"action": "remove"}}, "expected one of drop, flip, soften"),
        ({"mixtures_a-fold1": {"datasets": {"d": 1.0}}}, "audits.a: the name of its fold a-fold1 is taken"),
        (
            {
                "models_x": {"path": "results/models/f"},
                "runs_f": {"mixture": "o2", "model": "x"},
                "mixtures_o2": {"datasets": {"d": 0.5}},
            },
            "trained on o2 already",
        ),
    ],
)
def test_mistakes_in_audits_are_named_before_anything_is_trained(changes: Json, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**changes)
    assert message in str(caught.value)
    about = [line for line in str(caught.value).splitlines() if "audits." in line or "fold" in line or "below" in line]
    assert len(about) <= 1, "no fold repeats it"


def test_the_run_of_an_audit_may_have_evaluation_sets_and_soften_at_any_probability() -> None:
    found = config(
        runs_r={"benchmarks": ["t"], "training": {"eval_sets": {"t": 10, "eval": 9}}},
        mixtures_c={"action": "soften", "below": 0.9},
    )
    (fold, *_) = [run for run in run_table(found) if run.name == "a-fold0"]
    assert stages.train_settings(found, fold).training.eval_sets == {}


KNOWN = {"mixtures_m": {"datasets": {"f": 1.0}}, "models_x": {"path": "results/models/g"}}


@pytest.mark.parametrize(
    ("audited", "trained", "known"),
    [
        ({"files": ["a.jsonl"]}, {"files": ["./b.jsonl", "deep/../a.jsonl"]}, True),
        ({"files": ["a.jsonl"]}, {"files": ["[ab].jsonl"]}, True),
        ({"files": ["a.jsonl"]}, {"files": ["b.jsonl"]}, False),
        ({"files": ["https://x.org/a.jsonl"]}, {"files": ["https://x.org/a.jsonl"]}, True),
        ({"hub": "o/n", "revision": "a" * 40}, {"hub": "o/n", "revision": "b" * 40}, True),
        ({"hub": "o/n", "revision": "a" * 40}, {"hub": "o/n", "revision": "a" * 40, "split": "test"}, False),
        ({"demo": {"seed": 5}}, {"demo": {"seed": 5, "pairs": 9}}, True),
        ({"demo": {"seed": 5}}, {"demo": {"seed": 6}}, False),
        ({"demo": {"seed": 5}, "share": [0, 0.5]}, {"demo": {"seed": 5}, "share": [0.5, 1]}, False),
        ({"demo": {"seed": 5}}, {"files": ["a.jsonl"]}, False),
    ],
)
def test_a_model_that_was_trained_on_the_same_data_by_another_name_judges_no_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, audited: Json, trained: Json, known: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    for name in "ab":
        (tmp_path / f"{name}.jsonl").touch()
    first: Json = {"mixture": "other-name", "model": "base"}
    changes: Json = {"datasets_f": audited, "datasets_g": trained, "mixtures_other-name": {"datasets": {"g": 1.0}}}
    changes |= {**KNOWN, "models_base": {"path": "some/base"}, "runs_g": first}
    if not known:
        config(**changes)
        return
    with pytest.raises(ConfigError, match="starts from a model that was trained on other-name already"):
        config(**changes)
    # The same of a model whose base is that model.
    changes |= {"models_x": {"path": "results/models/h"}, "models_y": {"path": "results/models/g"}}
    with pytest.raises(ConfigError, match="trained on other-name already"):
        config(**changes, runs_h={"mixture": "o", "model": "y"})


def test_a_model_that_knows_the_labels_does_not_judge_them(tmp_path: Path) -> None:
    model = tmp_path / "models" / "before"
    tokens = tmp_path / "tokens" / "m" / "x"
    for folder in (model, tokens):
        folder.mkdir(parents=True)
    splits = {"train": {"shards": [{"file": "train-00000.arrow", "comparisons": 9, "sha256": "abc"}]}}
    (tokens / "manifest.json").write_text(json.dumps({"splits": splits}))
    for facts, expected in (
        ({"mixture": "m"}, "trained on m already"),
        ({"mixture": "o+m"}, "trained on m already"),
        ({"mixture": "a-fold1"}, "trained on a-fold1 already"),
        ({"mixture": "elsewhere", "data": splits}, "trained on elsewhere already"),
        ({"mixture": "elsewhere"}, None),
    ):
        (model / "run.json").write_text(json.dumps(facts))
        if expected is None:
            config(models_x={"path": str(model)})
        else:
            with pytest.raises(ConfigError, match=expected):
                config(models_x={"path": str(model)})
