"""The configuration: what is allowed, what is meant where nothing is said, and what each stage reads of it."""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from rewardline.artifacts import digest
from rewardline.deepspeed_keys import owned_keys
from rewardline.formats import GROUPED

Json = dict[str, Any]
SECTIONS = ("datasets", "mixtures", "models", "runs", "benchmarks")
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
EVAL = "eval"
"""The benchmark that every run has: the eval split of its own mixture."""
DATASET_SOURCES = ("hub", "files", "demo")
MODEL_SOURCES = ("path", "gguf", "init")
SOURCE_KEYS = ("hub", "revision", "config", "split", "data_files", "data_dir", "columns", "files", "demo")
PLACE_KEYS = ("hub", "config", "split", "data_files", "data_dir", "columns")
"""Of a known data set: what says where its rows are, whatever the format."""
BASE_KEYS = ("path", "revision", "convert_bin", "trust_remote_code", "gguf", "init")


class ConfigError(Exception):
    """One or more mistakes in the configuration, a line each."""


@dataclass(frozen=True)
class Run:
    """A training with one seed; `name` is its entry in the configuration."""

    run_id: str
    name: str
    mixture: str
    model: str
    seed: int
    benchmarks: tuple[str, ...]


def load_schema(path: Path) -> Json:
    """The JSON Schema of the configuration."""
    schema: Json = yaml.safe_load(path.read_text(encoding="utf-8"))
    return schema


def load_known(path: Path) -> Json:
    """The table of public data sets: by the name on the hub, the keys of an entry."""
    known: Json = yaml.safe_load(path.read_text(encoding="utf-8"))
    return known


def resolve(config: Mapping[str, Any], schema: Json, known: Mapping[str, Any] | None = None) -> Json:
    """The configuration with every default filled in; `known` has those of public data sets, by their name on the hub.

    Raises:
        ConfigError: names each wrong key with its value, what is allowed and the nearest known key.
    """
    chosen: Json = {}
    for section, entries in config.items():
        if isinstance(entries, Mapping) and section in SECTIONS:
            chosen[section] = {str(name): entry for name, entry in entries.items() if entry is not None}
        else:
            chosen[section] = entries
    for section in {"datasets", "benchmarks"} & chosen.keys():
        if isinstance(chosen[section], Mapping):
            chosen[section] = {name: _with_known(entry, known or {}) for name, entry in chosen[section].items()}
    filled = _fill(chosen, schema, schema)
    validator = jsonschema.Draft202012Validator(schema)
    problems = [_explain(error) for error in validator.iter_errors(filled)]
    if not problems:
        problems = list(_cross_check(filled))
    if problems:
        raise ConfigError("\n".join(sorted(set(problems))))
    result: Json = filled
    return result


def _with_known(entry: Any, known: Mapping[str, Any]) -> Any:
    """An entry with what is known of its hub data set; the entry's own keys win, `fields` key by key."""
    defaults = known.get(str(entry.get("hub"))) if isinstance(entry, Mapping) else None
    if defaults is None:
        return entry
    if entry.get("format", defaults.get("format")) != defaults.get("format"):
        defaults = {key: value for key, value in defaults.items() if key in PLACE_KEYS}
    result = {**defaults, **entry}
    if isinstance(entry.get("fields"), Mapping):
        result["fields"] = {**defaults.get("fields", {}), **entry["fields"]}
    return {**result, "hub": defaults.get("hub", entry["hub"])}


def run_table(config: Json, selected: set[str] | None = None) -> list[Run]:
    """All trainings: one for each seed of each run (of those in `selected`, if given)."""
    table = []
    for name, run in sorted(config["runs"].items()):
        if selected is not None and name not in selected:
            continue
        for seed in run["seeds"]:
            run_id = name if len(run["seeds"]) == 1 else f"{name}-seed{seed}"
            table.append(Run(run_id, name, run["mixture"], run["model"], seed, tuple(run["benchmarks"])))
    return table


def sources(config: Json) -> Json:
    """Everything that can be downloaded, by name: data sets and benchmarks."""
    return {**config["datasets"], **config["benchmarks"]}


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
    """The benchmarks of the runs that train on `mixture`; their prompts must not be in its training pairs."""
    runs = (run for run in config["runs"].values() if run["mixture"] == mixture)
    return sorted({benchmark for run in runs for benchmark in run["benchmarks"]})


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
        shards = config["benchmarks"][name]["shards"]
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
    return {"datasets": weights, "seed": entry["seed"], "near_duplicates": entry["near_duplicates"]}


def pairs_settings(config: Json, name: str) -> Json:
    """What is read when the shards of a mixture are put together."""
    return {"eval_fraction": mixture_entry(config, name)["eval_fraction"]}


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
    trust = config["models"][run.model]["trust_remote_code"]
    identity = {"run": run.run_id, "name": run.name, "mixture": run.mixture, "model": run.model, "seed": run.seed}
    return {**identity, "benchmark": benchmark, "trust_remote_code": trust}


