"""docs/reruns.md says which change runs which stages again; each row of its table is proved here by dry-runs."""

import copy
import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from support.paths import ROOT
from support.project import Project, small

Json = dict[str, Any]
STAGES = {
    "fetch_file": "fetch_file.py",
    "download_file": "download_file.py",
    "download": "download.py",
    "generate_demo": "generate_demo.py",
    "index_joins": "index_joins.py",
    "convert_rows": "convert_rows.py",
    "group_prompts": "group_prompts.py",
    "clean_pairs": "clean_pairs.py",
    "build_pairs": "build_pairs.py",
    "build_probes": "build_probes.py",
    "split_fold": "split_fold.py",
    "relabel_pairs": "relabel_pairs.py",
    "augment_pairs": "augment_pairs.py",
    "base_model": "base_model.py",
    "tokenize_pairs": "tokenize_pairs.py",
    "tokenize": "join_tokens.py",
    "train_rung": "train.py",
    "halve": "halve.py",
    "train": "train.py",
    "score_benchmark": "score_benchmark.py",
    "evaluate": "evaluate.py",
    "evaluate_ensemble": "evaluate_ensemble.py",
    "audit_labels": "audit_labels.py",
    "export_ensemble": "export_ensemble.py",
    "average_weights": "average_weights.py",
    "score_rows": "score_rows.py",
    "collect_scores": "collect_scores.py",
    "choose_pairs": "choose_pairs.py",
    "compare": "compare.py",
    "summarize": "summarize.py",
    "select_model": "select_model.py",
    "evaluation_card": "evaluation_card.py",
    "track": "track.py",
    "plot": "plot.py",
    "gate": "gate.py",
}
AFTER = {
    "fetch_file": {"download_file"},
    "download_file": {"download", "convert_rows"},
    "download": {"score_rows", "collect_scores", "choose_pairs", "index_joins", "convert_rows", "build_pairs"},
    "generate_demo": {"index_joins", "convert_rows", "build_pairs"},
    "index_joins": {"convert_rows"},
    "convert_rows": {"group_prompts", "collect_scores", "choose_pairs"},
    "group_prompts": {"clean_pairs", "build_pairs", "split_fold", "augment_pairs"},
    "clean_pairs": {"build_pairs", "tokenize_pairs"},
    "build_pairs": {
        *("base_model", "build_probes", "split_fold", "relabel_pairs", "audit_labels", "tokenize", "compare", "plot"),
        *("collect_scores", "choose_pairs", "augment_pairs"),
    },
    "augment_pairs": {"tokenize_pairs", "tokenize", "compare", "plot"},
    "split_fold": {"tokenize_pairs", "tokenize"},
    "audit_labels": {"relabel_pairs", "plot"},
    "relabel_pairs": {"tokenize_pairs", "tokenize", "compare", "plot"},
    "build_probes": {"tokenize_pairs", "tokenize", "compare", "plot"},
    "base_model": {"tokenize_pairs", "train_rung", "train"},
    "tokenize_pairs": {"tokenize"},
    "tokenize": {"train_rung", "train", "average_weights", "score_benchmark", "evaluate", "plot"},
    "train_rung": {"halve"},
    "halve": {"train_rung", "train"},
    "train": {
        *("score_rows", "score_benchmark", "choose_pairs"),
        *("evaluate", "export_ensemble", "average_weights", "evaluation_card", "summarize", "compare", "track", "plot"),
    },
    "score_benchmark": {"evaluate"},
    "score_rows": {"collect_scores", "choose_pairs"},
    "collect_scores": {"plot"},
    "choose_pairs": {"plot"},
    "evaluate": {
        *("evaluate_ensemble", "audit_labels", "select_model", "summarize", "compare", "evaluation_card", "track"),
        "plot",
    },
    "evaluate_ensemble": {"export_ensemble", "summarize", "compare", "plot"},
    "export_ensemble": set(),
    "average_weights": {"score_benchmark", "evaluate", "evaluation_card"},
    "compare": {"plot"},
    "summarize": {"plot"},
    "select_model": {"score_rows", "choose_pairs", "plot"},
    "evaluation_card": {"select_model"},
    "track": set(),
    "plot": {"gate"},
    "gate": set(),
}
ADDRESS = "https://example.org/a.jsonl"
AUDITING = {"split_fold", "audit_labels", "relabel_pairs", "augment_pairs"}
"""Stages of mixtures that are made of another one."""
MADE = ("audits.", "mixtures.c.", "mixtures.z.")
"""The keys of these."""
NOT_AUDITED = {
    *("train_rung", "halve", "average_weights", "evaluate_ensemble", "export_ensemble", "select_model"),
    *("score_rows", "collect_scores", "choose_pairs"),
}
"""Stages of sweeps, averages, ensembles, choices and scoring, none of which has a run on what an audit makes here."""
JOINED = ("hubbed", "local", "remote", "made")


