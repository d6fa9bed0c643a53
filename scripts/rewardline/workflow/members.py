"""Mistakes in ensembles and averages: members that are not there, or that do not belong together."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rewardline.core.errors import nearest
from rewardline.core.hashing import file_sha256
from rewardline.evaluation.settings import HELD_OUT
from rewardline.model.settings import BaseModelSettings
from rewardline.tokens.settings import EncodingSettings
from rewardline.training.settings import TrainingSettings
from rewardline.workflow.config import Config, ModelEntry
from rewardline.workflow.runs import Run, average_table, ensemble_table, evaluated_on, members_of, run_table

LOADED = ("trust_remote_code", "convert_bin")
"""Keys of a base model that change neither its tokenizer nor its weights."""


def check_members(config: Config) -> Iterator[str]:
    """Members must be training runs of this configuration, and fit together."""
    runs = {run.run_id: run for run in run_table(config)}
    known = runs.keys() | config.runs.keys() | {cell.sweep for cell in config.cells.values()}
    problems = [problem for name in _made(config) for problem in _check_names(config, name, known)]
    yield from problems
    if problems:
        return
    for name, kind in _made(config).items():
        members = [runs[run_id] for run_id in members_of(config, name)]
        fitted = [run.name for run in members if _fits_weights(config.runs[run.name].training)]
        if len(members) < 2:
            yield f"runs.{name}.{kind}: has one member, {members[0].run_id}; expected two or more"
        elif kind == "average" and fitted:
            yield (
                f"runs.{name}.average: {fitted[0]} fits weights of attributes to the outputs of each model "
                f"(runs.{fitted[0]}.training.objective.weights), which differ between members; give the weights"
            )
            continue
        yield from _check_fit(config, f"runs.{name}.{kind}", members, is_average=kind == "average")
    for ensemble in ensemble_table(config):
        for benchmark in ensemble.benchmarks:
            without = [runs[member].name for member in ensemble.members if benchmark not in runs[member].benchmarks]
            if without:
                remedy = f"add it to runs.{without[0]}.benchmarks"
                yield f"runs.{ensemble.run_id}.benchmarks: {without[0]} is not evaluated on {benchmark!r}; {remedy}"
        yield from _check_judged(config, ensemble)
    for average in average_table(config):
        for benchmark in average.benchmarks:
            yield from not_defined(f"runs.{average.run_id}.benchmarks", benchmark, config.benchmarks)
            probes = config.benchmarks[benchmark].probes if benchmark in config.benchmarks else None
            if probes is not None and probes.mixture != average.mixture:
                yield (
                    f"runs.{average.run_id}.benchmarks: {benchmark} is built from {probes.mixture}, whose held-out "
                    f"prompts may be in the training pairs of {average.mixture}; name probes of {average.mixture}"
                )
        yield from _check_judged(config, average)


def _made(config: Config) -> dict[str, str]:
    """The names of what is made of runs, with the key that lists these."""
    return {**dict.fromkeys(config.ensembles, "ensemble"), **dict.fromkeys(config.averages, "average")}


def _check_names(config: Config, name: str, known: Iterable[str]) -> Iterator[str]:
    kinds = _made(config)
    for member in config.members(name):
        if member not in known:
            what = f"an {kinds[member]} itself" if member in kinds else "no run and no run id"
            yield f"runs.{name}.{kinds[name]}: {member!r} is {what}{nearest(member, sorted(known))}"
    if name in known:
        yield f"runs.{name}: its run id {name} is also that of a training run; rename one"


def _check_judged(config: Config, made: Run) -> Iterator[str]:
    judged = evaluated_on(config, made)
    for benchmark in config.all_runs[made.name].fail_below:
        where = f"runs.{made.run_id}.fail_below"
        yield from not_defined(where, benchmark, judged)
        yield from without_accuracy(where, config, benchmark, made.mixture)
    if not judged:
        yield (
            f"runs.{made.run_id}: its members have no eval split in common; name a benchmark that all are evaluated on"
        )


def _check_fit(config: Config, where: str, members: Sequence[Run], *, is_average: bool) -> Iterator[str]:
    """The first thing in which a member reads or scores text otherwise than the first one."""
    first = members[0]
    for other in members[1:]:
        if {first.model, other.model} <= config.models.keys() and (
            difference := _difference(config, first, other, is_average)
        ):
            why = "weights of different models have no mean" if is_average else "an ensemble reads a text once"
            yield f"{where}: {first.run_id} and {other.run_id} have different {difference}; {why}. Leave one out"
            return


def _difference(config: Config, first: Run, other: Run, is_average: bool) -> str | None:
    """What two members do not share, in words and with the keys that decide it."""
    models = [config.models[run.model] for run in (first, other)]
    settings = [config.runs[run.name].training for run in (first, other)]
    names = " and ".join(dict.fromkeys(f"models.{run.model}" for run in (first, other)))
    if is_average and not _equal(models, set(BaseModelSettings.model_fields) - {*LOADED}):
        return f"base models ({names})"
    if not _same_tokenizer(*models):
        return f"base models, whose tokenizers may differ ({names})"
    for key in EncodingSettings.model_fields:
        if not _equal(models, {key}):
            what = "lengths" if key == "max_length" else "templates"
            return f"{what} ({' and '.join(f'models.{run.model}.{key}' for run in (first, other))})"
    if config.reads_names(first.mixture) != config.reads_names(other.mixture):
        return f"readings of `system` (`fields` of the datasets of mixtures {first.mixture} and {other.mixture})"
    heads = ("score", "normalize", "precision") if is_average else ("score",)
    for key in heads:
        if not _equal(settings, {key}):
            what = {"score": "heads", "normalize": "normalizations", "precision": "number formats"}[key]
            return f"{what} ({' and '.join(f'runs.{run.name}.training.{key}' for run in (first, other))})"
    outputs = [one.objective and (one.objective.attributes, one.objective.weights) for one in settings]
    if [bool(found and found[0]) for found in outputs] != [False, False] and outputs[0] != outputs[1]:
        return f"attributes ({' and '.join(f'runs.{run.name}.training.objective' for run in (first, other))})"
    if is_average and outputs[0] and outputs[0][0]:  # whose means and spreads are those of the training answers
        fractions = {config.runs[run.name].fraction for run in (first, other)}
        sources = {config.source_of(run.mixture) for run in (first, other)}
        for key, differs in (("mixture", len(sources) > 1), ("fraction", len(fractions) > 1)):
            if differs:
                return f"units of attributes ({' and '.join(f'runs.{run.name}.{key}' for run in (first, other))})"
    return None


def _fits_weights(training: TrainingSettings) -> bool:
    return training.objective is not None and training.objective.weights == "fit"


def _equal(entries: Sequence[ModelEntry] | Sequence[TrainingSettings], keys: set[str]) -> bool:
    first, other = (entry.model_dump(include=keys) for entry in entries)
    return bool(first == other)


def _same_tokenizer(first: ModelEntry, other: ModelEntry) -> bool:
    """Whether two models are known to have one tokenizer: the same source, the same new one, or an equal file."""
    if first.chat_template_from != other.chat_template_from:
        return False
    if first.init is not None and other.init is not None:
        return first.init.tokenizer == other.init.tokenizer
    files = [Path(model.path or "") / "tokenizer.json" for model in (first, other)]
    if all(model.path and file.is_file() for model, file in zip((first, other), files, strict=True)):
        return file_sha256(files[0]) == file_sha256(files[1])
    return _equal([first, other], set(BaseModelSettings.model_fields) - {*LOADED})


def without_accuracy(where: str, config: Config, benchmark: str, mixture: str) -> Iterator[str]:
    """A message if no accuracy is known on a benchmark, or on the eval split of `mixture`, which runs are judged by."""
    reason = config.unpaired(mixture if benchmark == HELD_OUT else benchmark)
    if reason is not None:
        yield f"{where}: {reason}, so that there is no accuracy; name a benchmark with pairs"


def not_defined(where: str, name: str, entries: Iterable[str]) -> Iterator[str]:
    """A message if a name is not among those of some entries."""
    if name not in entries:
        yield f"{where}: {name!r} is not defined{nearest(name, entries)}"
