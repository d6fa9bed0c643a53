"""Mistakes that no schema sees: names that are not defined, and keys that do not go together."""

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from rewardline.training.deepspeed_options import owned_keys
from rewardline.workflow.settings import EVAL, ensemble_table, has_eval, probe_benchmarks, run_table

Json = dict[str, Any]
SECTIONS = ("datasets", "mixtures", "models", "runs", "benchmarks")
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
DATASET_SOURCES = ("hub", "files", "demo")
BENCHMARK_SOURCES = (*DATASET_SOURCES, "probes")
MODEL_SOURCES = ("path", "gguf", "init")


def cross_check(config: Json) -> Iterator[str]:
    """References between sections, names, and rules that concern several keys at once."""
    for section in SECTIONS:
        for name in config[section]:
            if not re.fullmatch(NAME, str(name)):
                yield f"{section}.{name}: a name consists of letters, digits, '.', '_' and '-'"
    for name in set(config["benchmarks"]) & (set(config["datasets"]) | set(config["mixtures"]) | {EVAL}):
        yield f"benchmarks.{name}: the name is taken; choose one that no data set and no mixture has, and not `{EVAL}`"
    for section in ("datasets", "benchmarks"):
        for name, entry in config[section].items():
            where = f"{section}.{name}"
            yield from _one_source(where, entry, DATASET_SOURCES if section == "datasets" else BENCHMARK_SOURCES)
            if "hub" in entry and "revision" not in entry:
                yield f"{where}: a hub data set needs `revision`, the commit to read"
            for path, join in entry["join"].items():
                yield from _known(f"{where}.join.{path}.dataset", join["dataset"], config["datasets"])
            if entry["share"][0] >= entry["share"][1]:
                yield f"{where}.share: {entry['share']} is empty; expected [from, to] with from below to"
    for name, entry in config["mixtures"].items():
        for dataset in entry["datasets"]:
            yield from _known(f"mixtures.{name}.datasets", dataset, config["datasets"])
    yield from _check_probes(config)
    for name, entry in config["models"].items():
        yield from _one_source(f"models.{name}", entry, MODEL_SOURCES)
        if "init" in entry:
            where = f"models.{name}.init.tokenizer.mixture"
            yield from _known(where, entry["init"]["tokenizer"]["mixture"], config["mixtures"])
    if not config["runs"]:
        yield "runs: there is nothing to run; name a run with its mixture and model"
    ids: dict[str, str] = {}
    for name, entry in config["runs"].items():
        yield from _check_run(f"runs.{name}", entry, config)
        for run in run_table(config, {name}):
            if ids.setdefault(run.run_id, name) != name:
                yield f"runs.{name}: its run id {run.run_id} is also that of runs.{ids[run.run_id]}; rename one"
    yield from _check_ensembles(config)


def _check_run(where: str, run: Json, config: Json) -> Iterator[str]:
    yield from _known(f"{where}.mixture", run["mixture"], config["mixtures"])
    yield from _known(f"{where}.model", run["model"], config["models"])
    for benchmark in run["benchmarks"]:
        yield from _known(f"{where}.benchmarks", benchmark, config["benchmarks"])
    mixture = config["mixtures"].get(run["mixture"])
    judged = [EVAL] * (mixture is None or mixture["eval_fraction"] > 0) + run["benchmarks"]
    for benchmark in run["fail_below"]:
        yield from _known(f"{where}.fail_below", benchmark, judged)
    if mixture is not None and mixture["eval_fraction"] == 0 and not run["benchmarks"]:
        yield f"{where}: there is nothing to judge it on; name a benchmark, or set the mixture's eval_fraction above 0"
    training = run["training"]
    for problem in owned_keys(training["deepspeed"], training["offload"]):
        yield f"{where}.{problem}"
    if training["precision"] != "fp32" and training["zero_stage"] == 0:
        yield (
            f"{where}.training.zero_stage: 0 is not allowed with precision {training['precision']}, where DeepSpeed's "
            "stage 0 takes a step on zero gradients; expected 1, 2 or 3"
        )
    types = training["deepspeed"].get("data_types")
    if training["zero_stage"] == 1 and training["precision"] == "bf16" and types:
        yield (
            f"{where}.training.deepspeed.data_types: {types} is not allowed with precision bf16 and zero_stage 1, "
            "where DeepSpeed takes a step on zero gradients; expected zero_stage 2 or 3"
        )
    if training["offload"] != "none" and training["zero_stage"] == 0:
        yield f"{where}.training.offload: {training['offload']!r} needs zero_stage 1, 2 or 3"
    if training["offload"] == "all" and training["zero_stage"] != 3:
        yield f"{where}.training.offload: 'all' moves the parameters too and needs zero_stage 3"
    evaluates = training["eval_every"] > 0 and (mixture is None or mixture["eval_fraction"] > 0)
    for key in ("keep_best", "early_stopping"):
        if training[key] and not evaluates:
            yield f"{where}.training.{key}: needs evaluations; set eval_every and the mixture's eval_fraction above 0"
    if training["normalize"] and mixture is not None and mixture["eval_fraction"] == 0:
        yield f"{where}.training.normalize: needs an eval split; set the mixture's eval_fraction above 0"
    if training["warmup"] >= 1 and training["warmup"] != int(training["warmup"]):
        yield f"{where}.training.warmup: {training['warmup']} is neither a share below 1 nor a whole number of steps"