def of_answers(**options: object) -> Json:
    """Settings of a training that a mixture with single answers needs."""
    return {"objective": {"type": "binary"}, **options}


INIT = {"config": {"model_type": "llama"}, "tokenizer": {"mixture": "m"}}
CONFIG: Json = {
    "datasets": {
        "hubbed": {"hub": "owner/name", "revision": "main"},
        "local": {"files": ["data/[a-c].jsonl"]},
        "remote": {"files": [ADDRESS]},
        "made": {"demo": {}},
        "rated": {"files": ["data/ids.jsonl"], "ratings": {"label": "a", "other": "b"}},
        "joining": {"files": ["data/ids.jsonl"], "join": {name: {"dataset": name, "key": "id"} for name in JOINED}},
    },
    "mixtures": {
        "m": {"datasets": {"hubbed": 1.0, "local": 1.0, "remote": 1.0, "made": 1.0, "joining": 1.0, "rated": 1.0}},
        "n": {"datasets": {"made": 1.0, "rated": 1.0}},
        "c": {"audit": "a"},
        "z": {"augment": "m", "other_prompts": 0.1},
    },
    "audits": {"a": {"mixture": "m", "run": "w", "folds": 2}},
    "models": {
        "pathed": {"path": "owner/name"},
        "ggufed": {"gguf": {"wheel": "a==1"}},
        "new": {"init": INIT},
    },
    "runs": {
        "r": {
            **{"mixture": "m", "model": "pathed", "benchmarks": ["t"], "fail_below": {"eval": 0.5}},
            "training": of_answers(normalize=True),
        },
        "s": {"mixture": "m", "model": "ggufed", "benchmarks": ["t"], "training": of_answers()},
        "w": {"mixture": "n", "model": "ggufed", "training": of_answers()},
        "d": {"mixture": "c", "model": "ggufed", "training": of_answers()},
        "b": {"mixture": "z", "model": "ggufed", "training": of_answers()},
        "q": {"mixture": "m", "model": "pathed", "benchmarks": ["t"], "training": of_answers(normalize=True)},
        "u": {"mixture": "m", "model": "new", "training": of_answers()},
        "v": {"mixture": "n", "model": "new", "benchmarks": ["t"], "training": of_answers()},
        "x": {"mixture": "m", "model": "ggufed", "seeds": [0, 1], "benchmarks": ["p", "t"], "training": of_answers()},
        "y": {
            **{"mixture": "m", "model": "ggufed", "benchmarks": ["t"], "training": of_answers()},
            "grid": {"training.warmup": [1, 2, 3, 4], "sample": 2},
        },
        "h": {
            **{"mixture": "m", "model": "pathed", "benchmarks": ["t"], "fraction": 1.0, "training": of_answers()},
            "grid": {"training.warmup": [1, 2, 3, 4], "halving": {"factor": 4, "min_steps": 5}},
        },
        "e": {"ensemble": ["r", "q"], "benchmarks": ["t"]},
        "f": {"ensemble": ["x"], "benchmarks": ["p"]},
        "g": {"ensemble": ["s", "y"], "benchmarks": ["t"]},
        "i": {"ensemble": ["h-warmup=1.0", "h-warmup=2.0"]},
        "j": {"average": ["r", "q"], "benchmarks": ["t"]},
        "k": {"average": ["s", "x", "y"], "benchmarks": ["t"]},
        "l": {"average": ["h-warmup=1.0", "h-warmup=2.0"]},
    },
    "benchmarks": {
        "t": {"files": ["data/test.tsv"]},
        "extra": {"hub": "a/b", "revision": "c"},
        "p": {"probes": {"mixture": "m"}},
    },
    "scoring": {
        "c": {"files": ["data/candidates.jsonl"], "run": "r", "shards": 2, "pairs": {}},
        "d": {"hub": "a/b", "revision": "c", "run": "best"},
    },
    "to_label": {
        "o": {"files": ["data/unlabeled.jsonl"], "runs": ["r", "best"], "shards": 2},
        "l": {"hub": "a/b", "revision": "c", "runs": "best"},
    },
    "evaluation": {"shards": 2},
    "select": {"from": ["r", "s", "x", "y", "h"], "by": "t", "as": "best"},
}
CHANGES: Json = {
    "datasets.hubbed.hub": "owner/other",
    "datasets.hubbed.revision": "v2",
    "datasets.hubbed.config": "other",
    "datasets.hubbed.split": "test",
    "datasets.hubbed.data_files": ["x.parquet"],
    "datasets.hubbed.data_dir": "data",
    "datasets.local.columns": ["a", "b"],
    "datasets.local.files": ["data/[a-c].jsonl", "data/more.tsv"],
    "datasets.remote.sha256": {ADDRESS: "0" * 64},
    "datasets.made.demo.pairs": 7,
    "datasets.made.demo.seed": 7,
    "datasets.local.format": "messages",
    "datasets.local.fields": {"prompt": "question"},
    "datasets.local.pairing": "adjacent",
    "datasets.local.ties": "keep",
    "datasets.local.min_margin": 1,
    "datasets.local.max_pairs": 3,
    "datasets.local.values": {"first": 1, "second": 2},
    "datasets.local.attributes": {"helpfulness": 1},
    "datasets.rated.ratings": ["label", "other", "third"],
    "datasets.rated.scale": [0, 5],
    "datasets.joining.join": {"id": {"dataset": "made", "key": "prompt"}},
    "datasets.local.where": {"split": "train"},
    "datasets.local.separator": "|",
    "datasets.local.subset": "other",
    "datasets.local.share": [0, 0.5],
    "datasets.made.shards": 3,
    "benchmarks.t.files": ["data/more.tsv"],
    "benchmarks.t.share": [0, 0.5],
    "benchmarks.t.scoring": "judgebench",
    "benchmarks.p.probes.mixture": "n",
    "benchmarks.p.probes.prompts": 7,
    "benchmarks.p.probes.seed": 7,
    "mixtures.m.datasets": {
        **{"hubbed": 1.0, "local": {"weight": 0.5, "cap": 100}, "remote": 1.0, "made": 1.0, "joining": 1.0},
        "rated": 1.0,
    },
    "mixtures.m.near_duplicates": 0.9,
    "mixtures.m.decontamination.ngram": 13,
    "mixtures.m.decontamination.overlap": 0.8,
    "mixtures.m.shards": 3,
    "mixtures.m.eval_fraction": 0.2,
    "mixtures.m.seed": 7,
    "mixtures.m.max_reject_fraction": 0.7,
    "models.pathed.path": "owner/other",
    "models.pathed.revision": "v2",
    "models.pathed.convert_bin": True,
    "models.pathed.trust_remote_code": True,
    "models.pathed.chat_template_from": "owner/chat",
    "models.ggufed.gguf.wheel": "a==2",
    "models.ggufed.gguf.file": "other.gguf",
    "models.new.init.config": {"model_type": "llama", "hidden_size": 8},
    "models.new.init.seed": 7,
    "models.new.init.tokenizer.mixture": "n",
    "models.new.init.tokenizer.vocab_size": 999,
    "models.new.init.tokenizer.bos_token": "<s>",
    "models.new.init.tokenizer.eos_token": "</s>",
    "models.new.init.tokenizer.pad_token": "<pad>",
    "models.pathed.max_length": 99,
    "models.pathed.template": "plain",
    "models.pathed.chat_template": "{{ messages[0].content }}",
    "models.pathed.chat_template_kwargs": {"enable_thinking": False},
    "models.pathed.end_token": "</s>",
    "models.pathed.num_padding_at_beginning": 1,
    "runs.s.mixture": "n",
    "runs.r.model": "new",
    "runs.r.seeds": [3],
    "runs.r.benchmarks": ["t", "extra"],
    "runs.r.fail_below": {"eval": 0.6, "t": 0.7},
    "runs.y.grid.sample": 3,
    "runs.y.grid.seed": 7,
    "runs.y.grid.max_cells": 7,
    "runs.h.grid.halving.factor": 2,
    "runs.h.grid.halving.min_steps": 7,
    "mixtures.m.fractions": [0.5, 1],
    "mixtures.z.augment": "n",
    "mixtures.z.other_prompts": 0.2,
    "mixtures.z.hacks": {"empty": 0.1},
    "runs.r.fraction": 0.5,
    "scoring.c.files": ["data/more.tsv"],
    "scoring.c.columns": ["a", "b"],
    "scoring.c.sha256": {"data/candidates.jsonl": "0" * 64},
    "scoring.d.hub": "owner/other",
    "scoring.d.revision": "v2",
    "scoring.d.config": "other",
    "scoring.d.split": "test",
    "scoring.d.data_files": ["x.parquet"],
    "scoring.d.data_dir": "data",
    "scoring.c.run": "best",
    "scoring.c.shards": 3,
    "scoring.c.prefix": "new_",
    "scoring.c.pairs.pairing": "all",
    "scoring.c.pairs.min_margin": 1,
    "scoring.c.pairs.max_pairs": 3,
    "scoring.c.max_reject_fraction": 0.5,
    "to_label.o.files": ["data/more.tsv"],
    "to_label.o.columns": ["a", "b"],
    "to_label.o.sha256": {"data/unlabeled.jsonl": "0" * 64},
    "to_label.l.hub": "owner/other",
    "to_label.l.revision": "v2",
    "to_label.l.config": "other",
    "to_label.l.split": "test",
    "to_label.l.data_files": ["x.parquet"],
    "to_label.l.data_dir": "data",
    "to_label.o.runs": ["q", "r"],
    "to_label.o.shards": 3,
    "to_label.o.by": "uncertainty",
    "to_label.o.number": 7,
    "to_label.o.per_prompt": 7,
    "to_label.o.max_reject_fraction": 0.5,
    "evaluation.shards": 3,
    "select.from": ["r", "s"],
    "select.by": "eval",
    "select.as": "other",
    "mixtures.m.select_fraction": 0.1,
    "runs.e.ensemble": ["q", "r"],
    "runs.j.average": ["q", "r"],
    "audits.a.mixture": "n",
    "audits.a.run": "v",
    "audits.a.folds": 3,
    "audits.a.min_agreement": 0.7,
    "mixtures.c.audit": "other",
    "mixtures.c.action": "soften",
    "mixtures.c.below": 0.1,
    "runs.e.combine": "worst",
    "runs.e.variance_weight": 1.0,
    "runs.r.training.learning_rate": 1.0e-3,
    "runs.r.training.epochs": 3,
    "runs.r.training.max_steps": 7,
    "runs.r.training.pairs_per_step": 7,
    "runs.r.training.tokens_per_micro_batch": 777,
    "runs.r.training.schedule": "linear",
    "runs.r.training.warmup": 7,
    "runs.r.training.weight_decay": 0.7,
    "runs.r.training.betas": [0.8, 0.9],
    "runs.r.training.eps": 1.0e-7,
    "runs.r.training.clip": 0.7,
    "runs.r.training.dropout": 0.2,
    "runs.r.training.loss": "kwise",
    "runs.r.training.score": "mean",
    "runs.r.training.normalize": "fold",
    "runs.r.training.objective.type": "ordinal",
    "runs.r.training.objective.rating": "other",
    "runs.r.training.objective.attributes": ["other"],
    "runs.r.training.objective.weights": {"label": 2.0},
    "runs.r.training.objective.pair_weight": 2.0,
    "runs.r.training.objective.answer_weight": 2.0,
    "runs.r.training.centering": 0.1,
    "runs.r.training.length_control": True,
    "runs.r.training.label_smoothing": 0.1,
    "runs.r.training.margin": True,
    "runs.r.training.router_aux_loss_coef": 0.01,
    "runs.r.training.precision": "bf16",
    "runs.r.training.state_precision": "bf16",
    "runs.r.training.zero_stage": 1,
    "runs.r.training.offload": "optimizer",
    "runs.r.training.gradient_checkpointing": True,
    "runs.r.training.compile": True,
    "runs.r.training.deterministic": True,
    "runs.r.training.lora": {},
    "runs.r.training.lora.rank": 7,
    "runs.r.training.lora.alpha": 7,
    "runs.r.training.lora.dropout": 0.1,
    "runs.r.training.lora.target_modules": ["q_proj"],
    "runs.r.training.threads": 7,
    "runs.r.training.batching": "padded",
    "runs.r.training.attention": "sdpa",
    "runs.r.training.checkpoint_every": 7,
    "runs.r.training.checkpoint_minutes": 7,
    "runs.r.training.eval_sets": ["t"],
    "runs.r.training.keep_best": True,
    "runs.r.training.early_stopping": {},
    "runs.r.training.early_stopping.patience": 7,
    "runs.r.training.early_stopping.min_delta": 0.1,
    "runs.r.training.early_stopping.eval_set": "t",
    "runs.r.training.loggers": {"tensorboard": {}, "mlflow": {}},
    "runs.r.training.eval_every": 7,
    "runs.r.training.deepspeed": {"disable_python_gc": True},
}


