"""What is needed to repeat the training runs: settings, versions, hardware and all else that `run.json` has."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from rewardline.core.hashing import canonical
from rewardline.evaluation.results import printable
from rewardline.report.formatting import Table
from rewardline.training.records.run_facts import RunFacts

LONGEST = 300
"""Characters of a value that are shown."""
PARTS = {"settings": "training", "versions": "versions", "hardware": "hardware"}
SHOWN_ABOVE = {"run", "mixture", "model", "seed", "parameters", "trained_parameters", "steps", "pairs", "tokens"}
SHOWN_ABOVE |= {"seconds", "tokens_per_second", "device", "world_size", "git"}
"""Fields that are columns of the table of runs."""


@dataclass(frozen=True)
class Provenance:
    """A part of what the runs recorded: the values they have in common, and a table of those that differ."""

    title: str
    common: list[tuple[str, str]]
    different: Table


def provenance(runs: Sequence[RunFacts]) -> list[Provenance]:
    """The parts of what the runs recorded, but those without values."""
    facts = [run.model_dump(mode="json") for run in runs]
    parts = {title: [_flat(one[field]) for one in facts] for title, field in PARTS.items()}
    shown = SHOWN_ABOVE.union(PARTS.values())
    parts["more"] = [_flat({key: value for key, value in one.items() if key not in shown}) for one in facts]
    result = []
    for title, records in parts.items():
        values = {key: [one.get(key, "-") for one in records] for key in sorted(set().union(*records))}
        common = [(key, texts[0]) for key, texts in values.items() if len(set(texts)) == 1]
        different = [[key, *texts] for key, texts in values.items() if len(set(texts)) > 1]
        if values:
            result.append(Provenance(title, common, Table([title, *(run.run for run in runs)], different)))
    return result


def varied_settings(runs: Sequence[RunFacts]) -> dict[str, dict[str, str]]:
    """The settings that differ between runs: by key of the configuration, the value of each run by its id.

    Among them, if they differ, the step at which halving eliminated a run, and how its training has diverged.
    """
    records = {
        run.run: {
            **{"fraction": f"{run.fraction:g}", "eliminated_at": f"{run.eliminated_at or ''}"},
            "diverged": printable(run.diverged or ""),
            **_flat(run.training.model_dump(mode="json"), "training"),
        }
        for run in runs
    }
    values = {key: {run: one.get(key, "") for run, one in records.items()} for key in _union(records.values())}
    return {key: by_run for key, by_run in values.items() if len(set(by_run.values())) > 1}


def _union(records: Iterable[Mapping[str, str]]) -> list[str]:
    return list(dict.fromkeys(key for one in records for key in one))


def _flat(value: JsonValue, prefix: str = "") -> dict[str, str]:
    """A nested object as one level of dotted keys; lists and scalars as JSON, strings plain."""
    if isinstance(value, dict):
        return {
            key: text
            for name, inner in value.items()
            for key, text in _flat(inner, f"{prefix}.{name}" if prefix else name).items()
        }
    text = value if isinstance(value, str) else canonical(value)
    return {printable(prefix): printable(text if len(text) <= LONGEST else text[:LONGEST] + " ... see run.json")}
