"""What the configuration says to each stage: the trainings it means, and the settings that a stage reads."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewardline.core.hashing import digest
from rewardline.data.formats.registry import GROUPED

Json = dict[str, Any]
EVAL = "eval"
"""The benchmark that every run has: the eval split of its own mixture."""
SOURCE_KEYS = ("hub", "revision", "config", "split", "data_files", "data_dir", "columns", "files", "demo")
BASE_KEYS = ("path", "revision", "convert_bin", "trust_remote_code", "gguf", "init")


@dataclass(frozen=True)
class Run:
    """A training with one seed; `name` is its entry in the configuration."""

    run_id: str
    name: str
    mixture: str
    model: str
    seed: int
    benchmarks: tuple[str, ...]


def run_table(config: Json, selected: set[str] | None = None) -> list[Run]:
    """All trainings: one for each seed of each run (of those in `selected`, or in an ensemble of it, if given)."""
    table = []
    chosen = config["ensembles"].keys() & (selected or set())
    members = {run_id for name in chosen for run_id in members_of(config, name)}
    for name, run in sorted(config["runs"].items()):
        for seed in run["seeds"]:
            run_id = name if len(run["seeds"]) == 1 else f"{name}-seed{seed}"
            if selected is None or name in selected or run_id in members:
                table.append(Run(run_id, name, run["mixture"], run["model"], seed, tuple(run["benchmarks"])))
    return table


@dataclass(frozen=True)
class Ensemble:
    """Trainings whose scores are combined; `mixture` and `model` are those of all members, joined by `+`."""

    run_id: str
    members: tuple[str, ...]
    mixture: str
    model: str
    benchmarks: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its entry in the configuration."""
        return self.run_id


def ensemble_table(config: Json, selected: set[str] | None = None) -> list[Ensemble]:
    """All ensembles (of those in `selected`, if given)."""
    table = []
    by_id = {run.run_id: run for run in run_table(config)}
    for name, entry in sorted(config["ensembles"].items()):
        if selected is not None and name not in selected:
            continue
        members = [by_id[run_id] for run_id in members_of(config, name)]
        mixture, model = ("+".join(sorted({getattr(run, key) for run in members})) for key in ("mixture", "model"))
        table.append(Ensemble(name, tuple(run.run_id for run in members), mixture, model, tuple(entry["benchmarks"])))
    return table


def members_of(config: Json, ensemble: str) -> list[str]:
    """The ids of the trainings of an ensemble; a run's name stands for all its seeds. Unknown names are left out."""
    table = run_table(config)
    wanted = config["ensembles"][ensemble]["ensemble"]
    found = [run.run_id for name in wanted for run in table if name in (run.name, run.run_id)]
    return list(dict.fromkeys(found))


def has_eval(config: Json, run: Run | Ensemble) -> bool:
    """Whether a run is judged on an eval split: that of its mixture, which the members of an ensemble must share."""
    return bool(config["mixtures"].get(run.mixture, {}).get("eval_fraction", 0) > 0)


def sources(config: Json) -> Json:
    """Everything that can be downloaded, by name: data sets and benchmarks, but for probes, which are made."""
    made = probe_benchmarks(config)
    return {**config["datasets"], **{name: one for name, one in config["benchmarks"].items() if name not in made}}


def probe_benchmarks(config: Json) -> Json:
    """The benchmarks that are made of a mixture's held-out pairs, by name."""
    return {name: entry for name, entry in config["benchmarks"].items() if "probes" in entry}


def used_sources(config: Json, runs: Iterable[Run]) -> list[str]:
    """The data sets and benchmarks that trainings read, directly or through the mixture of a tokenizer."""
    names: set[str] = set()
    for run in runs:
        mixtures = {run.mixture}
        init = config["models"][run.model].get("init")
        if init is not None:
            mixtures.add(init["tokenizer"]["mixture"])
        for mixture in mixtures:
            names |= set(config["mixtures"][mixture]["datasets"]) | set(benchmarks_of_mixture(config, mixture))
    return sorted(names.union(*(joined_sources(config, name) for name in names)))


def joined_sources(config: Json, name: str) -> list[str]:
    """The data sets whose rows stand behind ids in the rows of a data set or benchmark."""
    return sorted({join["dataset"] for join in sources(config)[name]["join"].values()})


def benchmarks_of_mixture(config: Json, mixture: str) -> list[str]:
    """The benchmarks of the runs that train on `mixture`; their prompts must not be in its training pairs.

    Probes are not among them: they are made of what the mixture holds out.
    """
    runs = (run for run in config["runs"].values() if run["mixture"] == mixture)
    return sorted({benchmark for run in runs for benchmark in run["benchmarks"]} - probe_benchmarks(config).keys())


def download_settings(config: Json, dataset: str) -> Json:
    """What the download stage reads."""
    entry = sources(config)[dataset]
    settings = {key: entry[key] for key in SOURCE_KEYS if key in entry}
    if "hub" not in settings:
        settings.pop("split", None)
    return settings