NEEDED: Json = {
    "runs.r.training.offload": {"zero_stage": 1},
    "runs.r.training.precision": {"zero_stage": 1},
    "runs.r.training.state_precision": {"zero_stage": 1, "precision": "bf16"},
    "runs.r.training.early_stopping.eval_set": {"eval_sets": ["t"]},
    "runs.r.training.objective.attributes": {"objective.type": "regression", "objective.attributes": ["label"]},
    "runs.r.training.objective.weights": {"objective.type": "regression", "objective.attributes": ["label"]},
}
"""Settings of the training that a change needs beside it."""


def table() -> list[tuple[list[str], set[str]]]:
    """The rows of the table: keys or other changes, and the stages from which on all run again."""
    text = (ROOT / "docs" / "reruns.md").read_text()
    section = text.split("<!-- rerun table -->")[1]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")][2:]
    return [(re.findall(r"`([^`]+)`", left), set(re.findall(r"`([^`]+)`", right))) for left, right in rows]


def stages_of(key: str) -> set[str]:
    """What the row of a key names."""
    found = [stages for patterns, stages in table() if any(fnmatchcase(key, pattern) for pattern in patterns)]
    assert len(found) == 1, f"{key} is in {len(found)} rows of the table"
    return found[0]


def row_of(key: str) -> set[str]:
    named = stages_of(key)
    if key.startswith("mixtures.z."):
        return closure(named, without={"audit_labels"}) - NOT_AUDITED
    if key.startswith(MADE):
        judged = set() if named == {"relabel_pairs"} else {"audit_labels"}
        return closure(named, without={"audit_labels"}) - NOT_AUDITED | judged | {"relabel_pairs"}
    after = closure(named, without={"audit_labels"}) - AUDITING  # of one run, which is not that of the audit
    if key.startswith(("benchmarks.", "runs.")):
        after -= {"index_joins"} - named  # no dataset joins a benchmark
    if named == {"average_weights"}:  # no ensemble and no choice is made of averages
        after -= {"evaluate_ensemble", "export_ensemble", "select_model", "track", "score_rows", "collect_scores"}
        after -= {"choose_pairs"}
    if "build_probes" in named:  # no training reads probes
        after -= {"train_rung", "halve", "train"} - named
    if named == {"build_probes"}:  # which makes no model
        after -= {"average_weights", "export_ensemble"}
    if key.startswith(("scoring.", "to_label.")):  # no training reads what is scored
        last = "choose_pairs" if key.startswith("to_label.") else "collect_scores"
        after &= {*named, "download", "download_file", "score_rows", last, "plot", "gate"}
    if key.startswith("evaluation."):  # folds are evaluated too, and a mixture is made of that
        after |= {"tokenize", "tokenize_pairs", "train", "score_rows", "collect_scores", "choose_pairs"}
    return after