def _without(entry: Json, keys: tuple[str, ...]) -> Json:
    return {key: value for key, value in entry.items() if key not in keys}


def _fill(value: Any, schema: Json, root: Json) -> Any:
    """`value` with defaults, and with numbers that YAML reads as text (`5e-5`) as numbers."""
    if "$ref" in schema:
        return _fill(value, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root)
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if isinstance(value, str | float) and not isinstance(value, bool) and {"number", "integer"} & set(kinds):
        return _number(value, "integer" if "integer" in kinds else "number")
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [_fill(item, schema["items"], root) for item in value]
    if not isinstance(value, Mapping):
        return value
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    filled: Json = {}
    for key, entry in value.items():
        part = properties.get(key, others)
        if entry is None and isinstance(part, dict) and "null" not in part.get("type", ""):
            continue  # an overlay takes out what the default has
        filled[key] = _fill(entry, part, root) if isinstance(part, dict) else entry
    for key, part in properties.items():
        if key not in filled and "default" in part:
            filled[key] = _fill(part["default"], part, root)
    return filled


def _number(value: str | float, kind: str) -> Any:
    """`value` as a finite number of its kind, or as it is: the schema then refuses it."""
    try:
        number = float(value)
    except ValueError:
        return value
    if not math.isfinite(number):
        return str(value)
    if kind == "integer":
        return int(number) if number == int(number) else value
    return number


def _explain(error: jsonschema.ValidationError) -> str:
    where = ".".join(str(part) for part in error.absolute_path) or "the configuration"
    rule, limit, value = error.validator, error.validator_value, error.instance
    if rule == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = [key for key in value if key not in known]
        prefix = "" if where == "the configuration" else where + "."
        return "; ".join(f"{prefix}{key}: unknown key{_nearest(str(key), known)}" for key in unknown)
    if rule == "required":
        missing = [key for key in limit if key not in value]
        return f"{where}: {' and '.join(missing)} is missing"
    allowed: dict[str, Callable[[], str]] = {
        "enum": lambda: "one of " + ", ".join(map(str, limit)),
        "type": lambda: " or ".join(limit) if isinstance(limit, list) else f"{limit}",
        "minimum": lambda: f"at least {limit}",
        "maximum": lambda: f"at most {limit}",
        "exclusiveMinimum": lambda: f"more than {limit}",
        "exclusiveMaximum": lambda: f"less than {limit}",
        "pattern": lambda: f"text that matches {limit}",
        "minItems": lambda: f"at least {limit} entries",
        "maxItems": lambda: f"at most {limit} entries",
        "minProperties": lambda: f"at least {limit} entries",
        "uniqueItems": lambda: "a list without repetitions",
    }
    meaning = allowed[str(rule)]() if rule in allowed else error.message
    hint = _nearest(value, limit) if rule == "enum" and isinstance(value, str) else ""
    return f"{where}: {value!r} is not allowed; expected {meaning}{hint}"


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(str(word), [str(name) for name in known], n=1, cutoff=0.4)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known) or 'none'}"


def _cross_check(config: Json) -> Iterator[str]:
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
            yield from _one_source(where, entry, DATASET_SOURCES)
            if "hub" in entry and "revision" not in entry:
                yield f"{where}: a hub data set needs `revision`, the commit to read"
            for path, join in entry["join"].items():
                yield from _known(f"{where}.join.{path}.dataset", join["dataset"], config["datasets"])
            if entry["share"][0] >= entry["share"][1]:
                yield f"{where}.share: {entry['share']} is empty; expected [from, to] with from below to"
    for name, entry in config["mixtures"].items():
        for dataset in entry["datasets"]:
            yield from _known(f"mixtures.{name}.datasets", dataset, config["datasets"])
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


def _check_run(where: str, run: Json, config: Json) -> Iterator[str]:
    yield from _known(f"{where}.mixture", run["mixture"], config["mixtures"])
    yield from _known(f"{where}.model", run["model"], config["models"])
    for benchmark in run["benchmarks"]:
        yield from _known(f"{where}.benchmarks", benchmark, config["benchmarks"])
    mixture = config["mixtures"].get(run["mixture"])
    if mixture is not None and mixture["eval_fraction"] == 0 and not run["benchmarks"]:
        yield f"{where}: there is nothing to judge it on; name a benchmark, or set the mixture's eval_fraction above 0"
    training = run["training"]
    for problem in owned_keys(training["deepspeed"]):
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


def _one_source(where: str, entry: Json, known: tuple[str, ...]) -> Iterator[str]:
    found = [key for key in known if key in entry]
    if len(found) != 1:
        yield f"{where}: has {' and '.join(found) or 'no source'}; expected exactly one of {', '.join(known)}"


def _known(where: str, name: str, entries: Json) -> Iterator[str]:
    if name not in entries:
        yield f"{where}: {name!r} is not defined{_nearest(name, list(entries))}"
