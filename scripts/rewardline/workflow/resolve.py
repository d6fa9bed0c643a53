"""From the configuration as written to the typed one: public datasets filled in, mistakes explained."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from rewardline.core.settings import JsonObject
from rewardline.workflow.config import SECTIONS, Config, EnsembleEntry, RunEntry
from rewardline.workflow.config_checks import cross_check, nearest

log = logging.getLogger(__name__)
SOURCE_KEYS = ("hub", "config", "split", "data_files", "data_dir", "columns")
"""Of a public dataset: what says where its rows are, whatever the format."""
RENAMED = {"arithmetic": "scoring"}
"""Old names of keys of benchmarks, which still work."""
ENSEMBLE_KEYS = set(EnsembleEntry.model_fields) - set(RunEntry.model_fields)
RUN_KEYS = set(RunEntry.model_fields) - set(EnsembleEntry.model_fields)


class ConfigError(Exception):
    """One or more mistakes in the configuration, a line each."""


def load_public_datasets(path: Path) -> dict[str, JsonObject]:
    """The table of public datasets: by the name on the hub, the keys of an entry."""
    known: dict[str, JsonObject] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return known


def resolve(written: Mapping[str, object], public: Mapping[str, JsonObject] | None = None) -> Config:
    """The configuration with every default filled in; `public` has those of public datasets, by their name on the hub.

    Raises:
        ConfigError: names each wrong key with its value, what is allowed and the nearest known key.
    """
    config = {
        section: {str(name): entry for name, entry in entries.items()}
        if isinstance(entries, Mapping) and section in SECTIONS
        else entries
        for section, entries in written.items()
    }
    for section in {"datasets", "benchmarks"} & config.keys():
        entries = config[section]
        if isinstance(entries, Mapping):
            config[section] = {
                name: _with_public(_renamed(f"{section}.{name}", entry), public or {}, section == "benchmarks")
                for name, entry in entries.items()
            }
    try:
        result = Config.model_validate(config)
    except ValidationError as error:
        problems = [_explain(one) for one in error.errors(include_url=False)]
    else:
        problems = list(cross_check(result))
    if problems:
        raise ConfigError("\n".join(sorted(set(problems))))
    return result


def _renamed(where: str, entry: object) -> object:
    """An entry of a benchmark with the present names of its keys."""
    if not isinstance(entry, Mapping):
        return entry
    for old, new in RENAMED.items():
        if old in entry and where.startswith("benchmarks."):
            log.warning("%s.%s: this key is now called %s; the old name still works", where, old, new)
    return {RENAMED.get(key, key) if where.startswith("benchmarks.") else key: value for key, value in entry.items()}


def _with_public(entry: object, public: Mapping[str, JsonObject], is_benchmark: bool) -> object:
    """An entry with what is known of its hub dataset; the entry's own keys win, `fields` key by key.

    A benchmark in local files is known by its scoring.
    """
    if not isinstance(entry, Mapping):
        return entry
    defaults = public.get(str(entry.get("hub")))
    if defaults is None and is_benchmark and "hub" not in entry and entry.get("scoring") is not None:
        published = (keys for keys in public.values() if keys.get("scoring") == entry["scoring"])
        defaults = {key: value for key, value in next(published, {}).items() if key not in SOURCE_KEYS}
    if defaults is None:
        return entry
    if not is_benchmark:
        defaults = {key: value for key, value in defaults.items() if key != "scoring"}
    if entry.get("format", defaults.get("format")) != defaults.get("format"):
        defaults = {key: value for key, value in defaults.items() if key in SOURCE_KEYS}
    result = {**defaults, **entry}
    own, known = entry.get("fields"), defaults.get("fields")
    if isinstance(own, Mapping) and isinstance(known, Mapping):
        result["fields"] = {**known, **own}
    return {**result, "hub": defaults.get("hub", entry["hub"])} if "hub" in entry else result


def _explain(error: ErrorDetails) -> str:
    """A mistake in words: key, value, what is allowed, and the nearest known key."""
    path = [str(part) for place, part in enumerate(error["loc"]) if place != 2 or error["loc"][0] != "runs"]
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    *parents, last = path or [""]
    where = ".".join(path) or "the configuration"
    if kind == "extra_forbidden":
        return _unknown_key(where, last, error["loc"])
    if kind == "missing":
        return f"{'.'.join(parents) or 'the configuration'}: {last} is missing"
    allowed = {
        "literal_error": "one of {expected}",
        "greater_than": "more than {gt:g}",
        "greater_than_equal": "at least {ge:g}",
        "less_than": "less than {lt:g}",
        "less_than_equal": "at most {le:g}",
        "string_pattern_mismatch": "text that matches {pattern}",
        "too_short": "at least {min_length} entries",
        "too_long": "at most {max_length} entries",
        "value_error": "{error}",
        "float_parsing": "a number",
        "float_type": "a number",
        "int_parsing": "an integer",
        "int_type": "an integer",
        "int_from_float": "an integer",
        "bool_type": "true or false",
        "string_type": "text",
        "list_type": "a list",
        "dict_type": "a mapping of names to values",
        "model_type": "a mapping of names to values",
    }
    meaning = allowed[kind].format(**context) if kind in allowed else error["msg"]
    hint = ""
    if kind == "literal_error":
        choices = [part.strip(" '") for part in str(context["expected"]).replace(" or ", ",").split(",")]
        meaning = "one of " + ", ".join(choices)
        hint = nearest(value, choices) if isinstance(value, str) else ""
    return f"{where}: {value!r} is not allowed; expected {meaning}{hint}"


def _unknown_key(where: str, key: str, location: tuple[int | str, ...]) -> str:
    parent = where.rpartition(".")[0]
    if location[0] == "runs" and len(location) == 4:
        if location[2] == "ensemble" and key in RUN_KEYS:
            return f"{parent}: {key} does not go with ensemble, which trains nothing; take it out"
        if location[2] == "run" and key in ENSEMBLE_KEYS:
            return f"{parent}: {key} is for ensembles only; take it out, or name an ensemble"
    return f"{where}: unknown key{nearest(key, known_keys(location[:-1]))}"


def known_keys(location: Iterable[int | str]) -> list[str]:
    """The keys that are known at a place of the configuration."""
    place: object = Config
    for part in location:
        place = _inside(place, part)
    models = _models(place)
    return list(_fields(models[0])) if models else []


def _inside(place: object, part: int | str) -> object:
    """The type at a key of a model or mapping, or at the tag of a run."""
    if part in ("run", "ensemble"):
        return RunEntry if part == "run" else EnsembleEntry
    if get_origin(place) is dict:
        return get_args(place)[1]
    models = _models(place)
    return _fields(models[0])[str(part)].annotation if models else None


def _models(annotation: object) -> list[type[BaseModel]]:
    """The models in a type such as `Model | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}