def schema_keys(node: Json, root: Json, path: str = "") -> Iterator[str]:
    """Every key of the configuration that holds a value, with * for names."""
    if "$ref" in node:
        node = root["$defs"][node["$ref"].rsplit("/", 1)[1]]
    kinds = [kind for kind in (*node.get("anyOf", ()), *node.get("oneOf", ())) if "$ref" in kind]
    if kinds:
        for kind in kinds:
            yield from schema_keys(kind, root, path)
        return
    inner = dict(node.get("properties", {}))
    if isinstance(node.get("additionalProperties"), dict) and path.count(".") == 0 and path:
        inner["*"] = node["additionalProperties"]
    if not inner or path.endswith("init.config"):
        yield path
        return
    for name, part in inner.items():
        yield from schema_keys(part, root, f"{path}.{name}".lstrip("."))


def put(config: Json, place: str, value: object) -> None:
    *parents, last = place.split(".")
    for part in parents:
        config = config.setdefault(part, {})
    config[last] = value


def changed(key: str) -> Json:
    config = copy.deepcopy(CONFIG)
    for setting, value in NEEDED.get(key, {}).items():
        put(config, f"runs.r.training.{setting}", value)
    put(config, key, CHANGES[key])
    last = key.rsplit(".", 1)[1]
    if key == "mixtures.c.audit":
        config["audits"]["other"] = {"mixture": "m", "run": "v", "folds": 2}
    if key in ("runs.r.model", "runs.r.training.score", "runs.r.training.normalize", "runs.r.training.precision"):
        other = config["runs"]["q"] if key == "runs.r.model" else config["runs"]["q"]["training"]
        other[last] = CHANGES[key]  # what it is averaged with must fit
        for setting, value in NEEDED.get(key, {}).items():
            put(other, setting, value)
    if key.startswith("runs.r.training.objective."):
        config["runs"]["q"]["training"]["objective"] = config["runs"]["r"]["training"]["objective"]
    if key == "mixtures.m.fractions":
        config["scoring"]["c"]["run"] = "r-fraction=0.5"
    if key == "select.as":
        config["scoring"]["d"]["run"] = config["to_label"]["l"]["runs"] = "other"
        config["to_label"]["o"]["runs"] = ["r", "other"]
    if key == "benchmarks.p.probes.mixture":  # probes judge runs on the mixture that they are made of
        config["runs"]["x"]["mixture"] = CHANGES[key]
    return config


