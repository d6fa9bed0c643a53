import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rewardline.workflow.config_checks import check_start
from rewardline.workflow.resolve import ConfigError, resolve
from rewardline.workflow.runs import reserved_benchmarks, run_table, scoring_table
from rewardline.workflow.settings import collect_settings

from support.paths import ROOT


def base() -> Any:
    return {
        "datasets": {"d": {"files": ["a.jsonl"]}},
        "mixtures": {"m": {"datasets": {"d": 1.0}}},
        "models": {"x": {"path": "owner/name"}},
        "runs": {"r": {"mixture": "m", "model": "x", "training": {}}},
    }


def test_defaults_are_filled_at_every_level() -> None:
    result = resolve(base())
    assert result.benchmarks == {}
    assert result.mixtures["m"].eval_fraction == 0.05
    assert result.runs["r"].seeds == [0]
    assert result.runs["r"].training.schedule == "cosine"


def test_default_configuration_is_valid() -> None:
    loaded = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    assert [run.run_id for run in run_table(resolve(loaded))] == ["demo-seed0", "demo-seed1"]


def test_number_that_yaml_reads_as_text_is_a_number() -> None:
    text = yaml.safe_load("learning_rate: 5e-5")
    assert isinstance(text["learning_rate"], str)
    cfg = base()
    cfg["runs"]["r"]["training"] = text
    assert resolve(cfg).runs["r"].training.learning_rate == 5e-5
    cfg["runs"]["r"]["training"] = {"dropout": "1e-1", "pairs_per_step": 8.0, "max_steps": "10"}
    training = resolve(cfg).runs["r"].training
    assert (training.dropout, training.pairs_per_step, training.max_steps) == (0.1, 8, 10)
    assert isinstance(training.pairs_per_step, int)


def test_name_that_yaml_reads_as_a_number_is_a_name() -> None:
    cfg = base()
    cfg["runs"] = {3: {"mixture": "m", "model": "x"}}
    assert [run.run_id for run in run_table(resolve(cfg))] == ["3"]