def file_parts(files: Sequence[str]) -> dict[str, str]:
    """Local files by the name of the part that each of them is: readable, and different for different paths."""
    return {f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', Path(file).name)}-{digest(file)[:8]}": file for file in files}


def parts(config: Json, dataset: str, files: Sequence[str] = ()) -> dict[str, str]:
    """The parts of a data set that are converted apart, by name, with the rows that each takes, as INDEX/COUNT.

    Each local file is a part. A format that takes several rows together needs them all in one part.
    """
    entry = sources(config)[dataset]
    if entry["format"] in GROUPED or not files:
        count = 1 if entry["format"] in GROUPED else entry["shards"]
        return {"all": "0/1"} if count == 1 else {f"{k}-of-{count}": f"{k}/{count}" for k in range(count)}
    return dict.fromkeys(file_parts(files), "0/1")


def convert_settings(config: Json, dataset: str) -> Json:
    """What the conversion of a data set's rows reads."""
    return _without(sources(config)[dataset], (*SOURCE_KEYS, "shards"))


def mixture_entry(config: Json, name: str) -> Json:
    """A mixture; for a benchmark, the mixture that holds all of it out. Each data set has `weight` and `cap`."""
    if name not in config["mixtures"]:
        whole = {"eval_fraction": 1.0, "seed": 0, "max_reject_fraction": 1.0}
        shards = 1 if name in probe_benchmarks(config) else config["benchmarks"][name]["shards"]
        entry = {"weight": 1.0, "cap": None}
        return {"datasets": {name: entry}, **whole, "near_duplicates": None, "decontamination": None, "shards": shards}
    found = config["mixtures"][name]
    datasets = {
        dataset: entry if isinstance(entry, Mapping) else {"weight": entry, "cap": None}
        for dataset, entry in found["datasets"].items()
    }
    return {**found, "datasets": datasets}


def group_settings(config: Json, name: str) -> Json:
    """What the comparison of a mixture's prompts reads."""
    entry = mixture_entry(config, name)
    caps = {dataset: {"cap": one["cap"]} for dataset, one in entry["datasets"].items()}
    return {**_without(entry, ("shards",)), "datasets": caps}


def clean_settings(config: Json, name: str) -> Json:
    """What the cleaning of a shard reads, beside what the comparison of the prompts found."""
    entry = mixture_entry(config, name)
    weights = {dataset: {"weight": one["weight"]} for dataset, one in entry["datasets"].items()}
    keep_all = _arithmetic(config, name) is not None
    kept = {"seed": entry["seed"], "near_duplicates": entry["near_duplicates"], "keep_all": keep_all}
    return {"datasets": weights, **kept}


def pairs_settings(config: Json, name: str) -> Json:
    """What is read when the shards of a mixture are put together."""
    return {"eval_fraction": mixture_entry(config, name)["eval_fraction"]}


def probe_settings(config: Json, name: str) -> Json:
    """What the making of probes reads."""
    settings: Json = config["benchmarks"][name]["probes"]
    return settings


def base_settings(config: Json, model: str) -> Json:
    """What the base model stage reads."""
    entry = config["models"][model]
    settings = {key: entry[key] for key in BASE_KEYS if key in entry}
    if "path" not in settings:
        for key in ("revision", "convert_bin", "trust_remote_code"):
            settings.pop(key, None)
    return settings


def tokenize_settings(config: Json, model: str) -> Json:
    """What the tokenize stage reads."""
    settings = _without(config["models"][model], BASE_KEYS)
    return {**settings, "trust_remote_code": config["models"][model]["trust_remote_code"]}


def train_settings(config: Json, run: Run) -> Json:
    """What the training stage reads."""
    return {
        "run": run.run_id,
        "mixture": run.mixture,
        "model": run.model,
        "seed": run.seed,
        "training": config["runs"][run.name]["training"],
        "trust_remote_code": config["models"][run.model]["trust_remote_code"],
    }


def evaluate_settings(config: Json, run: Run, benchmark: str) -> Json:
    """What the evaluation stage reads."""
    trust, arithmetic = config["models"][run.model]["trust_remote_code"], _arithmetic(config, benchmark)
    identity = {"run": run.run_id, "name": run.name, "mixture": run.mixture, "model": run.model, "seed": run.seed}
    return {**identity, "benchmark": benchmark, "trust_remote_code": trust, "arithmetic": arithmetic}


def limits(config: Json, runs: Iterable[Run | Ensemble]) -> dict[str, dict[str, float]]:
    """The least accuracy that is asked for, by run id and benchmark."""
    entries = config["runs"] | config["ensembles"]
    found = {run.run_id: dict(entries[run.name]["fail_below"]) for run in runs}
    return {run_id: own for run_id, own in found.items() if own}


def ensemble_settings(config: Json, ensemble: Ensemble, benchmark: str) -> Json:
    """What the evaluation of an ensemble reads."""
    name, entry = ensemble.run_id, config["ensembles"][ensemble.run_id]
    identity = {"run": name, "name": name, "mixture": ensemble.mixture, "model": ensemble.model, "seed": None}
    how = {"ensemble": list(ensemble.members), **{key: entry[key] for key in ("combine", "variance_weight")}}
    return {**identity, "benchmark": benchmark, **how, "arithmetic": _arithmetic(config, benchmark)}


def _arithmetic(config: Json, name: str) -> str | None:
    """The arithmetic of a published benchmark; None for others, and for mixtures."""
    found: str | None = config["benchmarks"].get(name, {}).get("arithmetic")
    return found


def _without(entry: Json, keys: tuple[str, ...]) -> Json:
    return {key: value for key, value in entry.items() if key not in keys}