def keys_to_change() -> tuple[list[str], list[str]]:
    """Those to change in the whole of `CONFIG`, of each row and kind one, and those to change in a chain each."""
    whole: dict[tuple[str, ...], str] = {}
    chained = []
    for key in CHANGES:
        kind, _, part, *_ = (*key.split("."), "")
        in_chain = kind in ("datasets", "mixtures", "models", "scoring", "to_label") or (kind, part) == (
            "runs",
            "training",
        )
        like = (kind, *sorted(stages_of(key))) if in_chain and not key.startswith(MADE) else (key,)
        if whole.setdefault(like, key) != key:
            chained.append(key)
    return list(whole.values()), chained


def chain(key: str, name: str, change: bool) -> Json:
    """What a key belongs to, under a name of its own, and the least of all that comes after it."""
    kind, source, rest = key.split(".", 2)
    config: Json = {kind: {name: copy.deepcopy(CONFIG[kind][source])}}
    if kind == "scoring":
        config[kind][name]["run"] = "r"
    elif kind == "to_label":
        config[kind][name]["runs"] = "r"
    elif kind == "models":
        config["runs"] = {name: {"mixture": "n", "model": name, "training": of_answers()}}
    elif kind != "runs":
        config["mixtures"] = {name: {"datasets": {name if kind == "datasets" else "made": 1.0}}}
        config["models"] = {name: {"init": {**INIT, "tokenizer": {"mixture": name}}}}
        config["runs"] = {name: {"mixture": name, "model": name}}
    if source == "rated":
        config["runs"][name]["training"] = of_answers()
    for setting, value in NEEDED.get(key, {}).items():
        put(config, f"runs.{name}.training.{setting}", value)
    if change:
        put(config, f"{kind}.{name}.{rest}", CHANGES[key])
    return config