REGRESSION = {"type": "regression", "attributes": ["a"]}
FIT = "expected fit, or a mapping, `key: value`"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("runs.r.training.learnin_rate", 1e-4, ["runs.r.training.learnin_rate", "unknown key", "learning_rate"]),
        ("runs.r.training.schedule", "cosin", ["runs.r.training.schedule", "'cosin'", "linear", "cosine"]),
        ("runs.r.training.learning_rate", -1, ["runs.r.training.learning_rate", "-1", "greater than 0"]),
        ("runs.r.training.learning_rate", "fast", ["runs.r.training.learning_rate", "'fast'", "number"]),
        ("runs.r.mixture", "n", ["runs.r.mixture", "'n'", "not defined"]),
        ("runs.r.model", "xx", ["runs.r.model", "'xx'", "x"]),
        ("runs.r.benchmarks", ["b"], ["runs.r.benchmarks", "'b'", "not defined"]),
        ("mixtures.m.datasets", {"dd": 1.0}, ["mixtures.m.datasets", "'dd'", "d"]),
        ("mixtures.m.eval_fraction", 1.5, ["mixtures.m.eval_fraction", "1.5", "less than 1"]),
        ("datasets.d.hub", "a/b", ["datasets.d", "exactly one of"]),
        ("datasets.d.share", [0.5, 0.2], ["datasets.d.share", "from below to"]),
        ("models.x.max_lenght", 5, ["models.x.max_lenght", "max_length"]),
        ("models.x.path", None, ["models.x", "path"]),
        ("trainings", {}, ["trainings", "unknown key"]),
        ("benchmarks", {"d": {"files": ["a.jsonl"]}}, ["benchmarks.d", "taken"]),
        ("benchmarks", {"eval": {"files": ["a.jsonl"]}}, ["benchmarks.eval", "taken"]),
        ("runs.r.training.precision", "bf16", ["zero_stage", "bf16", "1, 2 or 3"]),
        ("runs.r.training.precision", "fp16", ["zero_stage", "fp16", "1, 2 or 3"]),
        (
            "runs.r.training",
            {"precision": "bf16", "zero_stage": 1, "deepspeed": {"data_types": {"grad_accum_dtype": "fp32"}}},
            ["deepspeed.data_types", "zero_stage 2 or 3"],
        ),
        ("runs.r.training", {"keep_best": True, "eval_every": 0}, ["runs.r.training.keep_best", "eval_every"]),
        ("runs.r.training", {"keep_best": "rb2"}, ["runs.r.training.keep_best", "'rb2'", "not defined"]),
        ("runs.r.training", {"keep_best": 1}, ["runs.r.training.keep_best", "true, false or the name"]),
        ("runs.r.training", {"early_stopping": {"eval_set": "evil"}}, ["early_stopping", "did you mean eval?"]),
        ("runs.r.training", {"eval_sets": {"eval": 9}, "eval_every": 0}, ["training.eval_sets", "eval_every above 0"]),
        ("runs.r.training.eval_sets", ["rb2"], ["runs.r.training.eval_sets", "'rb2'", "not defined"]),
        ("runs.r.training.eval_sets", {"eval": 0}, ["runs.r.training.eval_sets.eval", "or equal to 1"]),
        (
            "runs.r.training",
            {"early_stopping": {"patience": 0}},
            ["early_stopping.patience", "or equal to 1"],
        ),
        ("runs.r.training.loggers", ["tensorbord"], ["loggers.tensorbord", "did you mean tensorboard?"]),
        ("runs.r.training.loggers", ["wandb", "wandb"], ["runs.r.training.loggers", "without repetitions"]),
        ("runs.r.training.loggers", {"wandb": {"projekt": "x"}}, ["loggers.wandb.projekt", "did you mean project?"]),
        ("runs.r.training.loggers", {"wandb": "x"}, ["runs.r.training.loggers.wandb", "'x'"]),
        ("runs.r.training.loggers", "wandb", ["runs.r.training.loggers", "'wandb'"]),
        ("runs.r.training.offload", "optimizer", ["offload", "zero_stage"]),
        ("runs.r.training.state_precision", "bf16", ["state_precision", "needs precision bf16"]),
        ("runs.r.training.compile", "yes", ["runs.r.training.compile", "'yes'", "auto"]),
        ("runs.r.training", {"compile": True, "zero_stage": 3}, ["runs.r.training.compile", "ZeRO-3", "auto or false"]),
        ("runs.r.training.gradient_checkpointing", "some", ["gradient_checkpointing", "'some'", "selective"]),
        ("runs.r.training.zero_stage", 7, ["runs.r.training.zero_stage", "7", "one of 0, 1, 2, 3"]),
        ("runs.r.training.score", "last", ["runs.r.training.score", "'last'", "first_padding"]),
        ("runs.r.training.normalize", "folded", ["runs.r.training.normalize", "fold"]),
        ("runs.r.training.normalize", "x", ["normalize: 'x' is not allowed; expected one of false, true, fold\n"]),
        ("runs.r.training.objective", {**REGRESSION, "weights": "fitted"}, ["objective.weights: 'fitted' is not", FIT]),
        ("runs.r.training.objective", {**REGRESSION, "weights": [1]}, ["objective.weights: [1] is not allowed", FIT]),
        ("runs.r.training.objective", {**REGRESSION, "weights": {"a": "x"}}, ["weights.a: 'x' is not", "number"]),
        ("evaluation", {"shards": "many"}, ["evaluation.shards: 'many' is not allowed", "or a mapping"]),
        ("evaluation", {"shards": {"eval": 0}}, ["evaluation.shards.eval: 0 is not allowed"]),
        (
            "datasets.d",
            {"files": ["a"], "fields": {"strength": "s"}, "format": "pairs"},
            ["strength with", "not pairs"],
        ),
        ("datasets.d.scale", [1, 5], ["datasets.d.scale: has an effect on ratings of single answers only"]),
        ("datasets.d", {"files": ["a"], "ratings": ["a"], "format": "pairs"}, ["datasets.d.ratings: are of single"]),
        ("runs.r.seeds", [1, 1], ["runs.r.seeds", "repetition"]),
        ("runs.r.seeds", [2**64], ["runs.r.seeds.0", "less than"]),
        ("runs.r.fail_below", {"evil": 0.9}, ["runs.r.fail_below", "'evil'", "did you mean eval?"]),
        ("runs.r.fail_below", {"eval": 90}, ["runs.r.fail_below.eval", "90", "less than or equal to 1"]),
        ("runs.r", {"mixture": "m"}, ["runs.r", "model", "missing"]),
        ("runs", {}, ["runs", "nothing to run"]),
        ("mixtures.m.eval_fraction", 0, ["runs.r", "nothing to evaluate it on"]),
        ("runs.r.training.deepspeed", {"bf16": {"enabled": True}}, ["deepspeed.bf16.enabled", "training.precision"]),
        ("runs.r.training.deepspeed", {"train_batch_size": 4}, ["train_batch_size", "training.pairs_per_step"]),
        ("runs.r.training.learning_rate", float("nan"), ["runs.r.training.learning_rate", "nan"]),
        ("runs.r.training.epochs", float("inf"), ["runs.r.training.epochs", "inf"]),
        ("runs.r.training.pairs_per_step", 8.5, ["runs.r.training.pairs_per_step", "8.5", "integer"]),
    ],
)
def test_mistake_is_named_with_key_value_and_what_is_allowed(path: str, value: object, expected: list[str]) -> None:
    cfg = base()
    *parents, last = path.split(".")
    place = cfg
    for part in parents:
        place = place[part]
    place[last] = value
    with pytest.raises(ConfigError) as error:
        resolve(cfg)
    for part in expected:
        assert part in f"{error.value}\n"
    assert not any(word in str(error.value) for word in ("function-", "[key]", "[value]", "[entries]", "literal["))


