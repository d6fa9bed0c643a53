"""Reading of the configuration: defaults of public datasets, old names of keys, and messages about mistakes."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import get_args, get_origin

import yaml
from pydantic import BaseModel, JsonValue, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from rewardline.core.errors import nearest
from rewardline.core.hashing import canonical
from rewardline.core.settings import ONE_OF, JsonObject
from rewardline.data.pairs.settings import MixtureSettings
from rewardline.evaluation.published.registry import reading
from rewardline.workflow import sweeps
from rewardline.workflow.audits import check_audits
from rewardline.workflow.config import SECTIONS, AverageEntry, Cell, Config, EnsembleEntry, RunEntry, SweepEntry
from rewardline.workflow.config_checks import cross_check
from rewardline.workflow.config_files import Place, WrittenText, with_written_keys

log = logging.getLogger(__name__)
SOURCE_KEYS = ("hub", "config", "split", "data_files", "data_dir", "columns")
"""Keys of a public dataset that say where its rows are, whatever the format."""
RENAMED = {"arithmetic": "scoring"}
"""Old names of keys of benchmarks, which still work."""
_LITERAL = re.compile(r"true|false|null|~|[-+]?(0|[1-9]\d*)?(\.\d*)?(e[-+]?\d+)?", re.IGNORECASE)
"""What a value other than text is in every language; empty is null."""
KINDS_OF_RUN: dict[int | str, type[BaseModel]] = {
    **{"run": RunEntry, "sweep": SweepEntry, "ensemble": EnsembleEntry, "average": AverageEntry},
}


NOTHING_WRITTEN = WrittenText({}, {})


class ConfigError(Exception):
    """One or more mistakes in the configuration, a line each."""


def load_public_datasets(path: Path) -> dict[str, JsonObject]:
    """Keys of the entries of public datasets, by name on the hub."""
    datasets: dict[str, JsonObject] = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
    return datasets


def resolve(
    config: Mapping[str, object], public: Mapping[str, JsonObject] | None = None, written: WrittenText = NOTHING_WRITTEN
) -> Config:
    """The configuration with all defaults.

    `public`: those of public datasets, by name on the hub; `written`: what the files have, for values that are text.

    Raises:
        ConfigError: names each wrong key with its value, what is allowed and the nearest known key.
    """
    resolved = with_written_keys(config, written)
    assert isinstance(resolved, dict)
    for section in SECTIONS:
        entries = resolved.get(section)
        if isinstance(entries, Mapping):
            resolved[section] = {name: _entry(section, name, entries[name], public or {}) for name in entries}
    labels = {place: text for place, text in written.values.items() if _is_label(place, text)}
    resolved = _replaced(resolved, labels, if_given=True)
    assert isinstance(resolved, dict)
    problems: list[str]
    try:
        result, problems = _expanded(_validated(_inherited(resolved), written.values), written.values)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors(include_url=False)]
    else:
        problems = problems or list(check_audits(result))
        problems = problems or list(cross_check(result := result.with_folds()))
    if problems:
        raise ConfigError("\n".join(sorted(set(problems))))
    return result


def _inherited(config: JsonObject) -> JsonObject:
    """The configuration, in which a mixture that is made of another one has all that this one has."""
    mixtures, audits = _entries(config.get("mixtures")), _entries(config.get("audits"))
    result: JsonObject = {}
    for name, entry in mixtures.items():
        how = [key for key in ("audit", "augment") if entry.get(key) is not None]
        if not how:
            continue
        where = f"mixtures.{name}"
        if len(how) > 1:
            raise ConfigError(f"{where}: has audit and augment; write one mixture for each")
        key, source_name = f"{where}.{how[0]}", _name(f"{where}.{how[0]}", entry[how[0]])
        if how == ["audit"]:
            if (audit := audits.get(source_name)) is None:
                raise ConfigError(f"{key}: {source_name!r} is not defined{nearest(source_name, audits)}")
            if audit.get("mixture") is None:
                raise ConfigError(f"audits.{source_name}: mixture is missing")
            key = f"audits.{source_name}.mixture"
            source_name = _name(key, audit["mixture"])
        if (source := mixtures.get(source_name)) is None:
            raise ConfigError(f"{key}: {source_name!r} is not defined{nearest(source_name, mixtures)}")
        if made := [other for other in ("audit", "augment") if source.get(other) is not None]:
            raise ConfigError(f"{key}: {source_name} has {made[0]} itself; name the mixture that it is made of")
        if others := sorted(entry.keys() & MixtureSettings.model_fields.keys()):
            raise ConfigError(f"{where}.{others[0]}: the mixture has this of {source_name}; remove it")
        inherited = {key: value for key, value in source.items() if key not in ("fractions", "shards")}
        result[name] = {**inherited, **entry}
    raw = config.get("mixtures")
    return {**config, "mixtures": {**raw, **result}} if isinstance(raw, dict) else config


def _name(where: str, value: JsonValue) -> str:
    if isinstance(value, list | dict):
        raise ConfigError(f"{where}: {value!r} is not allowed; expected a text")
    return str(value)


def _entries(section: JsonValue) -> dict[str, JsonObject]:
    """The entries of a section that are mappings, by name."""
    entries = section if isinstance(section, dict) else {}
    return {str(name): entry for name, entry in entries.items() if isinstance(entry, dict)}


def _is_label(place: Place, text: str) -> bool:
    """Whether rows are compared with a value that only YAML takes for something else than text, as `yes` or a date."""
    is_compared = len(place) > 3 and place[0] in ("datasets", "benchmarks") and place[2] in ("values", "where")
    return is_compared and not _LITERAL.fullmatch(text)


def _validated(config: JsonObject, written: Mapping[Place, str]) -> Config:
    """The configuration, in which a value that must be text, such as a name, is what is written: `no` is not False."""
    try:
        return Config.model_validate(config)
    except ValidationError as error:
        locations = [problem["loc"] for problem in error.errors() if problem["type"] == "string_type"]
        texts = {place: written[place] for place in map(_place, locations) if place in written}
        if not texts:
            raise
        return Config.model_validate(_replaced(config, texts))


def _expanded(config: Config, written: Mapping[Place, str]) -> tuple[Config, list[str]]:
    """The configuration with a run for each cell of its sweeps, and the mistakes in these."""
    runs, cells, problems = dict(config.runs), dict[str, Cell](), list[str]()
    for name, entry in sweeps.with_fractions(config):
        where, found = f"runs.{name}", len(problems)
        runs.pop(name, None)
        problems += [f"{where}: {key} is missing" for key in sweeps.missing(entry, entry.grid.values)]
        if problem := sweeps.fractions_problem(config, name):
            problems.append(f"{where}.{problem}")
        if problem := sweeps.count_problem(entry.grid):
            problems.append(f"{where}.grid: {problem}")
        values: dict[str, list[JsonValue]] = {}
        for key, texts in entry.grid.values.items():
            if key in sweeps.IN_COMMON:
                texts = []
                problems.append(f"{where}.grid.{key}: all cells have this key in common; move it to {where}.{key}")
            read = [_value(name, entry, key, index, written) for index in range(len(texts))]
            problems += [problem for one in read if isinstance(one, list) for problem in one]
            values[key] = [one[0] for one in read if isinstance(one, tuple)]
        if len(problems) > found:
            continue
        for cell_id, chosen in sweeps.cells(name, entry.grid, values):
            if cell_id in config.all_runs:
                problems.append(
                    f"{where}.grid: a cell has the run id {cell_id}, as has runs.{cell_id}; rename that run"
                )
            elif cell_id in cells:
                one, other = (canonical(values) for values in (cells[cell_id].values, chosen))
                problems.append(f"{where}.grid: {one} and {other} have the same run id {cell_id}; leave one out")
            runs[cell_id] = RunEntry.model_validate(sweeps.with_values(entry, chosen))
            cells[cell_id] = Cell(sweep=name, values=chosen, halving=entry.grid.halving)
    return config.expanded(runs, cells), problems


def _value(
    sweep: str, entry: SweepEntry, key: str, index: int, written: Mapping[Place, str]
) -> tuple[JsonValue] | list[str]:
    """A value of a grid as the run reads it, in a tuple; or what is wrong with it."""
    value = entry.grid.values[key][index]
    missing = dict.fromkeys(sweeps.missing(entry, without=()), "")
    try:
        return (sweeps.value_at(RunEntry.model_validate(sweeps.with_values(entry, {**missing, key: value})), key),)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    text = written.get(("runs", sweep, "grid", key, index))
    if text is not None and [problem["type"] for problem in errors] == ["string_type"]:
        return (text,)
    where = f"runs.{sweep}.grid"
    if any(problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1 for problem in errors):
        return [f"{where}.{key}: unknown key{nearest(key, sweeps.KEYS)}"]
    located = (_explain({**problem, "loc": ("runs", sweep, "run", *problem["loc"])}) for problem in errors)
    return [message.replace(f"runs.{sweep}", where, 1) for message in located]


def _place(location: Sequence[int | str]) -> Place:
    """A location as pydantic gives it, without the kind of a run, and without what is in brackets: no key."""
    parts = [part for index, part in enumerate(location) if index != 2 or location[0] != "runs"]
    return tuple(part for part in parts if part not in (*ONE_OF, "[key]"))


def _replaced(value: object, texts: Mapping[Place, str], place: Place = (), *, if_given: bool = False) -> object:
    """A value with texts at some places; `if_given`: only in place of what YAML reads in them, not of other values."""
    if place in texts and not (if_given and yaml.safe_load(texts[place]) != value):
        return texts[place]
    if isinstance(value, Mapping):
        return {key: _replaced(item, texts, (*place, key), if_given=if_given) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, texts, (*place, index), if_given=if_given) for index, item in enumerate(value)]
    return value


def _entry(section: str, name: str, entry: object, public: Mapping[str, JsonObject]) -> object:
    """An entry with the present names of its keys, and with the defaults of its hub dataset.

    The keys of the entry win, `fields` key by key. A published benchmark has those of its `scoring` too.
    """
    if not isinstance(entry, Mapping) or section not in ("datasets", "benchmarks"):
        return entry
    is_benchmark = section == "benchmarks"
    if entry.get("ratings") is not None and "format" not in entry:
        entry = {**entry, "format": "rated"}
    for old, new in RENAMED.items() if is_benchmark else ():
        if old in entry:
            log.warning("%s.%s.%s: this key is now called %s; the old name still works", section, name, old, new)
            entry = {new if key == old else key: value for key, value in entry.items()}
    defaults = public.get(str(entry.get("hub")), {})
    defaults = {**reading((entry if is_benchmark else defaults).get("scoring", defaults.get("scoring"))), **defaults}
    if not defaults:
        return entry
    if not is_benchmark:
        defaults = {key: value for key, value in defaults.items() if key != "scoring"}
    if entry.get("format", defaults.get("format")) != defaults.get("format"):
        defaults = {key: value for key, value in defaults.items() if key in SOURCE_KEYS}
    result = {**defaults, **entry}
    fields, default_fields = entry.get("fields"), defaults.get("fields")
    if isinstance(fields, Mapping) and isinstance(default_fields, Mapping):
        result["fields"] = {**default_fields, **fields}
    return {**result, "hub": defaults.get("hub", entry["hub"])} if "hub" in entry else result


def _explain(error: ErrorDetails) -> str:
    """A message with the key, its value, what is allowed, and the nearest known key."""
    location, kind, value = error["loc"], error["type"], error["input"]
    path = list(map(str, _place(location)))
    where = ".".join(path) or "the configuration"
    if kind == "extra_forbidden":
        return _unknown_key(where, path[-1], location)
    if kind == "missing":
        return f"{'.'.join(path[:-1]) or 'the configuration'}: {path[-1]} is missing"
    expected = "it " + re.sub(r"^\w+ should", "should", error["msg"]).partition(" or instance of ")[0]
    if kind == "value_error":
        expected = f"expected {error['ctx']['error']}"
    if kind == "literal_error":
        choices = [choice.strip("'") for choice in re.split(", | or ", error["ctx"]["expected"])]
        near = nearest(value, choices) if isinstance(value, str) and len(choices) > 1 else ""
        names = ", ".join({"True": "true", "False": "false"}.get(choice, choice) for choice in choices)
        expected = (
            f"expected {'one of ' if len(choices) > 1 else ''}{names}{'' if near.startswith('; known') else near}"
        )
    if kind == "string_type":
        expected = f"write it in quotes, '{value}'" if isinstance(value, int | float) else "expected a text"
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        expected = "expected a mapping, `key: value`"
    if location[-1] == ONE_OF[1]:
        expected += ", or a mapping, `key: value`"
    return f"{where}: {value!r} is not allowed; {expected}"


def _unknown_key(where: str, key: str, location: tuple[int | str, ...]) -> str:
    parent = where.rpartition(".")[0]
    if location[0] == "runs" and len(location) == 4:
        if location[2] in ("ensemble", "average") and key in SweepEntry.model_fields:
            return f"{parent}: {key} is not allowed with {location[2]}, which trains nothing; remove it"
        if location[2] == "ensemble" and key in AverageEntry.model_fields:
            return f"{parent}: has both ensemble and average; make an entry of each"
        if location[2] in ("run", "sweep", "average") and key in EnsembleEntry.model_fields:
            return f"{parent}: {key} is for ensembles only; remove it, or name an ensemble"
    return f"{where}: unknown key{nearest(key, known_keys(location[:-1]))}"


def known_keys(location: Iterable[int | str]) -> list[str]:
    """The keys that are known at a location in the configuration, as pydantic gives it."""
    annotation: object = Config
    for part in location:
        if get_origin(annotation) in (dict, list):
            annotation = get_args(annotation)[-1]
        elif part in KINDS_OF_RUN:
            annotation = KINDS_OF_RUN[part]
        else:
            annotation = _fields(annotation)[str(part)].annotation
    return list(_fields(annotation))


def _fields(annotation: object) -> dict[str, FieldInfo]:
    """The fields of the model in a type such as `Model | None`, by key."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {field.alias or name: field for name, field in annotation.model_fields.items()}
    return next(filter(None, map(_fields, get_args(annotation))), {})