def chains(keys: list[str], change: bool) -> Json:
    """A configuration of chains, named k0, k1 and so on, and what they have in common."""
    config: Json = {
        "datasets": {name: CONFIG["datasets"][name] for name in ("made", "rated")},
        "mixtures": {name: {"datasets": {"made": 1.0, "rated": 1.0}} for name in ("m", "n")},
        "models": {"pathed": CONFIG["models"]["pathed"]},
        "runs": {"r": CONFIG["runs"]["r"]},
        "benchmarks": {"t": CONFIG["benchmarks"]["t"]},
        "scoring": {},
        "to_label": {},
    }
    for number, key in enumerate(keys):
        for kind, entries in chain(key, f"k{number}", change).items():
            config[kind] |= entries
    return config


def closure(stages: set[str], without: Collection[str] = ()) -> set[str]:
    result = set(stages)
    while (more := result | {after for stage in result for after in AFTER[stage] if after not in without}) != result:
        result = more
    return result


def write_record(project: Project, etag: str) -> None:
    """What the server said of the file that is elsewhere."""
    path = project.folder / "results" / "remote" / "remote" / "files.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"versions": {ADDRESS: {"etag": etag}}}))


def finished(folder: Path, config: Json) -> Project:
    """A project all of whose results are there."""
    project = Project(folder)
    (project.folder / "data").mkdir()
    for name in ("a.jsonl", "b.jsonl", "ids.jsonl", "test.tsv", "more.tsv", "candidates.jsonl", "unlabeled.jsonl"):
        (project.folder / "data" / name).write_text(f"{name}\n" * 3)
    (project.folder / "config" / "config.yaml").write_text(yaml.safe_dump(config))
    write_record(project, '"first"')
    project.pretend()
    return project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return finished(tmp_path_factory.mktemp("contract") / "project", CONFIG)


def test_every_key_of_the_schema_is_changed_here_and_stands_in_one_row() -> None:
    schema = yaml.safe_load((ROOT / "config" / "schema.yaml").read_text())
    for key in schema_keys(schema, schema):
        changes = [k for k in CHANGES if fnmatchcase(k, key)]
        if key.startswith("benchmarks.*"):  # a benchmark is read as a dataset is
            changes += [k for k in CHANGES if fnmatchcase(k, key.replace("benchmarks", "datasets"))]
        assert changes, f"{key} is not changed in this test"
        row_of(key)