def test_scores_cannot_be_normalized_without_an_eval_split() -> None:
    cfg = base()
    cfg["benchmarks"] = {"b": {"files": ["b.jsonl"]}}
    cfg["mixtures"]["m"]["eval_fraction"] = 0
    cfg["runs"]["r"] |= {"benchmarks": ["b"], "training": {"normalize": True}}
    with pytest.raises(ConfigError, match=r"runs\.r\.training\.normalize: needs an eval split"):
        resolve(cfg)


def test_all_mistakes_are_reported_together() -> None:
    cfg = base()
    cfg["runs"]["r"]["training"] = {"epoch": 2, "schedule": "x"}
    with pytest.raises(ConfigError) as error:
        resolve(cfg)
    assert len(str(error.value).splitlines()) == 2


def test_entry_set_to_null_is_left_out() -> None:
    cfg = base()
    cfg["runs"]["demo"] = None
    assert set(resolve(cfg).runs) == {"r"}


def test_seeds_give_run_ids() -> None:
    cfg = base()
    cfg["runs"]["r"]["seeds"] = [3, 5]
    assert [run.run_id for run in run_table(resolve(cfg))] == ["r-seed3", "r-seed5"]
    cfg["runs"]["r"]["seeds"] = [3]
    assert [run.run_id for run in run_table(resolve(cfg))] == ["r"]


def test_two_runs_cannot_share_a_run_id() -> None:
    cfg = base()
    cfg["runs"]["r"]["seeds"] = [0, 1]
    cfg["runs"]["r-seed0"] = {"mixture": "m", "model": "x"}
    with pytest.raises(ConfigError, match="run id r-seed0"):
        resolve(cfg)


def start(cfg: Any, gpus: int | None = 0) -> list[str]:
    config = resolve(cfg)
    return check_start(config, run_table(config), gpus)


