"""The configuration: what is allowed, and what is meant where nothing is said."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from rewardline.workflow.config_checks import SECTIONS, cross_check, nearest
from rewardline.workflow.config_ensembles import mixed_runs, part_ensembles

Json = dict[str, Any]
PLACE_KEYS = ("hub", "config", "split", "data_files", "data_dir", "columns")
"""Of a known data set: what says where its rows are, whatever the format."""


class ConfigError(Exception):
    """One or more mistakes in the configuration, a line each."""


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

    Runs that are ensembles stand under `ensembles`, all others under `runs`.

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
            table = known or {} if section == "benchmarks" else _without_arithmetic(known or {})
            chosen[section] = {name: _with_known(entry, table) for name, entry in chosen[section].items()}
    misplaced = list(mixed_runs(chosen.get("runs")))
    filled = _fill(chosen, schema, schema)
    validator = jsonschema.Draft202012Validator(schema)
    problems = [_explain(error) for error in validator.iter_errors(filled)]
    problems += misplaced
    if not problems:
        part_ensembles(filled)
        problems = list(cross_check(filled))
    if problems:
        raise ConfigError("\n".join(sorted(set(problems))))
    result: Json = filled
    return result


def _with_known(entry: Any, known: Mapping[str, Any]) -> Any:
    """An entry with what is known of its hub data set; the entry's own keys win, `fields` key by key.

    A benchmark in local files is known by its arithmetic.
    """
    if not isinstance(entry, Mapping):
        return entry
    defaults = known.get(str(entry.get("hub")))
    if defaults is None and "hub" not in entry and entry.get("arithmetic") is not None:
        published = (keys for keys in known.values() if keys.get("arithmetic") == entry["arithmetic"])
        defaults = {key: value for key, value in next(published, {}).items() if key not in PLACE_KEYS}
    if defaults is None:
        return entry
    if entry.get("format", defaults.get("format")) != defaults.get("format"):
        defaults = {key: value for key, value in defaults.items() if key in PLACE_KEYS}
    result = {**defaults, **entry}
    if isinstance(entry.get("fields"), Mapping):
        result["fields"] = {**defaults.get("fields", {}), **entry["fields"]}
    return {**result, "hub": defaults.get("hub", entry["hub"])} if "hub" in entry else result


def _without_arithmetic(known: Mapping[str, Any]) -> Json:
    return {name: {key: value for key, value in keys.items() if key != "arithmetic"} for name, keys in known.items()}


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
        return "; ".join(f"{prefix}{key}: unknown key{nearest(str(key), known)}" for key in unknown)
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
    hint = nearest(value, limit) if rule == "enum" and isinstance(value, str) else ""
    return f"{where}: {value!r} is not allowed; expected {meaning}{hint}"