def test_a_changed_key_runs_again_what_the_table_says(project: Project) -> None:
    def plan(key: str) -> tuple[str, set[str]]:
        overlay = project.folder / f"{key}.yaml"
        overlay.write_text(yaml.safe_dump(changed(key)))
        return key, set(project.planned("--configfile", str(overlay)))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        plans = list(pool.map(plan, keys_to_change()[0]))
    of_audits = {key for key in CHANGES if key.startswith(MADE)}
    plans = [(key, found if key in of_audits else found - AUDITING) for key, found in plans]
    wrong = {key: (sorted(found), sorted(row_of(key))) for key, found in plans if found != row_of(key)}
    assert not wrong, f"found and expected: {wrong}"


def test_a_key_changed_beside_others_runs_again_its_own_chain_as_the_table_says(tmp_path: Path) -> None:
    """All keys at once, each in a chain of its own; what is planned is told apart by the names of files."""
    _, keys = keys_to_change()
    project = finished(tmp_path / "project", chains(keys, change=False))
    overlay = project.overlay(chains(keys, change=True))
    there: dict[str, set[str]] = defaultdict(set)
    planned: dict[str, set[str]] = defaultdict(set)
    for line in project.run("--cores", "2", "--summary", "--configfile", str(overlay)).stdout.splitlines():
        if not line.startswith("results/"):
            continue
        path, _, rule, *_, plan = line.split("\t")
        name = "".join(re.findall(r"\bk\d+\b", path)[:1])
        there[name].add(rule)
        if plan == "update pending":
            planned[name].add(rule)
    wrong = {}
    for number, key in enumerate(keys):
        found, chained = planned[f"k{number}"], there[f"k{number}"]
        expected = row_of(key) & chained
        if found != expected or not stages_of(key) & chained:
            wrong[key] = (sorted(found), sorted(expected))
    assert not wrong, f"found and expected: {wrong}"
    assert planned[""] == {"compare", "summarize", "plot", "gate"}, "nothing that they have in common"


def test_every_module_that_a_stage_imports_is_an_input_of_it(project: Project) -> None:
    """Which modules those are is found here in another way than by the workflow."""
    tracked: dict[str, set[str]] = {}
    for line in project.run("--cores", "2", "--detailed-summary").stdout.splitlines():
        fields = line.split("\t")
        if len(fields) > 4 and fields[2] in STAGES:
            files = {name.removeprefix("scripts/") for name in fields[4].split(",") if name.startswith("scripts/")}
            assert tracked.setdefault(fields[2], files) == files
    assert tracked == {stage: _modules(project.folder / "scripts" / name) for stage, name in STAGES.items()}


@pytest.mark.parametrize("name", ["data/pairs/manifests.py", "tokens/templates.py", "training/engine.py"])
def test_an_edited_module_runs_again_the_stages_that_import_it(project: Project, tmp_path: Path, name: str) -> None:
    edited = Project.at(tmp_path / "edited")
    shutil.copytree(project.folder, edited.folder)
    with (edited.folder / "scripts" / "rewardline" / name).open("a") as stream:
        stream.write("\n# edited\n")
    importing = {
        stage for stage, main in STAGES.items() if f"rewardline/{name}" in _modules(project.folder / "scripts" / main)
    }
    assert importing
    assert set(edited.planned()) == closure(importing)


@cache
def _imports() -> grimp.ImportGraph:
    return grimp.build_graph("rewardline", exclude_type_checking_imports=True, cache_dir=None)


def _modules(program: Path) -> set[str]:
    """The project files that a program consists of, as found by grimp, and the templates that they name."""
    graph = _imports()
    statements = re.findall(r"^\s*from (rewardline[\w.]*) import (\([^)]*\)|[^\n]*)", program.read_text(), re.MULTILINE)
    named = {f"{package}.{name}" for package, names in statements for name in re.findall(r"\w+", names)}
    direct = graph.modules & (named | {package for package, _ in statements})
    modules = direct.union(*(graph.find_upstream_modules(name) for name in direct))
    modules |= {name.rsplit(".", depth)[0] for name in modules for depth in range(1, name.count(".") + 1)}
    paths = (Path(*name.split(".")) for name in modules)
    files = [path / "__init__.py" if (program.parent / path).is_dir() else path.with_suffix(".py") for path in paths]
    using = [path.parent for path in files if '"templates"' in (program.parent / path).read_text()]
    found = [path for folder in using for path in (program.parent / folder / "templates").rglob("*") if path.is_file()]
    templates = [path.relative_to(program.parent) for path in found]
    return {program.name, *map(str, [*files, *templates])}


