"""Mistakes in audits, and which of them are made."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from rewardline.core.errors import nearest
from rewardline.core.files import read_json
from rewardline.workflow.config import AuditEntry, Config


def check_audits(config: Config) -> Iterator[str]:
    """An audit judges labels of a mixture by a run whose models have not learned from them."""
    for name, entry in config.audits.items():
        where = f"audits.{name}"
        if entry.mixture not in config.mixtures:
            yield f"{where}.mixture: {entry.mixture!r} is not defined{nearest(entry.mixture, config.mixtures)}"
            continue
        if config.source_of(entry.mixture) != entry.mixture:
            yield f"{where}.mixture: {entry.mixture} is made of another mixture; audit that one"
        if (reason := config.unpaired(entry.mixture)) is not None:
            yield f"{where}.mixture: {reason} whose labels could be judged; name another mixture"
        if entry.run not in config.runs or entry.run in config.cells:
            runs = config.runs.keys() - config.cells.keys()
            hint = nearest(entry.run, sorted(runs)) if runs else ""
            yield f"{where}.run: {entry.run!r} is {_kind(config, entry.run)}{hint}"
            continue
        run = config.runs[entry.run]
        if run.mixture in config.mixtures and config.mixtures[run.mixture].audit == name:
            yield f"{where}.run: {entry.run} is trained on {run.mixture}, which this audit makes; name another run"
        if (trained := _trained_on(config, entry)) is not None:
            yield (
                f"{where}.run: {entry.run} starts from a model that was trained on {trained} already, so that it knows "
                "the labels that it is to judge; name a run that starts from a base model"
            )
        taken = {*config.mixtures, *config.all_runs, *config.benchmarks, *config.datasets}
        for fold in range(entry.folds):
            if (own := f"{name}-fold{fold}") in taken:
                yield f"{where}: the name of its fold {own} is taken; rename one"
    for name, mixture in config.mixtures.items():
        written = [key for key in ("action", "below") if key in mixture.model_fields_set]
        if mixture.audit is None and written:
            yield f"mixtures.{name}.{written[0]}: has an effect with `audit` only, the name of an audit; remove it"
        elif mixture.audit is not None and mixture.action != "soften" and mixture.below > 0.5:
            yield (
                f"mixtures.{name}.below: {mixture.below:g} would {mixture.action} labels that are more probably right "
                "than wrong; expected 0.5 or less, or action: soften"
            )


def _kind(config: Config, name: str) -> str:
    """What a name is that is not that of a training run, and what to name instead."""
    swept = [cell.values.keys() for cell in config.cells.values() if cell.sweep == name]
    if name in config.cells:
        return f"a cell of the sweep {config.cells[name].sweep}; name a run of its own with these values"
    if swept and swept[0] == {"fraction"}:
        return "a sweep over the fractions of its mixture; name a run with a single `fraction`"
    if swept:
        return "a sweep, whose cells differ in their settings; name a run without `grid`"
    return "not a training run" if name in config.all_runs else "not defined"


def _trained_on(config: Config, entry: AuditEntry) -> str | None:
    """The mixture with labels of the audited one that the model of the audit's run was trained on; None for none."""
    model = config.runs[entry.run].model
    path = config.models[model].path if model in config.models else None
    if path is None:
        return None
    facts = read_json(Path(path) / "run.json") if (Path(path) / "run.json").is_file() else {}
    mixture = facts.get("mixture") if isinstance(facts, dict) else None
    for name, run in config.runs.items():  # also where it is still to be trained
        ids = {name, *(f"{name}-seed{seed}" for seed in run.seeds)}
        mixture = run.mixture if Path(path).parts[-2:] in {("models", run_id) for run_id in ids} else mixture
    names = str(mixture).split("+") if mixture else []
    audited = config.mixtures[entry.mixture].datasets.keys()
    for name in names:
        datasets = config.mixtures[name].datasets.keys() if name in config.mixtures else set()
        if name == entry.mixture or datasets & audited:
            return name
    return None


def used_audits(config: Config, selected: set[str], mixtures: Iterable[str | None]) -> set[str]:
    """The audits of selected runs, and of the mixtures that are read."""
    cleaned = {config.mixtures[name].audit for name in mixtures if name in config.mixtures}
    return {name for name, entry in config.audits.items() if entry.run in selected or name in cleaned}