def test_what_fails_later_is_said_before_any_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewardline.workflow.config_checks.find_spec", {"tensorboard": True}.get)
    cfg = base()
    assert start(cfg) == []
    cfg["runs"]["r"]["training"] = {"loggers": ["tensorboard", "wandb"], "precision": "fp16", "zero_stage": 1}
    cfg["runs"]["r"]["training"]["attention"] = "flex"
    missing, precision, attention = start(cfg)
    assert missing == "runs.r.training.loggers: wandb is not installed; run: pip install wandb"
    assert precision.startswith("runs.r.training.precision: fp16 needs a GPU") and "flex needs a GPU" in attention
    assert len(start(cfg, gpus=1)) == 1
    assert start(cfg, gpus=None) == []  # jobs run elsewhere
    cfg["audits"] = {"a": {"mixture": "m", "run": "r"}}
    cfg["runs"]["other"] = {"mixture": "m", "model": "x", "training": {"precision": "fp32"}}
    repeated = "the folds of an audit repeat nothing of its run"
    assert sorted(start(cfg)) == sorted([missing, precision, attention]), repeated


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        ({"model_type": "llama", "max_position_embeddings": 64}, 64),
        ({"model_type": "gpt2", "n_positions": 64}, 64),
        ({"model_type": "roberta", "max_position_embeddings": 66, "pad_token_id": 1}, 64),
        ({"model_type": "llama"}, None),
    ],
)
def test_a_length_beyond_the_positions_is_said_before_any_job(
    tmp_path: Path, config: dict[str, Any], positions: int | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokenizer = {"mixture": "m"}
    for source in ({"path": str(tmp_path)}, {"init": {"config": config, "tokenizer": tokenizer}}):
        cfg = base()
        for length in (positions or 99, (positions or 99) + 1):
            cfg["models"]["x"] = {**source, "max_length": length}
            problems = start(cfg)
            assert bool(problems) == (positions is not None and length > positions)
            assert all(f"models.x.max_length: {length} is beyond the {positions} positions" in one for one in problems)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"hidden_size": 30, "num_attention_heads": 4}, "hidden_size, 30, to be a multiple of num_attention_heads, 4"),
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, "to be a multiple of num_key_value_heads, 3"),
        ({"hidden_size": 30, "num_attention_heads": 4, "head_dim": 16}, ""),
        ({"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}, ""),
    ],
)
def test_heads_that_do_not_fit_are_said_before_any_job(sizes: dict[str, int], expected: str) -> None:
    cfg = base()
    cfg["models"]["x"] = {"init": {"config": {"model_type": "llama", **sizes}, "tokenizer": {"mixture": "m"}}}
    if expected:
        with pytest.raises(ConfigError, match=expected):
            resolve(cfg)
    else:
        resolve(cfg)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (
            {"scoring": {"c": {"files": ["c.jsonl"], "run": "s"}}},
            "scoring.c.run: 's' has several seeds; name one of s-seed0",
        ),
        ({"scoring": {"c": {"files": ["c.jsonl"], "run": "x"}}}, "scoring.c.run: 'x' is not defined"),
        ({"scoring": {"c": {"files": ["c.jsonl"], "run": "e"}}}, "scoring.c.run: 'e' is an ensemble"),
        ({"scoring": {"d": {"files": ["c.jsonl"], "run": "r"}}}, "scoring.d: the name is taken"),
        ({"scoring": {"c": {"run": "r"}}}, "scoring.c: has no source; expected exactly one of hub, files"),
        ({"scoring": {"c": {"hub": "a/b", "run": "r"}}}, "scoring.c: a hub dataset needs `revision`"),
        ({"scoring": {"c": {"files": ["c.jsonl"], "run": "r", "shard": 2}}}, "scoring.c.shard: unknown key"),
        ({"scoring": {"c": {"files": ["c.jsonl"], "run": "r", "shards": 0}}}, "scoring.c.shards: 0 is not allowed"),
        (
            {"scoring": {"c": {"files": ["c.jsonl"], "run": "r", "pairs": {"pairing": "best"}}}},
            "expected one of best_worst",
        ),
        ({"evaluation": {"shards": 0}}, "evaluation.shards"),
        ({"evaluation": {"shards": {"evals": 2}}}, "evaluation.shards: 'evals' is not defined"),
    ],
)
def test_mistakes_in_what_is_scored_are_named(section: dict[str, Any], expected: str) -> None:
    config = {**base(), **section}
    config["runs"] |= {"s": {**config["runs"]["r"], "seeds": [0, 1]}, "e": {"ensemble": ["s"]}}
    with pytest.raises(ConfigError) as error:
        resolve(config)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"select": {"from": ["s"], "as": "best"}}, "select.best.by: m has rated single answers only, and no pairs"),
        ({"select": {"from": ["s"], "by": "t", "as": "best"}}, "select.best.by: t has rated single answers only"),
        ({"audits": {"a": {"mixture": "m", "run": "r"}}}, "audits.a.mixture: m has rated single answers only"),
        ({"benchmarks": {"p": {"probes": {"mixture": "m"}}}}, "benchmarks.p.probes.mixture: m has rated"),
        ({"mixtures": {"n": {"augment": "m", "other_prompts": 0.1}}}, "mixtures.n.augment: n has rated single"),
        ({"runs": {"f": {"fail_below": {"eval": 0.6}}}}, "runs.f.fail_below: m has rated single answers only"),
        ({"runs": {"f": {"fail_below": {"t": 0.6}}}}, "runs.f.fail_below: t has rated single answers only"),
        (
            {"runs": {"f": {"training": {"objective": {"type": "binary"}, "length_control": True}}}},
            "runs.f.training.length_control: m has rated single answers only, and no pairs for it to have an effect on",
        ),
        (
            {"runs": {"f": {"training": {"objective": {"type": "binary", "pair_weight": 0}, "margin": "scale"}}}},
            "runs.f.training.margin: m has rated",
        ),
        (
            {"runs": {"f": {"grid": {"training.learning_rate": [1e-4, 1e-5, 1e-6], "halving": {"min_steps": 9}}}}},
            "runs.f.grid.halving: m has rated single answers only",
        ),
        ({"select": {"from": ["s"], "by": "u", "as": "best"}}, ""),
    ],
)
def test_nothing_is_judged_by_an_accuracy_where_there_are_no_pairs(section: dict[str, Any], expected: str) -> None:
    config = base()
    config["datasets"]["d"] = {"files": ["d.jsonl"], "format": "rated"}
    config["benchmarks"] = {"t": {"files": ["t.jsonl"], "ratings": ["quality"]}, "u": {"files": ["u.jsonl"]}}
    config["runs"]["r"] |= {"benchmarks": ["t", "u"], "training": {"objective": {"type": "binary"}}}
    config["runs"]["s"] = {**config["runs"]["r"], "seeds": [0, 1]}
    for name, entries in section.items():
        if name == "runs":
            entries = {"f": {**config["runs"]["r"], **entries["f"]}}
        config[name] = entries if name == "select" else {**config.get(name, {}), **entries}
    try:
        resolve(config)
    except ConfigError as error:
        assert expected and expected in str(error)
    else:
        assert not expected


