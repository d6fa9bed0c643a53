"""Mistakes in audits, and which of them are made."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from rewardline.core.errors import UserError, nearest
from rewardline.core.files import read_json
from rewardline.data.remote.addresses import is_remote
from rewardline.data.sources.local_files import expand_files
from rewardline.workflow.config import AuditEntry, Config, DatasetEntry, MixtureEntry


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
    """The mixture with labels of the audited one that the model of the audit's run was trained on; None for none.

    Also where that was a model further back. Mixtures are compared by the sources of their datasets, whatever these are
    called; what a finished run was trained on, also by the hashes of its tokens.
    """
    audited, model, seen = config.mixtures[entry.mixture], config.runs[entry.run].model, set[str]()
    while model in config.models and model not in seen and (path := config.models[model].path) is not None:
        seen.add(model)
        folder = Path(path).absolute()
        facts = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
        facts = facts if isinstance(facts, dict) else {}
        mixture, model = facts.get("mixture"), str(facts.get("model"))
        for name, run in config.runs.items():  # also where it is still to be trained
            ids = {name, *(f"{name}-seed{seed}" for seed in run.seeds)}
            if folder.parts[-2:] in {("models", run_id) for run_id in ids}:
                mixture, model = run.mixture, run.model
        folds = {f"{name}-fold{fold}": audit for name, audit in config.audits.items() for fold in range(audit.folds)}
        for name in str(mixture).split("+") if mixture else []:
            source = folds[name].mixture if name in folds else name
            trained = config.mixtures.get(source)
            if source == entry.mixture or (trained is not None and _share_rows(config, trained, audited)):
                return name
            if hashes := _token_hashes(facts.get("data")):
                for manifest in (folder.parents[1] / "tokens" / entry.mixture).glob("*/manifest.json"):
                    tokens = read_json(manifest)
                    if isinstance(tokens, dict) and hashes & _token_hashes(tokens.get("splits")):
                        return name
    return None


def _share_rows(config: Config, one: MixtureEntry, other: MixtureEntry) -> bool:
    """Whether two mixtures have datasets that may have rows in common."""
    first, second = ([config.datasets[name] for name in of.datasets if name in config.datasets] for of in (one, other))
    return any(_overlap(this, that) for this in first for that in second)


def _overlap(one: DatasetEntry, other: DatasetEntry) -> bool:
    """Whether two datasets have one source, and not different parts of its prompts."""
    if max(one.share[0], other.share[0]) >= min(one.share[1], other.share[1]):
        return False
    if one.hub is not None:
        return all(getattr(one, key) == getattr(other, key) for key in ("hub", "config", "split", "data_files"))
    if one.demo is not None:
        return other.demo is not None and one.demo.seed == other.demo.seed
    return not _files(one).isdisjoint(_files(other))


def _files(dataset: DatasetEntry) -> set[str]:
    """The files of a dataset by their real paths; patterns that match nothing as they are."""
    files = set[str]()
    for pattern in dataset.files or []:
        try:
            files |= {file if is_remote(file) else os.path.realpath(file) for file in expand_files([pattern])}
        except UserError:
            files.add(pattern)
    return files


def _token_hashes(splits: object) -> set[str]:
    """The hashes of the files with the training tokens, of the splits in a manifest."""
    train = splits.get("train") if isinstance(splits, dict) else None
    shards = train.get("shards") if isinstance(train, dict) else None
    return {str(shard["sha256"]) for shard in shards or [] if isinstance(shard, dict) and shard.get("comparisons")}


def used_audits(config: Config, selected: set[str], mixtures: Iterable[str | None]) -> set[str]:
    """The audits of selected runs, and of the mixtures that are read."""
    cleaned = {config.mixtures[name].audit for name in mixtures if name in config.mixtures}
    return {name for name, entry in config.audits.items() if entry.run in selected or name in cleaned}