def _check_probes(config: Json) -> Iterator[str]:
    """Probes are made of pairs that a mixture holds out, and judge runs on that mixture."""
    for name, entry in probe_benchmarks(config).items():
        where, mixture = f"benchmarks.{name}.probes", entry["probes"]["mixture"]
        yield from _known(f"{where}.mixture", mixture, config["mixtures"])
        if config["mixtures"].get(mixture, {}).get("eval_fraction") == 0:
            yield f"{where}.mixture: {mixture!r} holds nothing out; set its eval_fraction above 0"
        if entry["arithmetic"] is not None:
            yield f"benchmarks.{name}.arithmetic: {entry['arithmetic']!r} is of a published benchmark, not of probes"
        for run, one in config["runs"].items():
            if name in one["benchmarks"] and one["mixture"] != mixture:
                yield (
                    f"runs.{run}.benchmarks: {name} is made of {mixture}, whose held-out prompts the run's mixture "
                    f"{one['mixture']} may train on; name probes of {one['mixture']}"
                )


def _check_ensembles(config: Json) -> Iterator[str]:
    """Members that are not trained here, and benchmarks that not all of them are judged on."""
    table = run_table(config)
    known = {name for run in table for name in (run.name, run.run_id)}
    unknown = False
    for name, entry in config["ensembles"].items():
        for member in entry["ensemble"]:
            if member not in known:
                unknown = True
                what = "an ensemble itself" if member in config["ensembles"] else "no run and no run id"
                yield f"runs.{name}.ensemble: {member!r} is {what}; known: {', '.join(sorted(known)) or 'none'}"
        if name in known:
            yield f"runs.{name}: its run id {name} is also that of a training; rename one"
    if unknown:
        return
    by_id = {run.run_id: run for run in table}
    for ensemble in ensemble_table(config):
        where = f"runs.{ensemble.run_id}"
        if len(ensemble.members) < 2:
            yield f"{where}.ensemble: has one member, {ensemble.members[0]}; expected two or more"
        for benchmark in ensemble.benchmarks:
            without = [run_id for run_id in ensemble.members if benchmark not in by_id[run_id].benchmarks]
            if without:
                run = by_id[without[0]].name
                yield f"{where}.benchmarks: {run} is not judged on {benchmark!r}; add it to runs.{run}.benchmarks"
        judged = [EVAL] * has_eval(config, ensemble) + list(ensemble.benchmarks)
        for benchmark in config["ensembles"][ensemble.name]["fail_below"]:
            yield from _known(f"{where}.fail_below", benchmark, judged)
        if not judged:
            yield f"{where}: its members have no {EVAL} split in common; name a benchmark that all are judged on"


def _one_source(where: str, entry: Json, known: tuple[str, ...]) -> Iterator[str]:
    found = [key for key in known if key in entry]
    if len(found) != 1:
        yield f"{where}: has {' and '.join(found) or 'no source'}; expected exactly one of {', '.join(known)}"


def _known(where: str, name: str, entries: Iterable[str]) -> Iterator[str]:
    if name not in entries:
        yield f"{where}: {name!r} is not defined{nearest(name, list(entries))}"


def nearest(word: str, known: list[str]) -> str:
    """What to try instead of an unknown word."""
    near = difflib.get_close_matches(str(word), [str(name) for name in known], n=1, cutoff=0.4)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known) or 'none'}"