def test_what_scores_may_be_a_run_a_run_id_or_a_choice() -> None:
    config = base()
    config["runs"]["s"] = {**config["runs"]["r"], "seeds": [0, 1]}
    config["select"] = {"from": ["s"], "as": "best"}
    config["scoring"] = {name: {"files": ["c.jsonl"], "run": name} for name in ("r", "s-seed1", "best")}
    resolved = resolve(config)
    assert {name: job.trained.run_id for name, job in scoring_table(resolved).items()} == {
        **{"r": "r", "s-seed1": "s-seed1", "best": "s-seed0"}
    }
    assert scoring_table(resolved, {"r"}).keys() == {"r"}
    config["evaluation"] = {"shards": {"eval": 3}}
    assert resolve(config).evaluation.shards_of("eval") == 3


def test_pairs_of_scores_know_all_that_their_model_is_judged_by() -> None:
    config = base()
    config["mixtures"]["n"] = {**config["mixtures"]["m"], "seed": 2}
    config["benchmarks"] = {name: {"files": [f"{name}.jsonl"]} for name in "abc"}
    config["runs"]["r"]["benchmarks"] = ["a"]
    config["runs"]["s"] = {**config["runs"]["r"], "mixture": "n"}
    config["runs"]["mean"] = {"average": ["r", "s"], "benchmarks": ["b"]}
    config["select"] = {"from": ["r", "s"], "by": "a", "as": "best"}
    config["scoring"] = {name: {"files": ["c.jsonl"], "run": name, "pairs": {}} for name in ("mean", "best", "s")}
    resolved = resolve(config)
    table = scoring_table(resolved)
    assert {name: job.mixtures for name, job in table.items()} == {"mean": ("m", "n"), "best": ("m", "n"), "s": ("n",)}
    assert {tuple(reserved_benchmarks(resolved, name)) for name in table} == {("a", "b")}
    assert collect_settings(resolved, table["mean"]).near_duplicates == resolved.mixtures["m"].near_duplicates
