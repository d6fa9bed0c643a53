"""Runs that are ensembles in the configuration: told apart from trainings."""

from collections.abc import Iterator, Mapping
from typing import Any

Json = dict[str, Any]
OF_ENSEMBLES = ("ensemble", "combine", "variance_weight")
JUDGED = ("benchmarks", "fail_below")
NEEDED = ("mixture", "model")


def mixed_runs(runs: Any) -> Iterator[str]:
    """What is wrong with runs as they were written, before defaults: keys of a training and of an ensemble in one."""
    for name, entry in runs.items() if isinstance(runs, Mapping) else ():
        if not isinstance(entry, Mapping):
            continue
        keys = [key for key, value in entry.items() if value is not None]
        if "ensemble" in keys:
            wrong = [key for key in keys if key not in (*OF_ENSEMBLES, *JUDGED)]
            if wrong:
                yield f"runs.{name}: {' and '.join(wrong)} does not go with ensemble, which trains nothing; take it out"
            continue
        if missing := [key for key in NEEDED if key not in keys]:
            yield f"runs.{name}: {' and '.join(missing)} is missing"
        if wrong := [key for key in keys if key in OF_ENSEMBLES]:
            yield f"runs.{name}: {' and '.join(wrong)} is for ensembles only; take it out, or name an ensemble"


def part_ensembles(config: Json) -> None:
    """Move the runs that are ensembles from `runs` to `ensembles`; take the keys of ensembles out of the others."""
    ensembles = {name: entry for name, entry in config["runs"].items() if "ensemble" in entry}
    config["ensembles"] = {
        name: {key: entry[key] for key in (*OF_ENSEMBLES, *JUDGED)} for name, entry in ensembles.items()
    }
    config["runs"] = {
        name: {key: value for key, value in entry.items() if key not in OF_ENSEMBLES}
        for name, entry in config["runs"].items()
        if name not in ensembles
    }
