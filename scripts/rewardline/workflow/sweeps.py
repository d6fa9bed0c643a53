"""The cells of a sweep: which values each has, and the run that it is."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from heapq import nsmallest
from itertools import pairwise, product
from math import prod

from pydantic import JsonValue

from rewardline.core.hashing import canonical, digest
from rewardline.core.settings import JsonObject
from rewardline.training.settings import NO_EFFECT, ROUNDING, TrainingSettings
from rewardline.workflow.config import Config, Grid, RunEntry, SweepEntry

IN_COMMON = {"seeds", "benchmarks", "fail_below"}
"""Keys of a run that all cells have in common."""
KEYS = (
    *(key for key in RunEntry.model_fields if key not in IN_COMMON | {"training"}),
    *(f"training.{key}" for key in TrainingSettings.model_fields),
)
"""Keys that a grid may have; those of a mapping, such as `training.lora.rank`, too."""
SHORT = {"learning_rate": "lr"}
"""Short names of keys in the names of runs."""
NORMALIZE = "training.normalize"
LONGEST_ID = 150
MOST_COUNTED = 100_000
"""Most cells of which some are drawn."""


def with_fractions(config: Config) -> Iterator[tuple[str, SweepEntry]]:
    """The sweeps, and the runs that are one by the `fractions` of their mixture, with these in their grids."""
    trained: dict[str, RunEntry | SweepEntry] = {**config.runs, **config.sweeps}
    for name, entry in trained.items():
        grid: JsonObject = entry.grid.as_json() if isinstance(entry, SweepEntry) else {}
        fractions = next(filter(None, _fractions(config, entry).values()), [])
        if fractions:
            grid["fraction"] = list(fractions)
        if grid:
            values = {key: value for key, value in entry.as_json().items() if key != "grid"}
            yield name, SweepEntry.model_validate({**values, "grid": grid})


def fractions_problem(config: Config, name: str) -> str | None:
    """That the mixtures of a sweep differ in their fractions, of which its grid can have one list; None if not."""
    shares = _fractions(config, config.all_runs[name])
    for first, other in pairwise(shares):
        if sorted(shares[first]) != sorted(shares[other]):
            return f"grid.mixture: {first} and {other} differ in their fractions; make them equal, or set grid.fraction"
    return None


def _fractions(config: Config, entry: object) -> dict[str, list[float]]:
    """The fractions of each mixture that a run or the cells of a sweep are on, unless the entry has its own."""
    if not isinstance(entry, RunEntry | SweepEntry):
        return {}
    grid = entry.grid.values if isinstance(entry, SweepEntry) else {}
    if "fraction" in {*grid, *entry.model_fields_set}:
        return {}
    names = map(str, grid.get("mixture", [entry.mixture]))
    return {name: config.mixtures[name].fractions for name in names if name in config.mixtures}


def missing(sweep: SweepEntry, without: Collection[str]) -> list[str]:
    """The keys that a run needs and neither the entry nor `without` has."""
    return [key for key in ("mixture", "model") if getattr(sweep, key) is None and key not in without]


def count_problem(grid: Grid) -> str | None:
    """What is wrong with the number of cells, and how to change it; None if nothing is."""
    count = prod(map(len, grid.values.values()))
    if grid.sample is None and count > grid.max_cells:
        return (
            f"{count:,} cells are more than max_cells ({grid.max_cells:,}); set sample to draw some, or raise max_cells"
        )
    if count > MOST_COUNTED:
        return f"{count:,} cells are more than can be drawn from ({MOST_COUNTED:,}); leave out values"
    return None


def cells(name: str, grid: Grid, values: Mapping[str, Sequence[JsonValue]]) -> Iterator[tuple[str, JsonObject]]:
    """The id and the values of each cell; `values` are those of the grid as the run reads them.

    A sample is of the cells whose hashes are lowest. So values that are added, and a larger sample, leave the cells
    that were drawn before in it, but for those that new ones displace.
    """
    keys = list(values)
    texts = [  # of lists and mappings what is written, without the defaults of what is not
        [
            _text(raw if isinstance(read, list | dict) else read)
            for raw, read in zip(grid.values[key], values[key], strict=True)
        ]
        for key in keys
    ]
    ids = (_cell_id(name, keys, chosen) for chosen in product(*texts))
    found = zip(ids, product(*values.values()), strict=True)
    drawn = (
        found if grid.sample is None else nsmallest(grid.sample, found, key=lambda one: digest(f"{grid.seed} {one[0]}"))
    )
    for cell_id, chosen in drawn:
        yield cell_id, dict(zip(keys, chosen, strict=True))


def _cell_id(name: str, keys: Sequence[str], texts: Sequence[str]) -> str:
    """`<name>-<key>=<value>_...` with the last part of each key, or its short name; safe as the name of a folder.

    It has no comma, at which Snakemake would split it where jobs run on a cluster.
    """
    last = [key.rpartition(".")[2] for key in keys]
    labels = [SHORT.get(short, short) if last.count(short) == 1 else key for key, short in zip(keys, last, strict=True)]
    result = f"{name}-{'_'.join(f'{label}={text}' for label, text in zip(labels, texts, strict=True))}"
    return result if len(result) <= LONGEST_ID else f"{result[: LONGEST_ID - 17]}-{digest(result)}"


def _text(value: JsonValue) -> str:
    """A value with the letters, digits and signs that are safe in a path."""
    text = value if isinstance(value, str) else canonical(value)
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", text).strip("-") or "empty"


def with_values(sweep: SweepEntry, values: Mapping[str, JsonValue]) -> JsonObject:
    """The entry of the run that a cell is, not yet validated."""
    entry: JsonObject = {key: value for key, value in sweep.as_json().items() if key != "grid" and value is not None}
    for key in sorted(values):  # training.lora before training.lora.rank
        *parents, last = key.split(".")
        place = entry
        for parent in parents:
            inner = place.get(parent)
            place[parent] = inner = dict(inner) if isinstance(inner, dict) else {}
            place = inner
        place[last] = values[key]
    return entry


def value_at(entry: RunEntry, key: str) -> JsonValue:
    """The value of a key in an entry."""
    value: JsonValue = entry.as_json()
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else None
    return value


def same_training(config: Config, sweep: str, names: Iterable[str]) -> Iterator[str]:
    """Messages about cells that train the same weights, up to rounding and the scale of their scores."""
    seen: dict[str, str] = {}
    said: set[str] = set()
    for name in names:
        entry = config.runs[name]
        training = entry.training.model_dump(mode="json", exclude={*NO_EFFECT, *ROUNDING, NORMALIZE.rpartition(".")[2]})
        training["eval_sets"] = {name: entry.training.eval_sets.get(name) for name in entry.training.chosen_by}
        if not (entry.training.keep_best or entry.training.early_stopping):
            del training["eval_every"]
        parts = [config.mixtures[entry.mixture], config.models[entry.model]]
        first = seen.setdefault(canonical([training, entry.fraction, *(part.as_json() for part in parts)]), name)
        one, other = (config.cells[cell].values for cell in (first, name))
        keys = " and ".join(key for key in one if one[key] != other[key])
        if keys and keys not in said:
            said.add(keys)
            change = "the scale of scores" if keys == NORMALIZE else "rounding"
            yield (
                f"runs.{sweep}.grid: {keys} changes nothing but {change} between {first} and {name}; leave it out, or"
                " compare the values in runs of their own"
            )