def test_what_does_not_matter_runs_nothing_again(project: Project, tmp_path: Path) -> None:
    for path in (*project.folder.rglob("scripts/**/*.py"), *(project.folder / "data").iterdir()):
        os.utime(path)
    assert project.planned() == {}, "touched files"
    for path in (project.folder / "scripts").rglob("*.py"):
        text = path.read_text()
        path.unlink()
        path.write_text(text)
    assert project.planned() == {}, "files checked out anew"
    reversed_config = {key: dict(reversed(list(value.items()))) for key, value in reversed(list(CONFIG.items()))}
    (project.folder / "config" / "config.yaml").write_text(yaml.safe_dump(reversed_config, sort_keys=False))
    assert project.planned() == {}, "keys in another order"
    (project.folder / "README.md").write_text("edited")
    (project.folder / "scripts" / "score.py").write_text("# edited")
    assert project.planned() == {}, "a file that no stage is made of"
    moved = Project.at(tmp_path / "moved")
    shutil.copytree(project.folder, moved.folder)
    assert moved.planned() == {}, "a moved folder"


def test_changed_data_runs_again_what_depends_on_it(project: Project, tmp_path: Path) -> None:
    place = Project.at(tmp_path / "data-changes")
    shutil.copytree(project.folder, place.folder)
    everything = {*STAGES} - {"generate_demo", "fetch_file"}
    (place.folder / "data" / "c.jsonl").write_text("new")
    added = place.planned()
    assert set(added) == everything, "a file that the glob matches now"
    assert added["download_file"] == added["download"] == 1, "the other files are left alone"
    assert added["convert_rows"] == 4, "all files, which say together what labels mean; the dataset that joins them"
    (place.folder / "data" / "c.jsonl").unlink()
    moved = (place.folder / "data" / "b.jsonl").rename(tmp_path / "b.jsonl")
    assert set(place.planned()) == everything - {"download_file"}, "a file that is gone"
    moved.rename(place.folder / "data" / "b.jsonl")
    path = place.folder / "data" / "a.jsonl"
    text, date = path.read_text(), path.stat().st_mtime
    path.write_text("other\n")
    os.utime(path, (date - 1000, date - 1000))
    edited = place.planned()
    assert set(edited) == everything, "a file with other content and an older date"
    assert (edited["download_file"], edited["convert_rows"]) == (1, 3)
    path.write_text(text)
    assert place.planned() == {}
    write_record(place, '"second"')
    changed = place.planned()
    assert set(changed) == everything | {"fetch_file"}, "a file elsewhere of another version"
    assert changed["fetch_file"] == changed["download_file"] == 1
    write_record(place, '"first"')
    assert place.planned() == {}


def test_every_rule_has_its_program_and_all_directives() -> None:
    programs = {}
    for path in (ROOT / "rules").glob("*.smk"):
        rules = re.split(r"^(?:rule|checkpoint) (\w+):", path.read_text(), flags=re.MULTILINE)
        for name, text in zip(rules[1::2], rules[2::2], strict=True):
            (programs[name],) = re.findall(r'code\("(\w+\.py)"\)', text)
            directives = ("log", "benchmark", "threads", "resources", "message", "conda")
            assert all(f"\n    {word}:" in text for word in directives), name
    assert programs == STAGES


def test_rules_and_programs_have_the_same_names() -> None:
    others = {rule: program for rule, program in STAGES.items() if program != f"{rule}.py"}
    # The stage's name is fixed; a program tokenize.py would hide a module of the standard library.
    assert others == {"tokenize": "join_tokens.py", "train_rung": "train.py"}


@pytest.mark.parametrize("halved", [False, True])
def test_a_value_that_is_added_to_a_grid_plans_the_new_cells_alone(tmp_path: Path, halved: bool) -> None:
    config = small()
    grid: Json = {"training.learning_rate": [1e-3, 1e-2], "training.loss": ["pairwise", "kwise"]}
    grid |= {"halving": {"factor": 2, "min_steps": 5}} if halved else {}
    config["runs"]["small"] |= {"seeds": [0, 1], "grid": grid}
    config["select"] = {"from": "small", "as": "best"}
    project = Project(tmp_path / "project")
    project.pretend("--configfile", str(project.overlay(config)))
    grid["training.learning_rate"].append(5e-3)
    found = project.planned("--configfile", str(project.overlay(config)))
    new = dict.fromkeys(("train", "evaluate", "evaluation_card", "track"), 4)
    new |= {"train_rung": 8, "halve": 2} if halved else {}
    assert found == {**new, **dict.fromkeys(("compare", "summarize", "select_model", "plot"), 1)}
